"""The loss of each trained token and the sums behind its metrics: pure functions of tensors.

N is the number of trained tokens. Everything is computed in the dtype of the log-probabilities,
float32 or wider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from agentrl.learner.kernels import LOG_RATIO_BOUND, TrainedTokens, importance_ratio, kernel

if TYPE_CHECKING:
    from agentrl.learner.loss_settings import LossSettings

Objective: TypeAlias = Literal["policy", "nll"]

SUMS = (
    "tokens",
    "loss",
    "nll",
    "entropy",
    "importance_ratio",
    "behavior_kl",
    "behavior_difference",
    "clipped_low",
    "clipped_high",
    "clipped_dual",
    "reference_kl",
)
"""What `token_sums` adds up over tokens, in order; exact over micro-batches and ranks."""


def policy_terms(
    logprobs: Tensor, entropies: Tensor, tokens: TrainedTokens, settings: LossSettings
) -> Tensor:
    """Loss (N,) of each token, before the division by the batch's denominator.

    The kernel's terms (`agentrl.learner.kernels`), which are the sums over the token's
    trajectories of its element; then + kl·w·KL estimate (`kl_terms`) - entropy·w·H, where w is the
    token's weight. For a loss of two passes the token's credit is its gradient already (see
    `agentrl.learner.levels`): -(A⁺ + A⁻)·(log p - sg(log p)), whose value is 0.
    """
    if settings.two_pass:
        loss = -(tokens.positive + tokens.negative) * (logprobs - logprobs.detach())
    else:
        loss = kernel(settings, logprobs, tokens).terms
    if settings.kl:
        if tokens.reference is None:
            raise ValueError("a KL term needs the reference's log-probabilities, got None")
        estimate = kl_terms(logprobs, tokens.reference, settings.kl_estimator)
        loss = loss + settings.kl * tokens.weight * estimate
    if settings.entropy:
        loss = loss - settings.entropy * tokens.weight * entropies
    return loss


def kl_terms(logprobs: Tensor, reference: Tensor, estimator: Literal["k2", "k3", "k3+"]) -> Tensor:
    """Estimate (N,) of KL(policy ‖ reference) at sampled tokens (Schulman, 2020).

    With d = policy - reference: k2 = d²/2; k3 = exp(-d) - 1 + d; k3+ has the value of k3 and the
    gradient of k2, which is that of the KL itself. d is clamped to ± `LOG_RATIO_BOUND`.
    """
    d = (logprobs - reference).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    k2 = d.square() / 2
    if estimator == "k2":
        return k2
    k3 = (-d).expm1() + d
    return k3 if estimator == "k3" else k2 - k2.detach() + k3.detach()


def nll_terms(logprobs: Tensor, tokens: TrainedTokens) -> Tensor:
    """Imitation: -w·log-probability (N,), before the division by the batch's denominator."""
    return -tokens.weight * logprobs


@torch.no_grad()
def token_sums(
    logprobs: Tensor,
    entropies: Tensor,
    tokens: TrainedTokens,
    settings: LossSettings,
    *,
    objective: Objective,
) -> Tensor:
    """`SUMS` over the tokens (len(SUMS),), float64.

    `behavior_kl` is k3 of KL(behaviour ‖ policy), exp(x) - 1 - x with x the log-ratio.
    `behavior_difference` is |x|. A token counts as clipped where that bound stops or caps its
    gradient.
    """
    count = torch.full((), float(len(logprobs)))
    zero = torch.zeros(())
    if objective == "nll":
        loss = nll_terms(logprobs, tokens)
        columns = [count, loss, -logprobs, entropies] + [zero] * 7
    else:
        loss = policy_terms(logprobs, entropies, tokens, settings)
        ratio = importance_ratio(logprobs, tokens.behavior)
        log_ratio = (logprobs - tokens.behavior).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
        clipped = (zero,) * 3 if settings.two_pass else kernel(settings, logprobs, tokens).clipped
        columns = [
            count,
            loss,
            -logprobs,
            entropies,
            ratio,
            log_ratio.expm1() - log_ratio,
            log_ratio.abs(),
            *clipped,
            zero if tokens.reference is None else kl_terms(logprobs, tokens.reference, "k3"),
        ]
    return torch.stack([column.to(logprobs.device, torch.float64).sum() for column in columns])


def metrics(
    sums: Mapping[str, float],
    denominator: float,
    *,
    objective: Objective,
    with_reference: bool = False,
    clips: Sequence[str] = ("low", "high", "dual"),
) -> dict[str, float]:
    """Means over the global batch's trained tokens, under the names that a run logs.

    `train/loss` is divided by `denominator`, as the loss itself. Without a trained token only
    `train/loss` and `train/tokens` are given, both 0.0; without a reference, no KL to it. `clips`
    are the sides on which the loss clips (`LossSettings.clips`).
    """
    result = {"train/loss": sums["loss"] / denominator, "train/tokens": sums["tokens"]}
    if not sums["tokens"]:
        return result
    mean = {name: sums[name] / sums["tokens"] for name in SUMS}
    result |= {"train/nll": mean["nll"], "train/entropy": mean["entropy"]}
    if objective == "policy":
        result |= {
            "train/importance_ratio": mean["importance_ratio"],
            "train/behavior_kl": mean["behavior_kl"],
            "train/behavior_difference": mean["behavior_difference"],
        } | {f"train/clip_fraction_{side}": mean[f"clipped_{side}"] for side in clips}
        if with_reference:
            result["train/reference_kl"] = mean["reference_kl"]
    return result
