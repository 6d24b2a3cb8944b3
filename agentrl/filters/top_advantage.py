"""CPPO's pruning: of each group the trajectories whose advantage is largest either way."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.table import TurnTable
from agentrl.filters.scores import only


class TopAdvantageFilter(Settings):
    """Keeps of each group the trajectories of largest |advantage| (CPPO, arXiv:2503.22342).

        k = floor(G * (1 - prune))

    of the G that train; what is pruned costs the learner neither a forward nor a backward pass.
    The advantages are not computed anew, so those that are kept need not sum to 0. Of equals (up
    to a billionth of the group's largest) the earlier ones stay. The released code prunes the
    smallest of a process's whole batch instead of each group. A `prune` that leaves nothing of
    `sampler.trajectories` is refused when the recipe is read; a group that failures made smaller
    keeps one.
    """

    type: Literal["top_advantage"] = "top_advantage"
    prune: float = Field(default=0.5, gt=0.0, lt=1.0)

    def kept_of(self, trajectories: int) -> int:
        """How many of a group of so many stay: k."""
        # 10 * (1 - 0.9) is a little less than 1.
        return math.floor(trajectories * (1.0 - self.prune) + 1e-9)

    def __call__(self, table: TurnTable, leaves: LeafAdvantages) -> LeafAdvantages:
        """The k of `leaves` in each group."""
        group = table.leaf_group
        size = np.abs(leaves.advantage)
        largest = np.zeros(table.n_groups)
        np.maximum.at(largest, group[leaves.trains], size[leaves.trains])
        relative = np.divide(
            size, largest[group], out=np.zeros_like(size), where=largest[group] > 0
        )
        # By group, those that train first, then by size; ties stay in the order of the table.
        order = np.lexsort((-np.round(relative, 9), ~leaves.trains, group))
        members = np.bincount(group, minlength=table.n_groups)
        trained = np.bincount(group[leaves.trains], minlength=table.n_groups)
        starts = np.cumsum(members) - members
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) - starts[group[order]]
        allowed = np.asarray([max(1, self.kept_of(int(n))) for n in trained], np.int64)
        return only(leaves, place < allowed[group])
