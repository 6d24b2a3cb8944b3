"""A penalty for leaving the reference that is part of the reward, and how much it weighs."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from agentrl.core.settings import Settings
from agentrl.core.types import Float64
from agentrl.credit.table import TurnTable


class KlInReward(Settings):
    """KL to the reference inside the reward (InstructGPT, arXiv:2203.02155, eq. 2; k1).

    Every action token costs beta * (log policy - log reference) before credit is assigned, so the
    penalty enters returns, baselines and advantages. k1 is the estimate that is right here: as a
    reward it has the gradient of KL(policy ‖ reference), as k3 and k2 would not (and as a term of
    the loss k1 would have none, which is why `learner.loss` does not know it).

    A turn's tokens are charged together at its end. The undiscounted return of a trajectory is the
    same wherever they are charged, and returns-to-go take a turn as one action; a discount, or GAE
    with lam below 1, sees them from the turn's end. Filters judge by what was earned, without the
    penalty. "policy" is the one that sampled, by its own log-probabilities. The reference's cost a
    forward pass an iteration; with beta 0.0 there is none, nor a reference in memory.

    `target` None keeps `beta` fixed. With a target the controller of Ziegler et al.
    (arXiv:1909.08593, section 2.2) moves it after each iteration, see `adapted`.
    """

    beta: float = Field(default=0.01, ge=0.0)
    target: float | None = Field(default=None, gt=0.0)
    horizon: int = Field(default=10_000, ge=1)

    @model_validator(mode="after")
    def _check(self) -> KlInReward:
        if self.target is not None and self.beta == 0.0:
            raise ValueError(
                "a controller multiplies beta, so from 0 it never leaves 0; start above it, or "
                "leave `target` out"
            )
        return self

    def adapted(self, beta: float, kl: float, trajectories: int) -> float:
        """The next beta, after an iteration of so many trajectories with this mean KL of each.

            beta * (1 + clip(kl / target - 1, -0.2, 0.2) * min(1, trajectories / horizon))

        `kl` is the mean over trajectories of the sum over their tokens, in nats, as in the paper
        (OpenRLHF compares `target` with the mean over tokens). Unchanged without a target.
        """
        if self.target is None:
            return beta
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return beta * (1.0 + error * min(1.0, trajectories / self.horizon))


def k1_of_turns(table: TurnTable, logprobs: Float64, reference: Float64) -> Float64:
    """Sum (K,) over each turn's tokens of log policy - log reference, both (N,).

    A token that is not known (NaN in either) counts 0: it is on no trajectory.
    """
    k1 = np.nan_to_num(logprobs - reference, nan=0.0)
    turn = np.repeat(np.arange(len(table.tokens)), table.tokens)
    return np.bincount(turn, k1, len(table.tokens)).astype(np.float64)
