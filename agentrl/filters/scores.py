"""What filters judge by: the score of each trajectory and the statistics of its group."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agentrl.core.types import Float64
from agentrl.credit.groups import EQUAL, LeafAdvantages, against_group
from agentrl.credit.subtree import Levels, trajectory_sums
from agentrl.credit.table import Bool, TurnTable


class Scores(NamedTuple):
    """Scores of L trajectories in G groups.

    `value` (L,) is the sum of `table.score` along the path (of the reward, where it is None);
    `finite` (L,) says which are numbers: the statistics are over those, truncated trajectories
    included. `mean` (G,) and `best` (G,) are the groups', NaN and -inf where none is finite, and
    `constant` (G,) is True where fewer than two different scores are.
    """

    value: Float64
    finite: Bool
    mean: Float64
    best: Float64
    constant: Bool

    @classmethod
    def of(cls, table: TurnTable) -> Scores:
        """Scores of `table`, in float64; scores that differ by rounding alone are equal."""
        column = table.reward if table.score is None else table.score
        value = trajectory_sums(table, Levels.of(table), column)
        finite = np.isfinite(value)
        group = table.leaf_group
        found = against_group(value, group, finite, table.n_groups, scale="none")
        total = np.bincount(group[finite], value[finite], table.n_groups)
        mean = np.full(table.n_groups, np.nan)
        np.divide(total, found.size, out=mean, where=found.size > 0)
        best = np.full(table.n_groups, -np.inf)
        np.maximum.at(best, group[finite], value[finite])
        return cls(value, finite, mean, best, found.equal)


def above(values: Float64, bound: Float64 | float) -> Bool:
    """Where `values` are larger than `bound` by more than rounding."""
    return np.asarray(values > bound + EQUAL * np.maximum(1.0, np.abs(bound)), np.bool_)


def only(leaves: LeafAdvantages, keep: Bool) -> LeafAdvantages:
    """`leaves` of which those that are not in `keep` (L,) do not train."""
    trains = leaves.trains & keep
    return leaves._replace(trains=trains, advantage=np.where(trains, leaves.advantage, 0.0))
