"""A penalty for leaving the reference that is part of the reward, and how much it weighs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field, model_validator

from agentrl.core.settings import Settings
from agentrl.core.types import Float64
from agentrl.credit.table import TurnTable
from agentrl.learner.kl_control import check_start


class KlInReward(Settings):
    """KL to the reference inside the reward (InstructGPT, arXiv:2203.02155, eq. 2; k1).

    Every action token costs beta * (log policy - log reference) before credit is assigned, so the
    penalty enters returns, baselines and advantages. k1 is the estimate that is right here: as a
    reward it has the gradient of KL(policy ‖ reference), as k3 and k2 would not (and as a term of
    the loss k1 would have none, which is why `learner.loss` does not know it).

    Each token is charged where it stands: methods that see tokens (`gae`, `bilevel_gae`, `otb`,
    `reinforce_pp`) count it in what comes from that token on, and not later in the turn. For those
    that compare whole trajectories it is part of the return, and for those that take a turn as one
    action, of the turn's reward. Filters judge by what was earned, without the penalty. "policy" is
    the one that sampled, by its own log-probabilities. The reference's cost a forward pass an
    iteration; with beta 0.0 there is none, nor a reference in memory.

    `target` None keeps `beta` fixed. With a target the controller of Ziegler et al.
    (arXiv:1909.08593, section 2.2) moves it after each iteration, with n trajectories of kl nats
    each on average (see `KlController`):

        beta <- beta * (1 + clip(kl / target - 1, -0.2, 0.2) * min(1, n / horizon))
    """

    beta: float = Field(default=0.01, ge=0.0)
    target: float | None = Field(default=None, gt=0.0)
    horizon: int = Field(default=10_000, ge=1)

    @model_validator(mode="after")
    def _check(self) -> KlInReward:
        check_start(self.beta, self.target, name="beta")
        return self


def k1_of_tokens(logprobs: Float64, reference: Float64) -> Float64:
    """Log policy - log reference of action tokens, all (N,).

    A token that is not known (NaN in either) counts 0: it is on no trajectory.
    """
    return np.nan_to_num(logprobs - reference, nan=0.0)


def charged(table: TurnTable, costs: Float64) -> TurnTable:
    """`table` with rewards less the `costs` (N,) of action tokens, each paid at its own token.

    What filters judge by stays what was earned.
    """
    turn = np.repeat(np.arange(len(table.tokens)), table.tokens)
    score = table.reward if table.score is None else table.score
    return replace(
        table,
        reward=table.reward - np.bincount(turn, costs, len(table.tokens)),
        token_rewards=-costs,
        score=score,
    )
