"""REINFORCE++: returns-to-go, whitened over the action tokens of the whole iteration."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.types import Float64
from agentrl.credit.groups import EQUAL, LeafAdvantages
from agentrl.credit.steps import Steps, TurnLevel, add_copies, paid_before
from agentrl.credit.subtree import Levels
from agentrl.credit.table import Bool, Credit, TurnTable
from agentrl.credit.values import Moments, moments


class ReinforcePPCredit(TurnLevel):
    """Whitened returns-to-go (REINFORCE++, arXiv:2501.03262).

    With r_k the reward of a trajectory's turn k, the same for all tokens of the turn:

        G_k = r_k + gamma G_{k+1}
        A_k = (G_k - mean) / sqrt(variance + 1e-8)

    Mean and variance (ddof = 1) are over all action tokens of the iteration, so long turns weigh
    more: that is the published form. `gamma` counts turns, and observations neither discount a
    return nor end it; at 1 this is the published recursion over tokens with the reward on a turn's
    last action token. There is no group in it, so groups of one are as good as any.

    `baseline="group"` is the paper's variant with a baseline: the mean return of the group is
    taken from a trajectory's last reward before all else, without a division; there a group of
    one says nothing (`singleton`). On a tree a shared turn's tokens count once for each of its
    trajectories.

    What `learner.kl_in_reward` charges at each token is in the returns from that token on, as
    published; then tokens of a turn differ, and G of one lacks what the turn was charged before it.
    Differs from released code: equal values are exactly 0.
    """

    type: Literal["reinforce_pp"] = "reinforce_pp"
    baseline: Literal["none", "group"] = "none"
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    scale: Literal["none"] = "none"

    @property
    def needs_group(self) -> bool:
        """Only with the baseline of the group."""
        return self.baseline == "group" and super().needs_group

    def advantages(self, table: TurnTable, steps: Steps, counted: Bool) -> Float64:
        """A (S,) of all steps' first tokens, over the tokens of `counted` (L,) trajectories."""
        to_go, counted = self._to_go(table, steps, counted)
        among = counted[steps.leaf]
        if table.token_rewards is None:
            return whitened(to_go, np.where(among, table.tokens[steps.turn], 0.0))
        center, scale = _over_tokens(table, steps, to_go, counted)
        return np.where(among, (to_go - center) * scale, 0.0)

    def __call__(
        self,
        table: TurnTable,
        row_weights: Float64,
        *,
        levels: Levels | None = None,
        leaves: LeafAdvantages | None = None,
    ) -> Credit:
        """Credit of all turns; of all tokens where some are paid by themselves."""
        if table.token_rewards is None:
            return super().__call__(table, row_weights, levels=levels, leaves=leaves)
        levels, steps = levels or Levels.of(table), Steps.of(table)
        trains = (leaves or self.compare(table, levels)).trains
        to_go, counted = self._to_go(table, steps, self.returns(table, levels).counted)
        center, scale = _over_tokens(table, steps, to_go, counted)
        before = paid_before(table)
        sums = np.zeros((3, len(before)))
        for step, token in steps.copies(table, trains):
            leaf = steps.leaf[step]
            advantage = (to_go[step] - before[token] - center) * scale
            weight = row_weights[leaf]
            add_copies(sums, token, np.where(counted[leaf], weight * advantage, 0.0), weight)
        positive, negative, total = sums
        return Credit(positive, negative, total, unit="token")

    def _to_go(self, table: TurnTable, steps: Steps, counted: Bool) -> tuple[Float64, Bool]:
        """G (S,) of all steps, and which trajectories (L,) are in the statistics."""
        reward = table.reward[steps.turn]
        if self.baseline == "group":
            mean, size = self._groups(table, counted)
            reward[: len(mean)] -= mean  # Last steps stand first, in the order of the leaves.
            counted = counted & (size >= (2 if self.needs_group else 1))
        return steps.to_go(reward, self.gamma), counted

    def _groups(self, table: TurnTable, counted: Bool) -> tuple[Float64, Float64]:
        """The mean return (L,) of each leaf's group, 0 in groups of one, and the group's size."""
        value = np.where(counted, self.returns(table, Levels.of(table)).value, 0.0)
        size = np.bincount(table.leaf_group[counted], minlength=table.n_groups).astype(np.float64)
        mean = np.bincount(table.leaf_group, value, table.n_groups) / np.maximum(size, 1)
        return np.where(size > 1, mean, 0.0)[table.leaf_group], size[table.leaf_group]


def _over_tokens(table: TurnTable, steps: Steps, to_go: Float64, counted: Bool) -> Moments:
    """Those of the returns from all tokens of the `counted` (L,) trajectories on."""
    before = paid_before(table)
    return moments(to_go[step] - before[token] for step, token in steps.copies(table, counted))


def whitened(values: Float64, weight: Float64) -> Float64:
    """(value - mean) / sqrt(variance + 1e-8), each value counted `weight` times, ddof = 1.

    Exactly 0 where all counted values are equal but for rounding, and where one is counted.
    """
    counted = weight > 0
    total = float(weight.sum())
    if total <= 1.0:
        return np.zeros(len(values))
    among = values[counted]
    mean = float(weight[counted] @ among) / total
    if among.max() - among.min() <= EQUAL * max(1.0, abs(mean)):
        return np.zeros(len(values))
    variance = float(weight[counted] @ (among - mean) ** 2) / (total - 1.0)
    return np.where(counted, (values - mean) / np.sqrt(variance + 1e-8), 0.0)
