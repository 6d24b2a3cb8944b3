"""Every turn of every trajectory: what methods work on that tell a trajectory's turns apart."""

from __future__ import annotations

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
