"""Kernels of the policy loss: a token's element for all of its trajectories at once, in torch.

A kernel's element depends on a trajectory only through its row weight w and the size and the sign
of its advantage A, so the sum over the trajectories through a token is a function of three numbers:
A⁺, the sum of w·max(A, 0), A⁻, the sum of w·min(A, 0), and the sum of w.
"""

from __future__ import annotations

from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor

from agentrl.learner.loss_settings import (
    CispoLoss,
    DppoLoss,
    LossSettings,
    PpoLoss,
    QuadraticLoss,
    ReinforceLoss,
    SapoLoss,
)

LOG_RATIO_BOUND = 20.0
"""Token log-ratios are clamped to ± this before exp; beyond it the gradient is zero."""
DPPO_CAP = 20.0
"""Largest weight of a token in DPPO (arXiv:2602.04879)."""


class TrainedTokens(NamedTuple):
    """The trained tokens' columns (N,) of a row: credit, weight and log-probabilities.

    `reference` is the reference's log-probability, None where no KL term asks for it.
    """

    positive: Tensor
    negative: Tensor
    weight: Tensor
    behavior: Tensor
    reference: Tensor | None = None

    def part(self, span: slice) -> TrainedTokens:
        """The tokens of `span`."""
        return TrainedTokens(*(None if column is None else column[span] for column in self))  # type: ignore[arg-type]


class Elements(NamedTuple):
    """Each token's loss (N,), and where it is clipped `low`, `high` and by the dual clip (N,)."""

    terms: Tensor
    clipped: tuple[Tensor, Tensor, Tensor]


def importance_ratio(logprobs: Tensor, behavior: Tensor) -> Tensor:
    """exp(policy - behaviour) (N,), the log clamped to ± `LOG_RATIO_BOUND`."""
    return (logprobs - behavior).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()


@singledispatch
def kernel(settings: LossSettings, logprobs: Tensor, tokens: TrainedTokens) -> Elements:
    """The kernel that `settings` names; its class has the formula."""
    raise NotImplementedError(f"no kernel is known for {type(settings).__name__}")


@kernel.register
def _ppo(settings: PpoLoss, logprobs: Tensor, tokens: TrainedTokens) -> Elements:
    ratio = importance_ratio(logprobs, tokens.behavior)
    low, high = 1.0 - settings.clip_low, 1.0 + settings.clip_high
    downward = ratio.clamp(min=low, max=settings.dual_clip)
    upward = ratio.clamp(max=high)
    if settings.entropy_balanced:
        upward = torch.where(ratio > high, high * ratio / ratio.detach(), ratio)
    falls = tokens.negative < 0
    clipped = (
        falls & (ratio < low),
        (tokens.positive > 0) & (ratio > high),
        falls & (ratio > (settings.dual_clip or float("inf"))),
    )
    return Elements(-(tokens.positive * upward + tokens.negative * downward), clipped)


@kernel.register
def _cispo(settings: CispoLoss, logprobs: Tensor, tokens: TrainedTokens) -> Elements:
    ratio = importance_ratio(logprobs, tokens.behavior).detach()
    low, high = 1.0 - settings.clip_low, 1.0 + settings.clip_high
    gain = tokens.positive + tokens.negative
    clipped = (ratio < low, ratio > high, torch.zeros_like(ratio))
    return Elements(-ratio.clamp(low, high) * gain * logprobs, clipped)


@kernel.register
def _sapo(settings: SapoLoss, logprobs: Tensor, tokens: TrainedTokens) -> Elements:
    beyond = importance_ratio(logprobs, tokens.behavior) - 1.0

    def gate(tau: float) -> Tensor:
        return torch.sigmoid(tau * beyond) * (4.0 / tau)

    terms = -(
        tokens.positive * gate(settings.tau_positive)
        + tokens.negative * gate(settings.tau_negative)
    )
    return Elements(terms, _nowhere(terms))


@kernel.register
def _dppo(settings: DppoLoss, logprobs: Tensor, tokens: TrainedTokens) -> Elements:
    weight = importance_ratio(logprobs, tokens.behavior).detach().clamp(max=DPPO_CAP)
    moved = _divergence(logprobs.detach(), tokens.behavior, settings)
    floor, ceiling = settings.bounds
    low, high = moved < -floor, moved > ceiling
    gain = torch.where(high, 0.0, tokens.positive) + torch.where(low, 0.0, tokens.negative)
    clipped = ((tokens.negative < 0) & low, (tokens.positive > 0) & high, torch.zeros_like(weight))
    return Elements(-weight * gain * logprobs, clipped)


def _divergence(logprobs: Tensor, behavior: Tensor, settings: DppoLoss) -> Tensor:
    """How far a token's probability has moved (N,), below 0 where it fell."""
    p, q = logprobs.exp(), behavior.exp()
    if settings.divergence == "tv":
        return p - q
    # A probability of 1 is kept off the logarithm of 0; the term is then next to nothing.
    rest, above = (
        (-one.expm1()).clamp_min(torch.finfo(p.dtype).tiny) for one in (logprobs, behavior)
    )
    apart = q * (behavior - logprobs) + above * (above.log() - rest.log())
    return torch.where(p < q, -apart, apart)


@kernel.register
def _quadratic(settings: QuadraticLoss, logprobs: Tensor, tokens: TrainedTokens) -> Elements:
    apart = (logprobs - tokens.behavior).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    gain = tokens.positive + tokens.negative
    terms = tokens.weight * (settings.beta / 2) * apart.square() - gain * logprobs
    return Elements(terms, _nowhere(terms))


@kernel.register
def _reinforce(settings: ReinforceLoss, logprobs: Tensor, tokens: TrainedTokens) -> Elements:
    terms = -(tokens.positive + tokens.negative) * logprobs
    return Elements(terms, _nowhere(terms))


def _nowhere(terms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    nowhere = torch.zeros_like(terms, dtype=torch.bool)
    return nowhere, nowhere, nowhere
