"""ARPO: group-relative advantages on trees, with soft or hard attribution to shared turns."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.core.types import Float64
from agentrl.credit.groups import Grain, GroupBaseline, LeafAdvantages
from agentrl.credit.grpo import soft_credit
from agentrl.credit.subtree import Levels, at_leaves, subtree_sums, trajectory_sums
from agentrl.credit.table import Credit, TurnTable


class ArpoCredit(GroupBaseline):
    """Advantages of ARPO (arXiv:2507.19849, section 3.2): a_i = (R_i - mean) / std of the group.

    Turns after the last branch carry a_i. For a turn that d trajectories share, with row weights
    w_i:

    - "soft" (the paper's default, and all that its code has) keeps the d advantages apart:
      positive = sum w_i max(a_i, 0), negative = sum w_i min(a_i, 0). It equals GRPO on rows in
      which every trajectory has its own copy of the shared turns.
    - "hard" gives the turn one advantage, the mean (1/d) sum a_i, with the weight sum w_i: what d
      copies of the turn get when each carries the mean.

    So with equal w_i (token mean, constant) positive + negative is the same number, sum w_i a_i,
    for both, and at an importance ratio of 1 their gradients are identical. They differ once the
    ratio is clipped (soft clips the gains and the losses of a shared turn apart, hard their
    balance), and under sequence means, where soft weighs a_i by its own trajectory's 1/length.
    The advantage is never divided by d without also counting d copies. Trajectories that do not
    train (`truncated`, a group of one, no action token) are in neither the sums nor d.
    """

    type: Literal["arpo"] = "arpo"
    attribution: Literal["soft", "hard"] = "soft"

    @property
    def grain(self) -> Grain:
        """A trajectory has one advantage, under "hard" a turn has."""
        return "trajectory" if self.attribution == "soft" else "turn"

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
        weight = leaves.trains * row_weights
        if self.attribution == "soft":
            return soft_credit(table, levels, leaves.advantage, weight)
        # Not by the weights: one that a correction made 0 changes nobody's advantage.
        acts = trajectory_sums(table, levels, table.tokens.astype(np.float64)) > 0
        trains = (leaves.trains & acts).astype(np.float64)
        copies, advantage, total = (
            subtree_sums(levels, at_leaves(table, values))
            for values in (trains, trains * leaves.advantage, weight)
        )
        gain = total * advantage / np.maximum(copies, 1.0)
        return Credit(positive=np.maximum(gain, 0.0), negative=np.minimum(gain, 0.0), weight=total)
