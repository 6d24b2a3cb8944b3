"""REINFORCE: a trajectory's own return, against nothing."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.grpo import SoftAttribution
from agentrl.credit.subtree import Levels
from agentrl.credit.table import TurnTable


class ReinforceCredit(SoftAttribution):
    """The return as the advantage (Williams, 1992), or 1: what filters leave is imitated.

        return:  A_i = R_i - baseline
        one:     A_i = 1

    With a filter this is three methods of the field. RAFT (arXiv:2304.06767) is `worth="one"`
    with the filter `best`: of each group the best trajectories, where they succeeded. RAFT++
    (arXiv:2504.11343) is the same with a clipped ratio and more than one update. Reinforce-Rej
    (the same paper) is `worth="return"` with the filter `not_constant`; its rewards are +1 and -1,
    so where wrong is 0, `baseline=0.5` makes wrong answers count against themselves.

    `baseline` is a constant and not a statistic, so the gradient is unbiased with any. What a
    filter takes out is in no denominator (the released code of Reinforce-Rej leaves it there,
    which makes steps smaller).
    """

    type: Literal["reinforce"] = "reinforce"
    worth: Literal["return", "one"] = "return"
    baseline: float = 0.0
    scale: Literal["none"] = "none"
    singleton: Literal["raw"] = "raw"

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Advantages of all leaves; a group of one is as good as any."""
        levels = levels or Levels.of(table)
        leaves = super().compare(table, levels)
        value = self.returns(table, levels).value - self.baseline
        if self.worth == "one":
            value = np.ones(len(value))
        return leaves._replace(advantage=np.where(leaves.trains, value, 0.0))
