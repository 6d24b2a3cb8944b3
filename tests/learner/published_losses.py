"""The losses as their papers write them: one row a trajectory, plain autograd, nothing shared.

`frozen` are the log-probabilities that stand under a stop-gradient: their own values for autograd,
held fixed for finite differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from agentrl.core.types import ROOT
from agentrl.credit.table import TurnTable
from agentrl.learner.loss_settings import LossSettings


class FlatRow(NamedTuple):
    """A trajectory: its action tokens among all (T,), their turns (T,), advantages (T,), weight.

    `factors` (T,) multiply the tokens' elements besides.
    """

    tokens: Tensor
    turns: Tensor
    advantage: Tensor
    weight: float
    group: int
    factors: Tensor | float = 1.0


def flat_rows(table: TurnTable, advantage, weights) -> list[FlatRow]:
    """Every trajectory of `table`, `advantage` (L,) or (L, K) of leaves' turns."""
    starts, rows = table.token_starts, []
    for leaf, turn in enumerate(table.leaf_turn):
        path = [int(turn)]
        while table.parent[path[-1]] != ROOT:
            path.append(int(table.parent[path[-1]]))
        path.reverse()
        tokens = [t for k in path for t in range(starts[k], starts[k + 1])]
        turns = [k for k in path for _ in range(starts[k], starts[k + 1])]
        each = advantage[leaf] if advantage.ndim == 2 else [advantage[leaf]] * len(table.parent)
        rows.append(
            FlatRow(
                torch.tensor(tokens, dtype=torch.long),
                torch.tensor(turns, dtype=torch.long),
                torch.tensor([each[k] for k in turns], dtype=torch.float64),
                float(weights[leaf]),
                int(table.leaf_group[leaf]),
            )
        )
    return rows


def published_loss(
    settings: LossSettings,
    rows: Sequence[FlatRow],
    logprobs: Tensor,
    behavior: Tensor,
    *,
    denominator: float = 1.0,
    frozen: Tensor | None = None,
) -> Tensor:
    """The policy term over `rows`, whose tokens index `logprobs` and `behavior` (N,)."""
    frozen = logprobs.detach() if frozen is None else frozen
    if settings.type == "gvpo":
        return _gvpo(settings, rows, logprobs, behavior)
    total = logprobs.sum() * 0.0
    for row in rows:
        if row.weight and len(row.tokens):
            at = row.tokens
            each = elements(
                settings, logprobs[at], behavior[at], row.advantage, row.turns, frozen[at]
            )
            total = total + row.weight * (row.factors * each).sum()
    return total / denominator


def elements(
    s: LossSettings, logp: Tensor, old: Tensor, a: Tensor, turns: Tensor, frozen: Tensor
) -> Tensor:
    """Loss (T,) of a row's tokens."""
    log_ratio, still = logp - old, frozen - old
    own = torch.exp(logp - frozen)  # of value 1, with the gradient of the token's log-probability
    if s.type == "reinforce":
        return -a * logp
    if s.type == "quadratic":
        return -(a * logp - s.beta / 2 * log_ratio**2)
    if s.type == "cispo":
        return -torch.clamp(still.exp(), 1 - s.clip_low, 1 + s.clip_high) * a * logp
    if s.type == "sapo":
        tau = _by_sign(a, s.tau_positive, s.tau_negative)
        return -(4 / tau) * torch.sigmoid(tau * (log_ratio.exp() - 1)) * a
    if s.type == "dppo":
        p, q = frozen.exp(), old.exp()
        low, high = s.bounds
        if s.divergence == "tv":
            keep = torch.where(a > 0, p - q <= high, p - q >= -low)
        else:
            kl = q * torch.log(q / p) + (1 - q) * torch.log((1 - q) / (1 - p))
            away = torch.where(a > 0, p > q, p < q)
            keep = ~(away & (kl > _by_sign(a, high, low)))
        return -torch.clamp(still.exp(), max=20.0) * a * logp * keep
    if s.type == "vespo":
        product = still.sum().exp()
        k, b = _by_sign(a, 2.0, 3.0), _by_sign(a, 3.0, 2.0)
        return -torch.exp(b + k * torch.log(product) - b * product) * a * logp
    if s.type == "logclip":
        sign = torch.sign(a)
        clipped = sign * torch.minimum(
            sign * log_ratio, sign * log_ratio.clamp(-s.clip_low, s.clip_high)
        )
        return -a * clipped.mean().exp()
    assert s.type == "ppo"
    if s.level == "token":
        ratio, fixed = log_ratio.exp(), still.exp()
    elif s.level == "turn":
        fixed = torch.stack([still[turns == k].mean() for k in turns]).exp()
        ratio = fixed * own
    elif s.level == "sequence":
        ratio, fixed = (one.mean().exp().expand(len(logp)) for one in (log_ratio, still))
    else:
        fixed = still.mean().exp().expand(len(logp))
        ratio = fixed * own
    return _clipped(s, ratio, fixed, a)


def _by_sign(a: Tensor, gain: float, loss: float) -> Tensor:
    return torch.where(a > 0, torch.full_like(a, gain), torch.full_like(a, loss))


def _clipped(s: LossSettings, ratio: Tensor, fixed: Tensor, a: Tensor) -> Tensor:
    low, high = 1 - s.clip_low, 1 + s.clip_high
    bounded = torch.clamp(ratio, low, high)
    loss = torch.maximum(-ratio * a, -bounded * a)
    if s.entropy_balanced:
        loss = torch.where((a > 0) & (fixed > high), -high / fixed * ratio * a, loss)
    if s.dual_clip is not None:
        loss = torch.where(a < 0, torch.minimum(loss, -s.dual_clip * a), loss)
    return loss


def _gvpo(s: LossSettings, rows: Sequence[FlatRow], logprobs: Tensor, behavior: Tensor) -> Tensor:
    """The paper's form, with the mean under a stop-gradient as in its released code."""
    losses = []
    for group in sorted({row.group for row in rows}):
        members = [row for row in rows if row.group == group and row.weight and len(row.tokens)]
        if len(members) < 2:
            continue
        scores = torch.stack(
            [s.beta * (logprobs[r.tokens] - behavior[r.tokens]).sum() for r in members]
        )
        returns = torch.stack([r.advantage[0] for r in members])
        apart = (scores - scores.detach().mean()) - (returns - returns.mean())
        losses.append(0.5 * (apart**2).sum() / (len(members) - 1))
    return sum(losses) / len(losses) if losses else logprobs.sum() * 0.0
