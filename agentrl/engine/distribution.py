"""The distribution that a token is sampled from, as vLLM defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

GREEDY_BELOW = 1e-5
"""A temperature below this is greedy (vLLM's bound)."""


def sampling_logprobs(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities (N, V) after temperature, then top-k, then top-p; -inf where removed.

    `logits` (N, V); `temperature`, `top_k` and `top_p` (N,), `top_k` 0 for no limit. Tokens that
    tie with the k-th stay. Top-p keeps the smallest set of most likely tokens that reaches it. A
    greedy row (temperature 0) is left at temperature 1 and unfiltered: its log-probability and
    entropy say how sure the policy was.
    """
    import torch

    greedy = temperature < GREEDY_BELOW
    scaled = logits.float() / torch.where(greedy, 1.0, temperature).unsqueeze(1)
    limited = (top_k > 0) & ~greedy
    if bool(limited.any()):
        k = torch.where(limited, top_k, scaled.shape[1]).clamp(max=scaled.shape[1])
        least = scaled.sort(dim=-1, descending=True).values.gather(1, k.unsqueeze(1) - 1)
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    narrowed = (top_p < 1.0) & ~greedy
    if bool(narrowed.any()):
        ordered, order = scaled.sort(dim=-1)  # least likely first
        below = ordered.softmax(dim=-1).cumsum(dim=-1)
        removed = below <= (1.0 - torch.where(narrowed, top_p, 2.0)).unsqueeze(1)
        removed[:, -1] = False
        removed = torch.zeros_like(removed).scatter(1, order, removed)
        scaled = scaled.masked_fill(removed, -torch.inf)
    return scaled.log_softmax(dim=-1)


def entropies(logprobs: torch.Tensor) -> torch.Tensor:
    """Entropy (N,) in nats of each row of normalised `logprobs` (N, V); exact."""
    import torch

    # A token of probability 0 adds 0; -inf * 0 would be nan.
    return -(logprobs.exp() * logprobs.clamp_min(torch.finfo(logprobs.dtype).min)).sum(dim=-1)


def draw(logprobs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The token (N,) whose stretch of the cumulative distribution holds `uniform` (N,) in [0, 1).

    In float64, so that the choice is a function of the number drawn and hardly of rounding.
    """
    import torch

    cumulative = logprobs.double().exp().cumsum(dim=-1)
    target = uniform.double().unsqueeze(1) * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    last = (logprobs > -torch.inf).int().cumsum(dim=-1).argmax(dim=-1)
    return torch.minimum(chosen, last)


def top_k_entropy(top: Mapping[str, float]) -> float:
    """Entropy in nats of the named tokens, and of all others taken as one; nan where none is.

    `top` has their log-probabilities; a lower bound of the entropy over the whole vocabulary.
    """
    values = np.asarray(list(top.values()), np.float64)
    if not values.size:
        return float("nan")
    weights = np.exp(values)
    rest = max(1.0 - float(weights.sum()), 0.0)
    return float(-(weights * values).sum() - (rest * np.log(rest) if rest > 0 else 0.0))
