"""The index of a source: one row for each trajectory and group, small enough to load at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from agentrl.core.types import ROOT, StopReason
from agentrl.rollout.segments import count_turns
from agentrl.view.chunk import Shown, number, plain, trees_of, turns_chunk
from agentrl.view.pieces import Vocabulary, open_vocabulary
from agentrl.view.read import Part, Source, path_score

_CHUNK_TRAJECTORIES = 128
_CHUNK_CHARACTERS = 1_000_000
_PREVIEW = 160
_ANSWER = 120
_MARKS = tuple(
    f"<|{name}|>"
    for name in (
        "system",
        "user",
        "assistant",
        "tool",
        "inline",
        "tools",
        "thought",
        "image",
        "end",
    )
)
"""Marks in the text of transcripts."""
_GROUP_COLUMNS = ("part", "task", "id", "chunk", "at", "preview", "trees", "branches", "lost")
_ROW_COLUMNS = (
    *("group", "tree", "leaf", "return", "score", "stop", "turns", "tokens", "calls"),
    *("malformed", "tools", "failure", "credit", "seconds", "version", "sample", "answer"),
)
PROBE_TOKENS = 20
"""Tokens of an action whose entropy is shown where the sampler does not name a number."""


class Chunk(NamedTuple):
    """Which groups (a slice of those of `part`) travel together."""

    part: Part
    start: int
    stop: int


class Indexed(NamedTuple):
    """A chunk while its groups are at hand."""

    chunk: Chunk
    groups: list[list[Shown]]


class Names:
    """Texts by number, each kept once."""

    def __init__(self, *first: str) -> None:
        self.numbers: dict[str, int] = {}
        for text in first:
            self.number(text)

    def number(self, text: str) -> int:
        """The number of `text`."""
        return self.numbers.setdefault(text, len(self.numbers))

    @property
    def texts(self) -> list[str]:
        """All texts, by number."""
        return list(self.numbers)


class Indexer:
    """Makes the index of one source while its parts are read one after another."""

    def __init__(self, source: Source, *, tokenizer: str = "") -> None:
        self.source = source
        self.vocabulary: Vocabulary | None = open_vocabulary(tokenizer or source.model)
        self.chunks: list[Chunk] = []
        self.stops = Names(*StopReason)
        self.tasks, self.tools, self.failures = Names(), Names(), Names("")
        self.toolsets: dict[tuple[int, ...], int] = {(): 0}
        self.groups: dict[str, list[Any]] = {name: [] for name in _GROUP_COLUMNS}
        self.rows: dict[str, list[Any]] = {name: [] for name in _ROW_COLUMNS}
        self._has_tokens = False

    @property
    def probe(self) -> int:
        """Tokens of an action whose entropy decides about a branch."""
        sampler = self.source.settings.get("sampler")
        found = sampler.get("probe_tokens") if isinstance(sampler, dict) else None
        return found if isinstance(found, int) and found > 0 else PROBE_TOKENS

    @property
    def special(self) -> list[str]:
        """Texts that are marks rather than words."""
        return self.vocabulary.special if self.vocabulary else list(_MARKS)

    def turns(self, groups: Sequence[Sequence[Shown]]) -> dict[str, Any]:
        """The turns of a chunk, as the page takes them."""
        counted = not self.source.speaks_text
        return turns_chunk(groups, self.vocabulary, probe=self.probe, counted=counted)

    def read(self) -> Iterator[Indexed]:
        """Read every part once, fill the index, and hand out the chunks."""
        for number_, part in enumerate(self.source.parts):
            loaded = self.source.load(part)
            if loaded is None:
                continue
            trees = trees_of(loaded)
            for start, stop in _slices(trees):
                chunk = Chunk(part, start, stop)
                for at in range(start, stop):
                    group = loaded.groups[at]
                    self._group(number_, group.id, group.task_id, at - start, trees[at])
                self.chunks.append(chunk)
                yield Indexed(chunk, trees[start:stop])
        if self._has_tokens and self.vocabulary is None:
            named = self.source.model or "the policy"
            self.source.note(
                "tokenizer",
                f"that of {named} is not on this machine: where only token ids are stored, turns "
                "and tokens are shown as numbers (--tokenizer FOLDER names another place)",
            )

    def load(self, part: Part) -> list[list[Shown]] | None:
        """The trees of every group of `part`, read again; None where its file has gone."""
        loaded = self.source.load(part)
        return None if loaded is None else trees_of(loaded)

    def _group(self, part: int, id_: str, task_id: str, at: int, trees: Sequence[Shown]) -> None:
        group = len(self.groups["part"])
        first = trees[0] if trees else None
        columns = {
            "part": part,
            "task": self.tasks.number(task_id),
            "id": id_,
            "chunk": len(self.chunks),
            "at": at,
            "preview": self._preview(first) if first else "",
            "trees": len(trees),
            "branches": sum(_branches(one) for one in trees),
            "lost": sum(len(one.tree.failures) for one in trees),
        }
        for name, value in columns.items():
            self.groups[name].append(value)
        score = self.source.score.get(self.source.parts[part].suite)
        score = score or self.source.score.get("", "reward")
        for number_, one in enumerate(trees):
            self._has_tokens |= len(one.tree.prompt_ids) > 0 and not self.source.speaks_text
            # Depth first, as the tree is drawn from top to bottom.
            for leaf in sorted(one.tree.leaves, key=one.tree.path) or [ROOT]:
                self._row(group, number_, leaf, one, score)

    def _row(self, group: int, tree: int, leaf: int, one: Shown, score: str) -> None:
        path = one.tree.path(leaf)
        turns = [one.tree.turns[node] for node in path]
        reason = one.tree.leaves.get(leaf)
        sample = one.sample
        failed = bool(reason and reason.is_failure) or bool(sample and sample.failure)
        if sample is not None:
            reason = sample.stop_reason
        tools = tuple(sorted({self.tools.number(c.name) for t in turns for c in t.tool_calls}))
        known = any(turn.rewards or turn.reward for turn in turns) or not failed
        earned = sum(turn.reward for turn in turns)
        columns = {
            "group": group,
            "tree": tree,
            "leaf": leaf,
            "return": number(earned) if known and not failed and path else None,
            "score": None if failed else _score(one, path, score),
            "stop": self.stops.number(str(reason) if reason else "unfinished"),
            "turns": sample.turns if sample and not path else count_turns(turns),
            "tokens": (sample.generated_tokens if sample else 0)
            or (0 if self.source.speaks_text else sum(len(turn.action_ids) for turn in turns)),
            "calls": sum(len(turn.tool_calls) for turn in turns)
            or (sample.tool_calls if sample else 0),
            "malformed": sum(turn.malformed_calls for turn in turns),
            "tools": self.toolsets.setdefault(tools, len(self.toolsets)),
            "failure": self.failures.number(
                sample.failure if sample else str(reason) if reason and failed else ""
            ),
            "credit": _worth(one, leaf),
            "seconds": number(sum(turn.generate_seconds + turn.env_seconds for turn in turns), 4),
            "version": turns[-1].policy_version if turns else None,
            "sample": sample.key.number if sample else None,
            "answer": (sample.answer or "")[:_ANSWER] if sample else "",
        }
        for name, value in columns.items():
            self.rows[name].append(value)

    def _preview(self, one: Shown) -> str:
        """The end of the prompt: the question rather than the instructions before it."""
        text = one.text.prompt if one.text else ""
        if not text and self.vocabulary is not None:
            ids = one.tree.prompt_ids[-4 * _PREVIEW :].tolist()
            text = self.vocabulary.texts([ids])[0]
        for special in self.special:
            text = text.replace(special, " ")
        return " ".join(text[-8 * _PREVIEW :].split())[-_PREVIEW:]

    def data(self) -> dict[str, Any]:
        """The index as plain data; call after `read` has ended."""
        source = self.source
        sampler = source.settings.get("sampler")
        credit = source.settings.get("credit")
        return {
            "name": source.name,
            "folder": str(source.folder),
            "kind": source.kind,
            "notes": [note._asdict() for note in source.notes],
            "settings": plain(source.settings),
            "results": plain(source.results),
            "parts": [
                {"label": p.label, "kind": p.kind, "iteration": p.iteration, "suite": p.suite}
                for p in source.parts
            ],
            "sampler": plain(sampler) if isinstance(sampler, dict) else None,
            "probe": self.probe,
            "vocabulary": len(self.vocabulary) if self.vocabulary else 0,
            "special": self.special,
            "creditFrom": source.credit_from,
            "credit": plain(credit) if isinstance(credit, dict) else None,
            "score": source.score,
            "stops": self.stops.texts,
            "tasks": self.tasks.texts,
            "tools": self.tools.texts,
            "toolsets": [list(one) for one in self.toolsets],
            "failures": self.failures.texts,
            "groups": self.groups,
            "rows": self.rows,
            "chunks": len(self.chunks),
            "metrics": len(source.metrics),
        }


def metrics_data(source: Source) -> dict[str, Any]:
    """The metrics of a run as columns by name; None where a row has no value."""
    names = sorted({name for row in source.metrics for name in row} - {"iteration", "time"})
    columns = {name: [_metric(row.get(name)) for row in source.metrics] for name in names}
    return {
        "iteration": [row["iteration"] for row in source.metrics],
        "time": [_metric(row.get("time")) for row in source.metrics],
        "values": {
            name: found for name, found in columns.items() if any(v is not None for v in found)
        },
    }


def _metric(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    short = float(f"{value:.6g}") if isinstance(value, float) and abs(value) < 1e6 else value
    return number(short, 12)


def _slices(trees: Sequence[Sequence[Shown]]) -> Iterator[tuple[int, int]]:
    """Cuts where a chunk has enough trajectories or text."""
    start = trajectories = characters = 0
    for at, group in enumerate(trees):
        trajectories += sum(len(one.tree.leaves) or 1 for one in group)
        characters += sum(_size(one) for one in group)
        if trajectories >= _CHUNK_TRAJECTORIES or characters >= _CHUNK_CHARACTERS:
            yield start, at + 1
            start, trajectories, characters = at + 1, 0, 0
    if start < len(trees):
        yield start, len(trees)


def _size(one: Shown) -> int:
    """About how many characters of text a tree has."""
    if one.text is not None:
        return len(one.text.prompt) + sum(len(a) + len(o) for a, o in one.text.turns)
    tokens = sum(len(turn.action_ids) + len(turn.observation_ids) for turn in one.tree.turns)
    return 4 * (len(one.tree.prompt_ids) + tokens)


def _branches(one: Shown) -> int:
    """Continuations beyond the first of a node that has several."""
    parents = one.tree.parents
    return len(parents) - len(set(parents))


def _score(one: Shown, path: tuple[int, ...], name: str) -> float | int | None:
    if one.sample is not None:
        return number(one.sample.scores.get(name))
    value = path_score(one.tree, path, name) if path else None
    return number(value)


def _worth(one: Shown, leaf: int) -> float | int | None:
    """The advantage of a trajectory: that of its last turn; None where it was not trained."""
    if one.credit is None or leaf == ROOT:
        return None
    positive, negative, weight = one.credit[leaf].tolist()
    return number((positive + negative) / weight) if weight > 0 else None
