"""GRPO: a trajectory's return against the mean of its group, the same for all its turns."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.core.types import Float64
from agentrl.credit.groups import Grain, GroupBaseline, LeafAdvantages
from agentrl.credit.subtree import Levels, at_leaves, subtree_sums
from agentrl.credit.table import Credit, TurnTable


class SoftAttribution(GroupBaseline):
    """Gives a turn the advantages of all trajectories that share it, kept apart.

    It is exactly as if every trajectory were a row of its own with the shared turns copied into it.
    """

    @property
    def grain(self) -> Grain:
        """A trajectory has one advantage."""
        return "trajectory"

    def __call__(
        self,
        table: TurnTable,
        row_weights: Float64,
        *,
        levels: Levels | None = None,
        leaves: LeafAdvantages | None = None,
    ) -> Credit:
        """Credit of all turns; `row_weights` (L,) as from `aggregate.row_weights`.

        `levels` and `leaves` are the table's and `compare`'s, where they are known already.
        """
        levels = levels or Levels.of(table)
        leaves = leaves or self.compare(table, levels)
        return soft_credit(table, levels, leaves.advantage, leaves.trains * row_weights)


class GrpoCredit(SoftAttribution):
    """Group-relative advantages (DeepSeekMath, arXiv:2402.03300, eq. 4 with outcome rewards).

        A_i = (R_i - mean of the group) / (std of the group + 1e-6)

    The same for all turns of trajectory i. With `scale="none"` the difference alone (Dr. GRPO,
    arXiv:2503.20783, together with `learner.loss.aggregation: constant`).
    """

    type: Literal["grpo"] = "grpo"


def soft_credit(table: TurnTable, levels: Levels, advantage: Float64, weight: Float64) -> Credit:
    """Each turn's sums over its leaves of w * max(A, 0), w * min(A, 0) and w.

    `advantage` and `weight` are (L,); a weight of 0 is a leaf that does not train.
    """
    gain = weight * advantage
    positive, negative, total = (
        subtree_sums(levels, at_leaves(table, values))
        for values in (np.maximum(gain, 0.0), np.minimum(gain, 0.0), weight)
    )
    return Credit(positive=positive, negative=negative, weight=total)
