"""GiGPO: a trajectory against its group, and each step against the others from the same state."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from agentrl.core.types import Float64
from agentrl.credit.anchors import similar_states
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
    by its number of steps), and no row is copied to fill a batch.

    `similarity` makes anchors of what turns saw instead of `state_key`, for environments whose
    states are never quite equal: the released code's greedy clusters at this ratio (0.9 there),
    which depend on the order of the trajectories (`similar_states`). The metric
    `credit/anchor_size` is the mean number of steps in an anchor group; near 1 the steps compare
    with nothing.
    """

    type: Literal["gigpo"] = "gigpo"
    gamma: float = Field(default=0.95, ge=0.0, le=1.0)
    omega: float = Field(default=1.0, ge=0.0)
    similarity: float | None = Field(default=None, gt=0.0, lt=1.0)

    @property
    def needs_tokens(self) -> bool:
        """Similarity is that of the observations' tokens."""
        return self.similarity is not None

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
        step_advantage, size = self._against_anchors(table, steps, counted)
        advantage = leaves.advantage[steps.leaf] + self.omega * step_advantage
        weight = (leaves.trains * row_weights)[steps.leaf]
        credit = steps.credit(table, advantage, weight)
        return replace(credit, metrics={"credit/anchor_size": size})

    def _against_anchors(self, table: TurnTable, steps: Steps, counted: Bool) -> _Anchored:
        """A_S (S,) of every step, 0 where its state is not known."""
        states = table.state
        if self.similarity is not None:
            states = similar_states(table, self.similarity)
        state = states[steps.turn]
        known = counted & (state >= 0)
        n_states = int(state.max(initial=-1)) + 1
        value = steps.to_go(table.reward[steps.turn], self.gamma)
        found = against_group(
            value, np.maximum(state, 0), known, max(n_states, 1), scale=self.scale
        )
        size = found.size[found.size > 0]
        mean = float(size.mean()) if len(size) else 0.0
        return _Anchored(np.where(known, found.advantage, 0.0), mean)


class _Anchored(NamedTuple):
    """Steps (S,) beside their anchor groups, and the mean size of those."""

    advantage: Float64
    size: float
