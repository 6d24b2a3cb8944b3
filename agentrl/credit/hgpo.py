"""HGPO: each step against the others from the same state that came to it the same way."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from agentrl.core.types import ROOT, Float64
from agentrl.credit.groups import against_group
from agentrl.credit.steps import Steps, TurnLevel
from agentrl.credit.table import Bool, Int64, TurnTable


class HgpoCredit(TurnLevel):
    """Step advantages in a hierarchy of anchor groups (HGPO, arXiv:2602.22817).

    With G the return to go (`gamma`) and, for k = 0 to `history`, the steps of a task that acted
    from the same state after the same k states (`Turn.state_key`) as a group of level k:

        a_k = (G - mean of the group) / (std of the group + 1e-6)      ddof = 0, as released
        A   = sum of (k + 1)^alpha a_k / sum of (k + 1)^alpha

    over the levels in which the step has a group of two or more; without any, A = 0. A step with
    fewer than k predecessors, or after a state that is not known, is in no group of level k. There
    is no episode term: on trajectories without a common state nothing but first steps is compared.
    With `history: 0` it is GiGPO's step advantage, but for ddof. On a tree a shared step is a step
    of each of its trajectories, as in GiGPO.

    The released code leaves levels with a_k = 0 out of both sums, so that A jumps where a_k passes
    through 0: `zeros: drop`. "count" is continuous in the returns.
    """

    type: Literal["hgpo"] = "hgpo"
    scale: Literal["std", "none"] = "std"
    singleton: Literal["zero", "error"] = "zero"
    gamma: float = Field(default=0.95, ge=0.0, le=1.0)
    history: int = Field(default=2, ge=0)
    alpha: float = Field(default=1.0, ge=0.0)
    zeros: Literal["count", "drop"] = "count"
    ddof: ClassVar[Literal[0, 1]] = 0

    def advantages(self, table: TurnTable, steps: Steps, counted: Bool) -> Float64:
        """A (S,) of all steps."""
        value = steps.to_go(table.reward[steps.turn], self.gamma)
        gain, total = np.zeros(len(value)), np.zeros(len(value))
        context = table.state
        for level in range(self.history + 1):
            if level:
                context = _longer(table, context)
            group = context[steps.turn]
            among = counted[steps.leaf] & (group >= 0)
            group = np.maximum(group, 0)
            size = int(group.max(initial=0)) + 1
            found = against_group(value, group, among, size, scale=self.scale, ddof=self.ddof)
            compared = among & (found.size[group] > 1)
            if self.zeros == "drop":
                compared &= found.advantage != 0.0
            weight = np.where(compared, float(level + 1) ** self.alpha, 0.0)
            gain += weight * found.advantage
            total += weight
        gain /= np.where(total > 0, total, 1.0)
        return gain


def _longer(table: TurnTable, context: Int64) -> Int64:
    """Contexts (K,) of one state more: equal for equal states after equal `context`s, or -1."""
    before = np.where(table.parent == ROOT, -1, context[table.parent])
    known = (before >= 0) & (table.state >= 0)
    pair = table.state * (int(context.max(initial=0)) + 1) + before
    longer = np.full(len(context), -1, np.int64)
    longer[known] = np.unique(pair[known], return_inverse=True)[1]
    return longer
