"""Trees on disk: Parquet with one row per turn, which pandas or DuckDB opens without agentrl.

Each tree is one row for its root (node -1: prompt, seed, failures; nothing sampled) followed by
one row per turn. Rewards, tokens and times of a root's row are 0 or empty, so sums over a column
need no filter.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agentrl.core.errors import ContractError, DataError
from agentrl.core.types import (
    ROOT,
    Failure,
    Group,
    Int32,
    StopReason,
    ToolRecord,
    TrajectoryTree,
    Turn,
)
from agentrl.credit.table import Credit

if TYPE_CHECKING:
    import pyarrow as pa

_GROUPS = b"agentrl.groups"
_VERSION = b"agentrl.store"
_FORMAT = "1"

_ARRAYS = ("prompt_ids", "action_ids", "logprobs", "entropies", "observation_ids", "versions")
_READ = (
    *("task_id", "tree_group_id", "seed", "node", "parent", "stop_reason", "failures"),
    *_ARRAYS,
    *("policy_version", "entropy_kind", "reward", "rewards", "metrics", "state_key", "goes_on"),
    *(
        "tool_calls",
        "malformed_calls",
        "prefilled_tokens",
        "sampled_tokens",
        "generate_seconds",
        "env_seconds",
    ),
)
"""The columns that `read` needs; the others are for people."""
_MAY_LACK = ("goes_on", "metrics", "sampled_tokens", "versions")
"""Columns that a file written by an earlier version does not have."""

Decode = Callable[[Int32], str]


def write(
    path: str | Path,
    groups: Sequence[Group],
    *,
    credit: Credit | None = None,
    decode: Decode | None = None,
) -> None:
    """Write `groups` to `path`, whole or not at all: under a temporary name, then renamed.

    `credit` (rows of `TurnTable.of(groups)`) adds the columns positive, negative and weight;
    `decode` adds prompt_text, action_text and observation_text for people to read.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(_table(groups, credit, decode), temporary, compression="zstd")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | Path) -> list[Group]:
    """The groups of a file that `write` made, equal to what was written.

    Raises DataError on a file that is missing, cut, damaged or of another origin.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file of trajectories")
    try:
        schema = pq.read_schema(path)
        metadata = schema.metadata or {}
        _check_format(path, metadata)
        lacking = {name for name in _MAY_LACK if name not in schema.names}
        table = pq.read_table(path, columns=[name for name in _READ if name not in lacking])
        return _groups(table, json.loads(metadata[_GROUPS]))
    except (pa.ArrowException, OSError, ContractError, KeyError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: not a whole file of trajectories ({str(error).splitlines()[0]}); it was "
            "cut or damaged, or is something else"
        ) from error


def _check_format(path: Path, metadata: Mapping[bytes, bytes]) -> None:
    found = metadata.get(_VERSION, b"").decode()
    if found != _FORMAT:
        raise DataError(
            f"{path}: Parquet, but not trajectories in format {_FORMAT}"
            + (f" (found format {found})" if found else " (another program wrote it)")
        )


# -- writing ------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """One row: a tree's root (`turn` is empty) or one of its turns."""

    g: int
    group: Group
    number: int
    tree: TrajectoryTree
    node: int
    depth: int
    turn: Turn


_AT_ROOT = Turn(
    action_ids=np.zeros(0, np.int32),
    logprobs=np.zeros(0, np.float32),
    entropies=np.zeros(0, np.float32),
    entropy_kind="none",
)


def _lines(groups: Sequence[Group]) -> Iterator[_Line]:
    for g, group in enumerate(groups):
        for number, tree in enumerate(group.trees):
            yield _Line(g, group, number, tree, ROOT, -1, _AT_ROOT)
            depths: list[int] = []
            for node, (parent, turn) in enumerate(zip(tree.parents, tree.turns, strict=True)):
                depths.append(0 if parent == ROOT else depths[parent] + 1)
                yield _Line(g, group, number, tree, node, depths[node], turn)


def _table(groups: Sequence[Group], credit: Credit | None, decode: Decode | None) -> pa.Table:
    import pyarrow as pa

    lines = list(_lines(groups))
    turns = [line.turn for line in lines]
    prompts = [line.tree.prompt_ids if line.node == ROOT else _AT_ROOT.action_ids for line in lines]
    name = pa.dictionary(pa.int32(), pa.string())
    small, whole, real, text = pa.int32(), pa.int64(), pa.float64(), pa.string()
    columns: dict[str, Any] = {
        "group": pa.array([line.g for line in lines], small),
        "group_id": pa.array([line.group.id for line in lines], name),
        "task_id": pa.array([line.tree.task_id for line in lines], name),
        "tree": pa.array([line.number for line in lines], small),
        "tree_group_id": pa.array([line.tree.group_id for line in lines], name),
        "seed": pa.array([line.tree.seed for line in lines], whole),
        "node": pa.array([line.node for line in lines], small),
        "parent": pa.array([_parent(line) for line in lines], small),
        "depth": pa.array([line.depth for line in lines], small),
        "stop_reason": pa.array([str(line.tree.leaves.get(line.node, "")) for line in lines], name),
        "prompt_ids": _lists(prompts, np.int32),
        "action_ids": _lists([turn.action_ids for turn in turns], np.int32),
        "logprobs": _lists([turn.logprobs for turn in turns], np.float32),
        "entropies": _lists([turn.entropies for turn in turns], np.float32),
        "entropy_kind": pa.array([turn.entropy_kind for turn in turns], name),
        "observation_ids": _lists([turn.observation_ids for turn in turns], np.int32),
        "reward": pa.array([turn.reward for turn in turns], real),
        "rewards": pa.array([list(turn.rewards.items()) for turn in turns], pa.map_(text, real)),
        "metrics": pa.array([list(turn.metrics.items()) for turn in turns], pa.map_(text, real)),
        "tool_calls": pa.array([_calls_to_json(turn.tool_calls) for turn in turns], text),
        "malformed_calls": pa.array([turn.malformed_calls for turn in turns], small),
        "policy_version": pa.array([turn.policy_version for turn in turns], whole),
        "versions": _lists([_versions(turn) for turn in turns], np.int32),
        "state_key": pa.array([turn.state_key for turn in turns], text),
        "goes_on": pa.array([turn.goes_on for turn in turns], pa.bool_()),
        "prefilled_tokens": pa.array([turn.prefilled_tokens for turn in turns], whole),
        "sampled_tokens": pa.array([turn.sampled_tokens for turn in turns], whole),
        "generate_seconds": pa.array([turn.generate_seconds for turn in turns], real),
        "env_seconds": pa.array([turn.env_seconds for turn in turns], real),
        "failures": pa.array([_failures_to_json(line) for line in lines], text),
    }
    if credit is not None:
        sampled = np.array([line.node != ROOT for line in lines], bool)
        columns |= _credit_columns(credit, sampled)
    if decode is not None:
        columns["prompt_text"] = pa.array([decode(ids) for ids in prompts], text)
        columns["action_text"] = pa.array([decode(turn.action_ids) for turn in turns], text)
        columns["observation_text"] = pa.array([decode(t.observation_ids) for t in turns], text)
    listed = json.dumps([[group.id, group.task_id, len(group.trees)] for group in groups])
    return pa.table(columns, metadata={_VERSION: _FORMAT, _GROUPS: listed})


def _versions(turn: Turn) -> Int32:
    return _AT_ROOT.action_ids if turn.versions is None else turn.versions


def _parent(line: _Line) -> int:
    return ROOT if line.node == ROOT else line.tree.parents[line.node]


def _lists(arrays: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike) -> pa.Array:
    import pyarrow as pa

    offsets = np.zeros(len(arrays) + 1, np.int32)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    values = np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _credit_columns(credit: Credit, sampled: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
    import pyarrow as pa

    if len(credit.weight) != np.count_nonzero(sampled):
        raise ContractError(
            f"credit is for {len(credit.weight)} turns, the groups have {np.count_nonzero(sampled)}"
        )
    columns = {}
    for name in ("positive", "negative", "weight"):
        column = np.zeros(len(sampled))
        column[sampled] = getattr(credit, name)
        columns[name] = pa.array(column)
    return columns


def _calls_to_json(calls: Sequence[ToolRecord]) -> str:
    return json.dumps([[c.name, dict(c.arguments), c.ok, c.seconds] for c in calls])


def _failures_to_json(line: _Line) -> str:
    failures = line.tree.failures if line.node == ROOT else []
    return json.dumps([[f.parent, f.stop_reason, f.message] for f in failures])


# -- reading ------------------------------------------------------------------------------------


def _groups(table: pa.Table, listed: list[tuple[str, str, int]]) -> list[Group]:
    trees = iter(_trees(table))
    return [
        Group(id_, task_id, tuple(next(trees) for _ in range(count)))
        for id_, task_id, count in listed
    ]


def _trees(table: pa.Table) -> Iterator[TrajectoryTree]:
    arrays = {name: _slices(table[name]) for name in _ARRAYS if name in table.column_names}
    read = [name for name in table.column_names if name not in _ARRAYS]
    lines = zip(*(table[name].to_pylist() for name in read), strict=True)
    tree: TrajectoryTree | None = None
    for row, values in enumerate(lines):
        line = dict(zip(read, values, strict=True))
        line |= {name: slices[row] for name, slices in arrays.items()}
        if line["node"] == ROOT:
            if tree is not None:
                yield tree
            tree = _planted(line)
            continue
        if tree is None:
            raise DataError("its first row is no root of a tree")
        node = tree.add(line["parent"], _turn(line))
        if line["stop_reason"]:
            tree.end(node, StopReason(line["stop_reason"]))
    if tree is not None:
        yield tree


def _planted(line: Mapping[str, Any]) -> TrajectoryTree:
    """The tree of a root's row, without turns."""
    tree = TrajectoryTree(
        line["task_id"], line["prompt_ids"], group_id=line["tree_group_id"], seed=line["seed"]
    )
    for parent, reason, message in json.loads(line["failures"]):
        tree.failures.append(Failure(parent, StopReason(reason), message))
    return tree


def _turn(line: Mapping[str, Any]) -> Turn:
    calls, versions = json.loads(line["tool_calls"]), line.get("versions")
    return Turn(
        action_ids=line["action_ids"],
        logprobs=line["logprobs"],
        entropies=line["entropies"],
        observation_ids=line["observation_ids"],
        policy_version=line["policy_version"],
        versions=versions if versions is not None and len(versions) else None,
        entropy_kind=line["entropy_kind"],
        reward=line["reward"],
        rewards=dict(line["rewards"]),
        metrics=dict(line.get("metrics", ())),
        state_key=line["state_key"],
        goes_on=line.get("goes_on", False),
        tool_calls=tuple(ToolRecord(*call) for call in calls),
        malformed_calls=line["malformed_calls"],
        prefilled_tokens=line["prefilled_tokens"],
        sampled_tokens=line.get("sampled_tokens"),
        generate_seconds=line["generate_seconds"],
        env_seconds=line["env_seconds"],
    )


def _slices(column: pa.ChunkedArray) -> list[npt.NDArray[Any]]:
    found = []
    for chunk in column.chunks:
        values = chunk.values.to_numpy()
        offsets = chunk.offsets.to_numpy()
        found += [values[a:b].copy() for a, b in itertools.pairwise(offsets)]
    return found
