"""GAE: a critic says what each token's state is worth, and credit is what came beyond that."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.types import Float64
from agentrl.credit.steps import sums_to_turn_end
from agentrl.credit.table import TurnTable
from agentrl.credit.values import (
    Recursion,
    ValueBaseline,
    from_turn_end,
    last_tokens,
    rewards_of_tokens,
)


class GaeCredit(ValueBaseline):
    """Generalized advantage estimation over action tokens (arXiv:1506.02438; PPO's credit).

        delta_t = r_t + gamma V_(t+1) - V_t        A_t = delta_t + gamma lam A_(t+1)

    t + 1 is the *next action token*: what the environment says in between is neither valued nor
    discounted, so the result is that on the sequence without it (verl does the same; OpenRLHF
    spends gamma lam on observation tokens, oat bootstraps from one: both differ as soon as
    gamma lam < 1). r_t is a turn's reward at its last token and 0 at the others, each less what KL
    in the reward charges there. After a terminated trajectory V = 0. Values learn R_t = A_t + V_t.

    `gamma` is 1 because the return that is evaluated is undiscounted. `lam` 0.95 is PPO's (and
    TRL's): credit reaches some 20 tokens back by itself and further through the critic; with 1
    (verl, oat) it is the return minus V, unbiased whatever the critic says, and noisier.
    """

    type: Literal["gae"] = "gae"
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    lam: float = Field(default=0.95, ge=0.0, le=1.0)

    def recursion(self, table: TurnTable, values: Float64) -> Recursion:
        """The deltas of each turn summed up to its end."""
        within, decay = token_terms(table, values, self.gamma, self.lam)
        every = np.ones(len(values), np.bool_)
        nothing = np.zeros(len(table.tokens))
        head = table.token_starts[:-1]
        return Recursion(within, decay, head, self.gamma, self.lam, every, nothing)


def token_terms(
    table: TurnTable, values: Float64, gamma: float, lam: float
) -> tuple[Float64, Float64]:
    """`Recursion.within` and `decay` (N,) of the token-level recursion inside of turns.

    The last token's delta leaves out what follows its turn: that is the recursion's X.
    """
    _, last = last_tokens(table)
    following = np.append(values[1:], 0.0)[: len(values)]
    following[last] = 0.0
    delta = gamma * following - values + rewards_of_tokens(table)
    decay = gamma * lam
    return sums_to_turn_end(table, delta, decay), decay ** from_turn_end(table).astype(np.float64)
