"""Pass@k: only the best trajectory of a group is worth something, by its lead over the second."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.credit.groups import LeafAdvantages, against_group
from agentrl.credit.grpo import SoftAttribution
from agentrl.credit.nodes import difference
from agentrl.credit.subtree import Levels
from agentrl.credit.table import TurnTable


class PassAtKCredit(SoftAttribution):
    """What the best of a group adds to its maximum (arXiv:2503.19595), k the size of the group.

        A_best = (R_best - R_second) / (std of the group + 1e-6),   A_i = 0 for all others

    It is the leave-one-out form of the objective "one of k is right": without the best one the
    maximum falls to the second, and without any other it stays. Two that share the best return
    are worth 0 each. All trajectories are in the denominator, as in released code.
    """

    type: Literal["pass_at_k"] = "pass_at_k"
    singleton: Literal["zero", "error"] = "zero"

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Advantages of all leaves. Raises ContractError as `GroupBaseline.compare`."""
        levels = levels or Levels.of(table)
        leaves, group = super().compare(table, levels), table.leaf_group
        value, _, counted = self.returns(table, levels)
        found = against_group(value, group, counted, table.n_groups, scale=self.scale)
        # Differences between a group's advantages are those of its returns, scaled.
        worth = np.where(counted, found.advantage, -np.inf)
        order = np.lexsort((-worth, group))
        first = np.flatnonzero(np.diff(group[order], prepend=-1))
        several = first[found.size[group[order[first]]] > 1]
        best, second = order[several], order[several + 1]
        advantage = np.zeros(len(worth))
        lead = difference(value[best], value[second])
        advantage[best] = np.where(lead == 0.0, 0.0, worth[best] - worth[second])
        return leaves._replace(advantage=np.where(leaves.trains, advantage, 0.0))
