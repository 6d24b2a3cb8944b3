"""The optimal token baseline: returns-to-go against those of the group at the same token."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.types import Float64
from agentrl.credit.groups import EQUAL, GroupBaseline, LeafAdvantages
from agentrl.credit.steps import Steps, add_copies, paid_before
from agentrl.credit.subtree import Levels, path_sums
from agentrl.credit.table import Bool, Credit, Int64, TurnTable


class OtbCredit(GroupBaseline):
    """The baseline of least variance at every token (OTB, arXiv:2602.07078).

    With G_it the rewards of trajectory i from its t-th action token on (a turn's at its last, what
    KL in the reward charges at each token's own), and w_it the squared norm of the gradient of that
    token's log-probability with respect to the logits:

        w_it = 1 - 2 pi(token) + sum over the vocabulary of pi^2
        W_it = w_i1 + ... + w_it
        b_t  = (sum over the group of W_it G_it) / (sum over the group of W_it)
        A_it = G_it - b_t

    The best baseline weighs returns by squared gradient norms (OPO has lengths in their place);
    W_it stands for the norm of the trajectory up to t. Observations are skipped: t counts action
    tokens, as in verl's multi-turn form. b_t has a part of the trajectory itself, which shrinks
    the gradient as a group's mean does. Where one trajectory alone is so long, A = 0, and with
    `singleton="raw"` A = G, as in released code. Filters see R less the mean of the group.

    The norms are exact: the learner evaluates all tokens twice before the update (at its
    temperature and at half of it, which gives sum pi^2 without another kernel), so an iteration
    costs two forward passes more. On a tree a shared token is a token of each of its trajectories.
    """

    type: Literal["otb"] = "otb"
    scale: Literal["none"] = "none"

    def __call__(
        self,
        table: TurnTable,
        row_weights: Float64,
        *,
        levels: Levels | None = None,
        leaves: LeafAdvantages | None = None,
    ) -> Credit:
        """Credit (N,) of all tokens. Raises ContractError where the table has no norms."""
        levels, steps = levels or Levels.of(table), Steps.of(table)
        leaves = leaves or self.compare(table, levels)
        counted = self.returns(table, levels).counted[steps.leaf]
        to_go = np.where(counted, steps.to_go(table.reward[steps.turn]), 0.0)
        baseline, members = self._baseline(table, levels, steps, to_go, counted)
        before = paid_before(table)

        sums = np.zeros((3, int(table.tokens.sum())))
        for step, token in steps.copies(table, leaves.trains):
            value, mean = to_go[step] - before[token], baseline[token]
            apart = value - mean
            apart[np.abs(apart) <= EQUAL * np.maximum(1.0, np.abs(mean))] = 0.0
            lone = members[token] < 2
            advantage = np.where(lone, value if self.singleton == "raw" else 0.0, apart)
            weight = row_weights[steps.leaf[step]]
            add_copies(sums, token, weight * advantage, weight)
        positive, negative, total = sums
        return Credit(positive, negative, total, unit="token")

    def _baseline(
        self, table: TurnTable, levels: Levels, steps: Steps, to_go: Float64, counted: Bool
    ) -> tuple[Float64, Float64]:
        """Of every token (N,): its baseline, and how many trajectories have one at its index."""
        turns, turn = len(table.tokens), np.repeat(np.arange(len(table.tokens)), table.tokens)
        place, places = _places(table, levels, turn)
        energy = _energy(table, levels, turn)
        copies, returns = (
            np.bincount(steps.turn, values, turns).astype(np.float64)[turn]
            for values in (counted, to_go)
        )
        returns = returns - copies * paid_before(table)

        def summed(values: Float64) -> Float64:
            return np.bincount(place, values, places).astype(np.float64)

        members, total = summed(copies), summed(energy * copies)
        # Where all tokens were certain, all weigh alike.
        plain = summed(returns) / np.maximum(members, 1.0)
        mean = np.divide(summed(energy * returns), total, out=plain, where=total > 0)
        return mean[place], members[place]


def _places(table: TurnTable, levels: Levels, turn: Int64) -> tuple[Int64, int]:
    """Which tokens (N,) are at one index of trajectories of one group, and how many such places."""
    count = path_sums(levels, table.tokens.astype(np.float64)).astype(np.int64)
    longest = np.zeros(table.n_groups, np.int64)
    np.maximum.at(longest, table.group, count)
    within = np.arange(len(turn)) - table.token_starts[turn]
    index = (count - table.tokens)[turn] + within
    return (np.cumsum(longest) - longest)[table.group[turn]] + index, int(longest.sum())


def _energy(table: TurnTable, levels: Levels, turn: Int64) -> Float64:
    """W (N,): the sum of the norms along the path up to each token, itself included."""
    if table.logit_norms is None:
        raise ContractError(
            "this credit weighs returns by gradient norms and the table has none "
            "(TurnTable.logit_norms): the trainer asks the learner for them before credit is "
            "assigned, and stored trees do not keep them"
        )
    norms = np.nan_to_num(table.logit_norms, nan=0.0)
    so_far = np.cumsum(norms)
    totals = np.bincount(turn, norms, len(table.tokens)).astype(np.float64)
    before = path_sums(levels, totals) - totals
    starts = np.concatenate([np.zeros(1), so_far])[table.token_starts[:-1]]
    energy: Float64 = np.maximum(so_far - starts[turn] + before[turn], 0.0)
    return energy
