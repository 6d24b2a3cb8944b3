"""Samples of an evaluation, and the log that they are appended to as they finish."""

from __future__ import annotations

import base64
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from agentrl.core.errors import DataError
from agentrl.core.types import Failure, StopReason, ToolRecord, TrajectoryTree, Turn

FailureKind: TypeAlias = Literal["", "ungraded", "environment", "policy_server", "cancelled"]


class Key(NamedTuple):
    """Which sample: `number` counts the samples of one task from 0."""

    suite: str
    task_id: str
    number: int


class TurnText(NamedTuple):
    """One turn for people and for other graders: what the policy said and what it was shown."""

    action: str
    observation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One finished attempt at one task.

    `scores` are the episode's reward components, `reward`, their sum, and the metrics of its last
    turn that have another name (`scores_of`). A sample with a `failure` has none: it was lost to
    infrastructure (`error` says how) and counts as neither right nor wrong. `answers` has the
    final answer of each turn (None: none). `solved_turn` is the first turn (0-based) after which
    the suite's score had reached 1, or None. `prompt_tokens` were computed for it (cached prefixes
    left out where the engine tells), `generated_tokens` sampled; both are the server's own counts
    where it gives them. `retries` are the failures that were mended on the way. `tree` is the
    trajectory, a chain; `prompt` and `texts` are its text.
    """

    key: Key
    seed: int
    scores: Mapping[str, float]
    stop_reason: StopReason
    failure: FailureKind = ""
    error: str = ""
    answers: tuple[str | None, ...] = ()
    solved_turn: int | None = None
    turns: int = 0
    tool_calls: int = 0
    malformed_calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    generate_seconds: float = 0.0
    env_seconds: float = 0.0
    retries: int = 0
    prompt: str = ""
    texts: tuple[TurnText, ...] = ()
    tree: TrajectoryTree = field(compare=False)

    @property
    def answer(self) -> str | None:
        """The last answer given."""
        return next((one for one in reversed(self.answers) if one is not None), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, exact: `from_json` gives an equal sample back."""
        data = {name: getattr(self, name) for name in _PLAIN}
        return {
            **self.key._asdict(),
            **data,
            "scores": dict(self.scores),
            "answers": list(self.answers),
            "texts": [list(turn) for turn in self.texts],
            "tree": _tree_to_json(self.tree),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The sample that `to_json` wrote. Raises KeyError, TypeError or ValueError on others."""
        key = Key(data["suite"], data["task_id"], data["number"])
        plain = {name: data[name] for name in _PLAIN}
        plain["stop_reason"] = StopReason(plain["stop_reason"])
        return cls(
            key=key,
            **plain,
            scores=dict(data["scores"]),
            answers=tuple(data["answers"]),
            texts=tuple(TurnText(*turn) for turn in data["texts"]),
            tree=_tree_from_json(key.task_id, data["tree"]),
        )


def scores_of(turns: Sequence[Turn]) -> dict[str, float]:
    """The scores of an episode: its reward components, summed over turns; `reward`; metrics."""
    totals: dict[str, float] = {}
    for turn in turns:
        for name, value in turn.rewards.items():
            totals[name] = totals.get(name, 0.0) + value
    measured = turns[-1].metrics if turns else {}
    return {**measured, **totals, "reward": math.fsum(turn.reward for turn in turns)}


_PLAIN = (
    *("seed", "stop_reason", "failure", "error", "solved_turn", "turns", "tool_calls"),
    *("malformed_calls", "prompt_tokens", "generated_tokens", "generate_seconds", "env_seconds"),
    *("retries", "prompt"),
)


class SampleLog:
    """`samples.jsonl`: one line per finished sample, durable when `append` returns to a reader.

    A process that is killed leaves at most one cut line at the end, which `open` removes. Only
    one process may write; what is read is whole at any time.
    """

    def __init__(self, path: Path) -> None:
        """Opens `path` to append, after cutting off what a killed writer left unfinished."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        if path.exists():
            whole = _whole_bytes(path)
            if whole < path.stat().st_size:
                os.truncate(path, whole)
        self._file = path.open("ab")

    def append(self, sample: Sample) -> None:
        """Write one line; it survives a kill of this process."""
        line = json.dumps(sample.to_json(), ensure_ascii=True, separators=(",", ":")) + "\n"
        self._file.write(line.encode())
        self._file.flush()

    def close(self) -> None:
        """Write everything through to the disk; may be called twice."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a log, in the order they finished; a cut last line is left out.

    Raises:
        DataError: there is no such file, or a line in it is no sample (named by its number).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of samples")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Sample.from_json(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise _no_sample(path, number, error) from error


class Place(NamedTuple):
    """Where a sample's last line stands: its first byte, and whether it was lost (`failure`)."""

    offset: int
    failure: FailureKind


def last_lines(path: Path) -> dict[Key, Place]:
    """The last line of each sample of a log: what counts, as a lost one may be played again.

    Sorted by key, so that nothing depends on which sample finished first. A cut last line is left
    out; no log at all has no samples.

    Raises:
        DataError: a line is no sample (named by its number).
    """
    found: dict[Key, Place] = {}
    if not path.is_file():
        return found
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                data = json.loads(line)
                key = Key(data["suite"], data["task_id"], data["number"])
                found[key] = Place(offset, data["failure"])
            except (KeyError, TypeError, ValueError) as error:
                raise _no_sample(path, number, error) from error
            offset += len(line)
    return dict(sorted(found.items()))


def final_samples(path: Path) -> Iterator[Sample]:
    """The last line of each sample, in the order of their keys, one in memory at a time.

    Raises:
        DataError: there is no such file, or a line in it is no sample (named by its number).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of samples")
    with path.open("rb") as file:
        for place in last_lines(path).values():
            file.seek(place.offset)
            try:
                yield Sample.from_json(json.loads(file.readline()))
            except (KeyError, TypeError, ValueError) as error:
                file.seek(0)
                number = file.read(place.offset).count(b"\n") + 1
                raise _no_sample(path, number, error) from error


def _no_sample(path: Path, number: int, error: Exception) -> DataError:
    return DataError(
        f"{path}:{number}: no sample of an evaluation ({type(error).__name__}: {error})"
    )


def _whole_bytes(path: Path) -> int:
    """Bytes up to and including the last line end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        while size:
            start = max(0, size - 65_536)
            file.seek(start)
            found = file.read(size - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
    return 0


def _tree_to_json(tree: TrajectoryTree) -> dict[str, Any]:
    return {
        "group_id": tree.group_id,
        "seed": tree.seed,
        "prompt_ids": _packed(tree.prompt_ids),
        "parents": tree.parents,
        "turns": [_turn_to_json(turn) for turn in tree.turns],
        "leaves": {str(node): reason for node, reason in tree.leaves.items()},
        "failures": [[one.parent, one.stop_reason, one.message] for one in tree.failures],
    }


def _tree_from_json(task_id: str, data: Mapping[str, Any]) -> TrajectoryTree:
    prompt = _unpacked(data["prompt_ids"], np.int32)
    tree = TrajectoryTree(task_id, prompt, group_id=data["group_id"], seed=data["seed"])
    for parent, turn in zip(data["parents"], data["turns"], strict=True):
        tree.add(parent, _turn_from_json(turn))
    for node, reason in data["leaves"].items():
        tree.end(int(node), StopReason(reason))
    tree.failures += [Failure(p, StopReason(reason), said) for p, reason, said in data["failures"]]
    return tree


_TURN_PLAIN = (
    *("policy_version", "entropy_kind", "reward", "state_key", "malformed_calls"),
    *("prefilled_tokens", "sampled_tokens", "generate_seconds", "env_seconds"),
)


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    return {
        **{name: getattr(turn, name) for name in _TURN_PLAIN},
        "rewards": dict(turn.rewards),
        "metrics": dict(turn.metrics),
        "tool_calls": [[c.name, dict(c.arguments), c.ok, c.seconds] for c in turn.tool_calls],
        "action_ids": _packed(turn.action_ids),
        "logprobs": _packed(turn.logprobs),
        "entropies": _packed(turn.entropies),
        "observation_ids": _packed(turn.observation_ids),
    }


def _turn_from_json(data: Mapping[str, Any]) -> Turn:
    return Turn(
        **{name: data[name] for name in _TURN_PLAIN},
        rewards=dict(data["rewards"]),
        metrics=dict(data["metrics"]),
        tool_calls=tuple(ToolRecord(*call) for call in data["tool_calls"]),
        action_ids=_unpacked(data["action_ids"], np.int32),
        logprobs=_unpacked(data["logprobs"], np.float32),
        entropies=_unpacked(data["entropies"], np.float32),
        observation_ids=_unpacked(data["observation_ids"], np.int32),
    )


def _packed(values: npt.NDArray[Any]) -> str:
    """Base64 of the deflated little-endian bytes; "" for none."""
    if not len(values):
        return ""
    return base64.b64encode(
        zlib.compress(values.astype(values.dtype.newbyteorder("<")).tobytes(), 1)
    ).decode()


def _unpacked(text: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
    if not text:
        return np.zeros(0, dtype)
    raw = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype)
