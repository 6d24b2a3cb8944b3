"""Turn-level GRPO: rewards or returns-to-go of a group's turns against each other."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from agentrl.core.types import Float64
from agentrl.credit.groups import against_group
from agentrl.credit.steps import Steps, TurnLevel
from agentrl.credit.table import Bool, Int64, TurnTable


class TurnGrpoCredit(TurnLevel):
    """GRPO for rewards of single turns (DeepSeekMath, arXiv:2402.03300, section 4.1.3).

    With r_k the reward of a trajectory's turn k and G_k = r_k + gamma G_{k+1}, each comparison in
    float64 with ddof = 1:

        steps:          A_k = sum over j >= k of gamma^(j-k) (r_j - mean) / (std + 1e-6)
        turn:           A_k = (G_k - mean_k) / (std_k + 1e-6)
        leave_one_out:  A_k = G_k - mean of the G_k of the other turns at index k

    "steps" is process supervision as published (gamma = 1): mean and std are over the rewards of
    all turns of the group's trajectories together. There a turn more is worth -mean / std whatever
    it does, so where the number of turns varies the method is for or against long trajectories.
    "turn" compares trajectories at the same turn index, among those that reached it.

    "leave_one_out" needs `scale="none"`. Its baseline does not depend on the turn that it is taken
    from, nor on what that trajectory did, so the gradient is unbiased also where trajectories end
    at different turns; the figures are in docs/credit_bias.md. A turn that alone reached its index
    is worth 0, with `singleton="raw"` G_k, and only that is unbiased to the last. On a tree a
    shared turn is a step of each of its trajectories, and none of them is among the others of
    another.
    """

    type: Literal["turn_grpo"] = "turn_grpo"
    baseline: Literal["steps", "turn", "leave_one_out"] = "steps"
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _check(self) -> TurnGrpoCredit:
        if self.baseline == "leave_one_out" and self.scale != "none":
            raise ValueError(
                "dividing by a spread would make `baseline: leave_one_out` biased again; add "
                "`scale: none`"
            )
        return self

    def advantages(self, table: TurnTable, steps: Steps, counted: Bool) -> Float64:
        """A (S,) of all steps, over the steps of `counted` (L,) trajectories."""
        reward, among = table.reward[steps.turn], counted[steps.leaf]
        to_go = np.where(among, steps.to_go(reward, self.gamma), 0.0)
        if self.baseline == "steps":
            group = table.leaf_group[steps.leaf]
            found = against_group(reward, group, among, table.n_groups, scale=self.scale)
            advantage = steps.to_go(found.advantage, self.gamma)
            lone = np.bincount(table.leaf_group[counted], minlength=table.n_groups)[group] < 2
        else:
            place, places = steps.places(table)
            found = against_group(to_go, place, among, places, scale=self.scale)
            advantage, lone = found.advantage, found.size[place] < 2
            if self.baseline == "leave_one_out":
                others, mean = _of_other_turns(place, steps.turn, to_go, among)
                lone = others == 0
                advantage = np.where(lone | found.equal[place], 0.0, to_go - mean)
        return np.where(lone, to_go, advantage) if self.singleton == "raw" else advantage


def _of_other_turns(
    place: Int64, turn: Int64, value: Float64, among: Bool
) -> tuple[Float64, Float64]:
    """For each step (S,), how many at its index are of other turns, and their values' mean."""
    here, own = (np.bincount(key, among).astype(np.float64)[key] for key in (place, turn))
    total, sums = (np.bincount(key, value)[key] for key in (place, turn))
    others = here - own
    return others, (total - sums) / np.maximum(others, 1.0)
