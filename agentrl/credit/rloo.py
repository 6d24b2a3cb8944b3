"""RLOO: a trajectory's return against the mean of the others of its group."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.grpo import SoftAttribution
from agentrl.credit.subtree import Levels
from agentrl.credit.table import TurnTable


class RlooCredit(SoftAttribution):
    """Leave-one-out advantages (REINFORCE Leave-One-Out, arXiv:2402.14740, section 3.2).

    With n trajectories of a group that are compared, in float64:

        A_i = R_i - (sum of the other R_j) / (n - 1) = n / (n - 1) * (R_i - mean)

    The baseline does not depend on R_i, so the gradient is unbiased; `scale="std"` gives that up
    for GRPO's step size and is refused.
    """

    type: Literal["rloo"] = "rloo"
    scale: Literal["none"] = "none"

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Advantages of all leaves. Raises ContractError as `GroupBaseline.compare`."""
        leaves = super().compare(table, levels)
        n = leaves.compared[table.leaf_group]
        return leaves._replace(advantage=leaves.advantage * n / np.maximum(n - 1, 1))
