"""GiGPO: a trajectory against its group, and each step against the others from the same state."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.types import Float64
from agentrl.credit.groups import GroupBaseline, LeafAdvantages, against_group
from agentrl.credit.steps import Steps
from agentrl.credit.subtree import Levels
from agentrl.credit.table import Bool, Credit, TurnTable


class GigpoCredit(GroupBaseline):
    """Episode advantages plus step advantages in anchor groups (GiGPO, arXiv:2505.10978).

    With r_k the reward of a trajectory's step k and R its return, each comparison in float64:

        G_k = r_k + gamma G_{k+1}
        A_E = (R   - mean of the group)        / (std of the group + 1e-6)
        A_S = (G_k - mean of its anchor group) / (std of its anchor group + 1e-6)
        A   = A_E + omega A_S

    An anchor group are the steps of one task that acted from the same state (`Turn.state_key`),
    repeats within a trajectory included; alone in it, or from a state that is not known, a step has
    A_S = 0, and without any repeated state this is GRPO. `scale="none"` is the paper's other
    normalisation. On a tree a shared step is a step of each trajectory that passes through it, as
    if every trajectory had its own copy, and its advantages are kept apart.

    Differs from the released code: A_E is over trajectories, as in the paper (the code weighs each
    by its number of steps), and no row is copied to fill a batch. Anchors by similarity of texts
    are not there.
    """

    type: Literal["gigpo"] = "gigpo"
    gamma: float = Field(default=0.95, ge=0.0, le=1.0)
    omega: float = Field(default=1.0, ge=0.0)

    def __call__(
        self,
        table: TurnTable,
        row_weights: Float64,
        *,
        levels: Levels | None = None,
        leaves: LeafAdvantages | None = None,
    ) -> Credit:
        """Credit of all turns; `row_weights` (L,) as from `aggregate.row_weights`."""
        levels = levels or Levels.of(table)
        leaves, steps = leaves or self.compare(table, levels), Steps.of(table)
        counted = self.returns(table, levels).counted[steps.leaf]
        step_advantage = self._against_anchors(table, steps, counted)
        advantage = leaves.advantage[steps.leaf] + self.omega * step_advantage
        weight = (leaves.trains * row_weights)[steps.leaf]
        return steps.credit(table, advantage, weight)

    def _against_anchors(self, table: TurnTable, steps: Steps, counted: Bool) -> Float64:
        """A_S of every step, 0 where its state is not known."""
        state = table.state[steps.turn]
        known = counted & (state >= 0)
        n_states = int(state.max(initial=-1)) + 1
        value = steps.to_go(table.reward[steps.turn], self.gamma)
        found = against_group(
            value, np.maximum(state, 0), known, max(n_states, 1), scale=self.scale
        )
        return np.where(known, found.advantage, 0.0)
