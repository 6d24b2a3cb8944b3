"""REINFORCE++: returns-to-go, whitened over the action tokens of the whole iteration."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.types import Float64
from agentrl.credit.groups import EQUAL
from agentrl.credit.steps import Steps, TurnLevel
from agentrl.credit.subtree import Levels
from agentrl.credit.table import Bool, TurnTable


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

    Differs from released code: equal values are exactly 0, and a KL term is no part of it (the
    rewards of the turns may have one).
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
        """A (S,) of all steps, over the tokens of `counted` (L,) trajectories."""
        reward = table.reward[steps.turn]
        if self.baseline == "group":
            mean, size = self._groups(table, counted)
            reward[: len(mean)] -= mean  # Last steps stand first, in the order of the leaves.
            counted = counted & (size >= (2 if self.needs_group else 1))
        to_go = steps.to_go(reward, self.gamma)
        return whitened(to_go, np.where(counted[steps.leaf], table.tokens[steps.turn], 0.0))

    def _groups(self, table: TurnTable, counted: Bool) -> tuple[Float64, Float64]:
        """The mean return (L,) of each leaf's group, 0 in groups of one, and the group's size."""
        value = np.where(counted, self.returns(table, Levels.of(table)).value, 0.0)
        size = np.bincount(table.leaf_group[counted], minlength=table.n_groups).astype(np.float64)
        mean = np.bincount(table.leaf_group, value, table.n_groups) / np.maximum(size, 1)
        return np.where(size > 1, mean, 0.0)[table.leaf_group], size[table.leaf_group]


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
