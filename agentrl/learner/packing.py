"""Groups and their credit into packed rows: each turn once, however many leaves share it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Float32, Float64, Group, Int32, TrajectoryTree, Turn
from agentrl.credit.table import Bool, Credit, Int64, TurnTable
from agentrl.learner.batch import Batch, Row, pack_rows


def pack_groups(
    groups: Sequence[Group],
    table: TurnTable,
    credit: Credit,
    *,
    denominator: float,
    pack_tokens: int,
) -> Batch:
    """A batch in which every turn with a weight is trained once, after its whole context.

    The trees of a group that have the same prompt share it, as the leaves of a tree share their
    turns: what is shared stands in a row once. A path ends with its last trained token, since what
    follows a token cannot change its log-probability; a path with nothing left to train is dropped.
    Trees of more than `pack_tokens` tokens are cut between leaves, in depth-first order: the next
    row has the turns above the cut once more, as context that is not trained again. A path that is
    longer than `pack_tokens` stays whole, alone. `table` and `credit` (of turns or of tokens) are
    those of `groups`. Raises ContractError on a log-probability of a trained token that is not
    finite.
    """
    turns = sum(len(tree.turns) for group in groups for tree in group.trees)
    if turns != len(table.parent):
        raise ContractError(
            f"the groups have {turns} turns and their table {len(table.parent)}: they are not of "
            "one another"
        )
    credit = credit.at_tokens(table)
    columns = np.stack([credit.positive, credit.negative, credit.weight])
    starts = table.token_starts
    rows: list[Row] = []
    start = 0
    for group in groups:
        stems: defaultdict[bytes, list[_Branch]] = defaultdict(list)
        for tree in group.trees:
            stop = start + len(tree.turns)
            branch = _Branch(tree, columns, starts[start : stop + 1])
            stems[tree.prompt_ids.tobytes()].append(branch)
            start = stop
        for branches in stems.values():
            rows += _stem_rows(branches, pack_tokens)
    return Batch(pack_rows(rows, pack_tokens), denominator)


def pack_to_look(
    groups: Sequence[Group], table: TurnTable, wanted: Float64, *, pack_tokens: int
) -> tuple[Row, ...]:
    """Rows that ask the learner about turns (`wanted` (K,) above 0) and would train nothing.

    As `pack_groups`, with every wanted token in one row and credit of 0.
    """
    nothing = np.zeros(len(wanted))
    credit = Credit(nothing, nothing, wanted)
    return pack_groups(groups, table, credit, denominator=1.0, pack_tokens=pack_tokens).rows


def split_groups(groups: Sequence[Group], trains: Bool, *, n: int) -> list[Int64]:
    """Indices of `groups` in at most `n` parts for as many steps, equal in number within one.

    Groups that train nothing (`trains` is (G,)) are left out first, so that no step is empty: there
    may be fewer than `n` parts, or none.
    """
    used = np.flatnonzero(trains)
    if len(trains) != len(groups):
        raise ContractError(f"{len(trains)} groups are not the {len(groups)} to split")
    return list(np.array_split(used, min(n, len(used)))) if len(used) else []


class _Branch(NamedTuple):
    """A tree, the credit (3, N) of all action tokens, and where its turns' (turns + 1,) start."""

    tree: TrajectoryTree
    columns: Float64
    starts: Int64

    def credit(self, node: int) -> Float64:
        """Positive, negative and weight (3, A) of the tokens of a turn."""
        return self.columns[:, self.starts[node] : self.starts[node + 1]]

    def trained_paths(self) -> list[tuple[int, ...]]:
        """Paths to the last trained turn of each leaf, depth first; none inside of another."""
        tree = self.tree
        trains = {
            node
            for node, turn in enumerate(tree.turns)
            if len(turn.action_ids) and self.credit(node)[2].any()
        }
        found = set()
        for leaf in tree.leaves:
            path = tree.path(leaf)
            last = max((at for at, node in enumerate(path) if node in trains), default=-1)
            found.add(path[: last + 1])
        # In this order a path stands just before those that continue it.
        paths = sorted(found - {()})
        return [a for a, b in pairwise([*paths, ()]) if b[: len(a)] != a]


def _stem_rows(branches: Sequence[_Branch], pack_tokens: int) -> Iterator[Row]:
    """Rows of the trees that share one prompt, none longer than need be."""
    prompt = branches[0].tree.prompt_ids
    done: set[tuple[int, int]] = set()
    stem = _Stem(prompt)
    for number, branch in enumerate(branches):
        for path in branch.trained_paths():
            if stem.turns and len(stem) + stem.cost(branch.tree, number, path) > pack_tokens:
                yield stem.row()
                stem = _Stem(prompt)
            stem.add(branch, number, path, done)
    if stem.turns:
        yield stem.row()


class _Piece(NamedTuple):
    """What a turn adds to a row: tokens, their credit (3, n), log-probabilities and sources."""

    token_ids: Int32
    credit: Float32
    logprobs: Float32
    sources: Int32


@dataclass(slots=True)
class _Stem:
    """A row in the making: a prompt, and the turns below it that are needed here."""

    prompt: Int32
    turns: dict[tuple[int, int], tuple[_Branch, bool]] = field(default_factory=dict)
    children: defaultdict[tuple[int, int], list[int]] = field(
        default_factory=lambda: defaultdict(list)
    )
    first: list[tuple[int, int]] = field(default_factory=list)
    tokens: int = 0

    def __len__(self) -> int:
        return len(self.prompt) + self.tokens

    def cost(self, tree: TrajectoryTree, number: int, path: Sequence[int]) -> int:
        """Tokens that `path` would add: actions, and observations that nothing here follows yet."""
        # What is here is closed under ancestors, so what is new is the end of the path.
        new = next((at for at, node in enumerate(path) if (number, node) not in self.turns), None)
        if new is None:
            return 0
        forks = new > 0 and bool(self.children.get((number, path[new - 1])))
        followed = path[new if forks or not new else new - 1 : -1]
        return sum(len(tree.turns[node].action_ids) for node in path[new:]) + sum(
            len(tree.turns[node].observation_ids) for node in followed
        )

    def add(
        self, branch: _Branch, number: int, path: Sequence[int], done: set[tuple[int, int]]
    ) -> None:
        """Take the turns of `path`; those in `done` are context, the others are trained here."""
        self.tokens += self.cost(branch.tree, number, path)
        for node in path:
            key = (number, node)
            if key in self.turns:
                continue
            self.turns[key] = (branch, key not in done)
            done.add(key)
            above = branch.tree.parents[node]
            if above == ROOT:
                self.first.append(key)
            else:
                self.children[number, above].append(node)

    def row(self) -> Row:
        """The row: depth first, a new segment wherever the path before it has forked."""
        pieces: list[_Piece] = []
        segments: list[int] = []
        starts: list[int] = []
        parents: list[int] = []
        ends: list[int] = []
        prompt = _Piece(self.prompt, *_untrained(len(self.prompt)))
        stack = [(prompt, self.first, -1, False)]
        while stack:
            piece, below, segment, continues = stack.pop()
            size = len(piece.token_ids)
            if size:
                if not continues:
                    parents.append(segment)
                    ends.append(ends[segment] if segment >= 0 else 0)
                    segment = len(parents) - 1
                pieces.append(piece)
                segments.append(segment)
                starts.append(ends[segment])
                ends[segment] += size
            # A turn without tokens is no end of a segment that a child could continue.
            alone = len(below) == 1 and (continues or size > 0)
            stack += [
                (self._piece(key), self._below(key), segment, alone) for key in reversed(below)
            ]
        return _joined(pieces, segments, starts, parents)

    def _below(self, key: tuple[int, int]) -> list[tuple[int, int]]:
        return [(key[0], node) for node in self.children.get(key, ())]

    def _piece(self, key: tuple[int, int]) -> _Piece:
        branch, trained = self.turns[key]
        number, node = key
        turn = branch.tree.turns[node]
        seen = (
            turn.observation_ids if self.children.get((number, node)) else turn.observation_ids[:0]
        )
        size = len(turn.action_ids)
        credit, logprobs, sources = _untrained(size + len(seen))
        found = branch.credit(node)
        if trained and found[2].any():
            _check_finite(branch.tree, node, turn)
            credit[:, :size] = found
            at = np.flatnonzero(found[2])
            logprobs[at] = turn.logprobs[at]
            sources[at] = branch.starts[node] + at
        return _Piece(np.concatenate([turn.action_ids, seen]), credit, logprobs, sources)


def _joined(
    pieces: Sequence[_Piece],
    segments: Sequence[int],
    starts: Sequence[int],
    parents: Sequence[int],
) -> Row:
    sizes = [len(piece.token_ids) for piece in pieces]
    credit = np.concatenate([piece.credit for piece in pieces], axis=1)
    within = np.concatenate([np.arange(size) for size in sizes])
    return Row(
        token_ids=np.concatenate([piece.token_ids for piece in pieces]).astype(np.int32),
        positions=(np.repeat(starts, sizes) + within).astype(np.int32),
        segments=np.repeat(segments, sizes).astype(np.int32),
        parents=np.asarray(parents, np.int32),
        positive=credit[0],
        negative=credit[1],
        weight=credit[2],
        behavior_logprobs=np.concatenate([piece.logprobs for piece in pieces]),
        sources=np.concatenate([piece.sources for piece in pieces]),
    )


def _untrained(size: int) -> tuple[Float32, Float32, Int32]:
    """Credit, log-probabilities and sources of tokens that no loss sees."""
    zeros = np.zeros(size, np.float32)
    return np.zeros((3, size), np.float32), zeros, np.full(size, -1, np.int32)


def _check_finite(tree: TrajectoryTree, node: int, turn: Turn) -> None:
    if not np.isfinite(turn.logprobs).all():
        raise ContractError(
            f"turn {node} of task {tree.task_id!r} (group {tree.group_id!r}) has a "
            "log-probability that is not finite: the engine returned no number for a "
            "token that it sampled"
        )
