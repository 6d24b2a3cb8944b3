"""Bi-level GAE: over turns first, then inside each turn towards what the turn achieved."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.types import Float64
from agentrl.credit.gae import token_terms
from agentrl.credit.steps import paid_before
from agentrl.credit.table import TurnTable
from agentrl.credit.values import Recursion, ValueBaseline


class BilevelGaeCredit(ValueBaseline):
    """Bi-level GAE (RAGEN's code; VAGEN, arXiv:2510.16907), e_k the last token of turn k.

    Between turns, over the states before their last tokens:

        delta_k = r_k + gamma_turn V(e_(k+1)) - V(e_k)      A_k = delta_k + gamma_turn lam A_(k+1)

    Inside turn k the last token is paid G_k = A_k + V(e_k) and nothing follows it; the others have
    delta_t = gamma V_(t+1) - V_t and A_t = delta_t + gamma lam A_(t+1). The critic learns
    R_t = A_t + V_t at every token. With gamma_turn = gamma = lam = 1 it is `gae`.

    What KL in the reward charges at a token before the last is in its delta_t, and the turn before
    sees the sum of them beside V(e_(k+1)).

    RAGEN's code takes the tokens with a reward other than 0 for the ends of turns, so a turn that
    earns nothing melts into the next, and one without any reward at all fails. Here turns end where
    they end. gamma_turn 0.95 and lam 1 are its defaults.
    """

    type: Literal["bilevel_gae"] = "bilevel_gae"
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    gamma_turn: float = Field(default=0.95, ge=0.0, le=1.0)
    lam: float = Field(default=1.0, ge=0.0, le=1.0)

    def recursion(self, table: TurnTable, values: Float64) -> Recursion:
        """Token-level deltas inside of turns, joined at the turns' last tokens."""
        within, decay = token_terms(table, values, self.gamma, self.lam)
        last = np.maximum(table.token_starts[1:] - 1, 0)
        every = np.ones(len(values), np.bool_)
        before = np.zeros(len(table.tokens))
        some = table.tokens > 0
        before[some] = paid_before(table)[last[some]]
        return Recursion(within, decay, last, self.gamma_turn, self.lam, every, before)
