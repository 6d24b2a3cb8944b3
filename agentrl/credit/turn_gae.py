"""GAE over turns: one value and one advantage for each turn, whatever its length."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.types import Float64
from agentrl.credit.table import TurnTable
from agentrl.credit.values import Recursion, ValueBaseline, last_tokens


class TurnGaeCredit(ValueBaseline):
    """Turn-level GAE (Turn-PPO, arXiv:2512.17008; VAGEN, arXiv:2510.16907).

        delta_k = r_k + gamma V_(k+1) - V_k        A_k = delta_k + gamma lam A_(k+1)

    V_k is the value of the state before turn k's first token (Turn-PPO's; VAGEN's code reads the
    first or the last), and the critic learns R_k = A_k + V_k there alone. Every token of the turn
    has A_k: inside a turn nothing is discounted. Turns without tokens are no decisions and are
    passed over.

    With one token to a turn this is `gae`. Turn-PPO uses gamma 0.99 and lam 0.9; the defaults are
    those of `gae`, for the same reasons, and here lam 0.95 reaches back 20 turns.
    """

    type: Literal["turn_gae"] = "turn_gae"
    gamma: float = Field(default=1.0, ge=0.0, le=1.0)
    lam: float = Field(default=0.95, ge=0.0, le=1.0)

    def recursion(self, table: TurnTable, values: Float64) -> Recursion:
        """One delta for a turn, the same for all its tokens."""
        turns, _ = last_tokens(table)
        head = table.token_starts[:-1]
        supervised = np.zeros(len(values), np.bool_)
        supervised[head[turns]] = True
        within = np.repeat(table.reward[turns] - values[head[turns]], table.tokens[turns])
        whole, nothing = np.ones(len(values)), np.zeros(len(table.tokens))
        return Recursion(within, whole, head, self.gamma, self.lam, supervised, nothing)
