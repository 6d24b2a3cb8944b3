"""Every turn of every trajectory: what methods work on that tell a trajectory's turns apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from agentrl.core.types import ROOT, Float64
from agentrl.credit.groups import GroupBaseline, LeafAdvantages
from agentrl.credit.subtree import Levels
from agentrl.credit.table import Bool, Credit, Int64, TurnTable


class Steps(NamedTuple):
    """S steps: a turn that d trajectories share is a step of each, as if they had copies of it.

    `leaf` (S,) and `turn` (S,) are rows of the table's leaves and turns; `after` (S,) is the step
    that follows in the trajectory, the step itself where it is the last. Last steps stand first,
    those before them next, and so on: `bounds` are where each of these layers starts, and the end.
    """

    leaf: Int64
    turn: Int64
    after: Int64
    bounds: Int64

    @classmethod
    def of(cls, table: TurnTable) -> Steps:
        """All steps of `table`, a layer of all trajectories at a time, from the leaves up."""
        leaf, turn = np.arange(len(table.leaf_turn)), table.leaf_turn
        after = np.arange(len(leaf))
        layers: list[tuple[Int64, Int64, Int64]] = []
        bounds = [0]
        while len(turn):
            layers.append((leaf, turn, after))
            bounds.append(bounds[-1] + len(turn))
            above = table.parent[turn]
            on = above != ROOT
            after = np.flatnonzero(on) + bounds[-2]
            leaf, turn = leaf[on], above[on]
        columns = zip(*layers, strict=True) if layers else ((leaf,), (turn,), (after,))
        leaves, turns, following = (np.concatenate(one) for one in columns)
        return cls(leaves, turns, following, np.asarray(bounds, np.int64))

    def to_go(self, values: Float64, gamma: float = 1.0) -> Float64:
        """G_k = values_k + gamma G_{k+1} along every trajectory, all (S,); 0 after the last."""
        sums = values.astype(np.float64)
        for start, end in zip(self.bounds[1:-1], self.bounds[2:], strict=True):
            sums[start:end] += gamma * sums[self.after[start:end]]
        return sums

    def copies(self, table: TurnTable, trains: Bool) -> Iterator[tuple[Int64, Int64]]:
        """The action tokens of the `trains` (L,) trajectories: of which step, and which token.

        A token once for each of its trajectories, a layer of steps at a time: all copies of a tree
        at once would be many times the table.
        """
        starts = table.token_starts
        for start, end in pairwise(self.bounds):
            chosen = start + np.flatnonzero(trains[self.leaf[start:end]])
            turn = self.turn[chosen]
            size = table.tokens[turn]
            step = np.repeat(chosen, size)
            shift = np.cumsum(size) - size
            yield step, np.arange(len(step)) + np.repeat(starts[turn] - shift, size)

    def places(self, table: TurnTable) -> tuple[Int64, int]:
        """Which steps (S,) are at one turn index of one group, numbered, and how many numbers."""
        deepest = np.zeros(table.n_groups, np.int64)
        np.maximum.at(deepest, table.group, table.depth + 1)
        starts = np.cumsum(deepest) - deepest
        place = starts[table.leaf_group[self.leaf]] + table.depth[self.turn]
        return place, int(deepest.sum())

    def credit(self, table: TurnTable, advantage: Float64, weight: Float64) -> Credit:
        """Each turn's sums over its steps of w * max(A, 0), w * min(A, 0) and w, given (S,)."""
        positive, negative, total = (
            np.bincount(self.turn, values, len(table.parent)).astype(np.float64)
            for values in (
                weight * np.maximum(advantage, 0.0),
                weight * np.minimum(advantage, 0.0),
                weight,
            )
        )
        return Credit(positive=positive, negative=negative, weight=total)


def add_copies(sums: Float64, token: Int64, gain: Float64, weight: Float64) -> None:
    """Add copies' parts to a token `Credit`'s columns (3, N): `gain` is w * A, `weight` w."""
    np.add.at(sums[0], token, np.maximum(gain, 0.0))
    np.add.at(sums[1], token, np.minimum(gain, 0.0))
    np.add.at(sums[2], token, weight)


def paid_before(table: TurnTable) -> Float64:
    """What (N,) of its turn's reward is paid at tokens before each one.

    A return-to-go from a token is that from its turn less this; 0 without `token_rewards`.
    """
    if table.token_rewards is None:
        return np.zeros(int(table.tokens.sum()))
    from_here = sums_to_turn_end(table, table.token_rewards, 1.0)
    first = np.repeat(table.token_starts[:-1], table.tokens)
    return from_here[first] - from_here


def sums_to_turn_end(table: TurnTable, values: Float64, decay: float) -> Float64:
    """y_t = values_t + decay * y_(t+1) within every turn, both (N,); the last token's y is its own.

    One pass over the tokens: a position from the turns' ends at a time, over the turns that are so
    long.
    """
    sums = values.copy()
    longest_first = np.argsort(-table.tokens, kind="stable")
    last = (table.token_starts[1:] - 1)[longest_first]
    longest = int(table.tokens.max(initial=0))
    longer = len(last) - np.searchsorted(np.sort(table.tokens), np.arange(1, longest), "right")
    for back, count in enumerate(longer.tolist(), 1):
        at = last[:count] - back
        sums[at] += decay * sums[at + 1]
    return sums


class TurnLevel(GroupBaseline):
    """Methods whose advantage differs from turn to turn of a trajectory; one gives `advantages`.

    Shared turns carry the advantages of all their trajectories, kept apart, as if each trajectory
    had a copy. Where a whole trajectory needs one number (filters), it is its first turn's.
    """

    def advantages(self, table: TurnTable, steps: Steps, counted: Bool) -> Float64:
        """A (S,) of all steps; statistics over the steps of `counted` (L,) trajectories alone."""
        raise NotImplementedError

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Which leaves train, and their first turns' advantages. Raises as `GroupBaseline`."""
        levels = levels or Levels.of(table)
        leaves, steps = super().compare(table, levels), Steps.of(table)
        first = table.parent[steps.turn] == ROOT
        advantage = np.zeros(len(table.leaf_turn))
        advantage[steps.leaf[first]] = self._steps(table, levels, steps)[first]
        return leaves._replace(advantage=np.where(leaves.trains, advantage, 0.0))

    def __call__(
        self,
        table: TurnTable,
        row_weights: Float64,
        *,
        levels: Levels | None = None,
        leaves: LeafAdvantages | None = None,
    ) -> Credit:
        """Credit of all turns; `row_weights` (L,) as from `aggregate.row_weights`."""
        levels, steps = levels or Levels.of(table), Steps.of(table)
        trains = (leaves or self.compare(table, levels)).trains
        weight = (trains * row_weights)[steps.leaf]
        return steps.credit(table, self._steps(table, levels, steps), weight)

    def _steps(self, table: TurnTable, levels: Levels, steps: Steps) -> Float64:
        """`advantages`, and 0 for the steps of trajectories that are in no statistic."""
        counted = self.returns(table, levels).counted
        advantage = self.advantages(table, steps, counted)
        return np.where(counted[steps.leaf], advantage, 0.0)
