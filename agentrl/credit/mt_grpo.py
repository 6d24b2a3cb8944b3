"""MT-GRPO: the outcome against the group, and each turn's own reward against that turn's."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.types import Float64
from agentrl.credit.groups import against_group
from agentrl.credit.steps import Steps, TurnLevel
from agentrl.credit.table import Bool, TurnTable


class MtGrpoCredit(TurnLevel):
    """Outcome advantage plus turn advantages from a turn on (MT-GRPO, arXiv:2505.11821).

    The reward of a trajectory's last turn is its outcome O; the rewards T_k of the turns before it
    are turn rewards, and the last turn's T is 0. Each comparison has ddof = 1, in float64:

        A^O   = (O   - mean of the group)             / (std of the group   + 1e-6)
        A^T_k = (T_k - mean of the group's k-th turns) / (std of these       + 1e-6)
        A_k   = A^O + turn_weight * sum over j >= k of A^T_j

    With two turns that is the paper's form: A^O + lambda A^T before the tool's answer, A^O after
    it. The paper goes no further; the sum over later turns is ours, so that a turn has a part in
    the rewards that it made possible. At an index take part all trajectories that acted there;
    who acts for the last time has earned no turn reward, which is what makes a skipped tool call
    a loss.

    Differs from the released code: that gives a trajectory without any tool call the normalised
    sum of both rewards, and adds 1e-4 to the std. On a tree a shared turn is a step of each of its
    trajectories.
    """

    type: Literal["mt_grpo"] = "mt_grpo"
    turn_weight: float = Field(default=1.0, ge=0.0)

    def advantages(self, table: TurnTable, steps: Steps, counted: Bool) -> Float64:
        """A (S,) of all steps, over the steps of `counted` (L,) trajectories."""
        reward, last = table.reward[steps.turn], len(table.leaf_turn)
        outcome = against_group(
            reward[:last], table.leaf_group, counted, table.n_groups, scale=self.scale
        )
        # Last steps stand first, in the order of the leaves.
        turn_reward = np.where(np.arange(len(reward)) < last, 0.0, reward)
        place, places = steps.places(table)
        among = counted[steps.leaf]
        found = against_group(turn_reward, place, among, places, scale=self.scale)
        advantage = outcome.advantage[steps.leaf] + self.turn_weight * steps.to_go(found.advantage)
        if self.singleton == "raw":
            lone = outcome.size[table.leaf_group[steps.leaf]] < 2
            advantage = np.where(lone, steps.to_go(reward), advantage)
        return advantage
