"""OPO: a trajectory's return against its group's mean, long trajectories counting more."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.credit.groups import LeafAdvantages, against_group
from agentrl.credit.grpo import SoftAttribution
from agentrl.credit.subtree import Levels, trajectory_sums
from agentrl.credit.table import TurnTable


class OpoCredit(SoftAttribution):
    """The optimal baseline of on-policy learning (OPO, arXiv:2505.23585).

        A_i = R_i - (sum over the group of n_j R_j) / (sum over the group of n_j)

    n_j are the action tokens of trajectory j; observations are none. The baseline of least
    variance weighs returns by the squared norms of their gradients, for which lengths stand here.
    It is meant for one update per iteration. With equal lengths it is GRPO without its scale.
    """

    type: Literal["opo"] = "opo"
    scale: Literal["none"] = "none"

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Advantages of all leaves. Raises ContractError as `GroupBaseline.compare`."""
        levels = levels or Levels.of(table)
        leaves, group = super().compare(table, levels), table.leaf_group
        value, _, counted = self.returns(table, levels)
        found = against_group(value, group, counted, table.n_groups, scale="none")
        tokens = trajectory_sums(table, levels, table.tokens.astype(np.float64)) * counted
        total = np.bincount(group, tokens, table.n_groups)
        # The weighted mean of the differences from the plain mean: exactly 0 where all are equal.
        summed = np.bincount(group, tokens * found.advantage, table.n_groups)
        centre = summed / np.where(total > 0, total, 1.0)
        advantage = np.where(
            found.size[group] > 1, found.advantage - centre[group], leaves.advantage
        )
        return leaves._replace(advantage=np.where(leaves.trains, advantage, 0.0))
