"""A policy that has just forgotten what it sampled, for as long as the rest is sampled (EEPO)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOST = 1.0 - 1.0e-6
"""Probabilities above this count as this: beyond it the loss has no finite gradient."""


def forget_terms(logprobs: Tensor) -> Tensor:
    """-log(1 - min(p, 1 - 1e-6)) (N,) of each sampled token: EEPO's complementary loss.

    Descending it lowers p, the most where p is large and hardly where it is small
    (arXiv:2510.05837; a step *up* this loss, as one finds it written, would raise p).
    """
    return -torch.log1p(-logprobs.exp().clamp(max=MOST))


class Forgotten:
    """Weights moved by one plain gradient step, without momentum or decay, and put back by `undo`.

    The optimizer and the gradients that it will see are not touched.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = [one for one in parameters if one.requires_grad]
        self._kept: list[Tensor] = []

    @property
    def active(self) -> bool:
        """True between `step` and `undo`."""
        return bool(self._kept)

    def gradient(self, loss: Tensor) -> list[Tensor]:
        """That of `loss` to each trained parameter, found without the hooks of an optimizer."""
        return list(torch.autograd.grad(loss, self._parameters, materialize_grads=True))

    def zeros(self) -> list[Tensor]:
        """A gradient to add to."""
        return [torch.zeros_like(one) for one in self._parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], *, rate: float) -> None:
        """Move the weights by -rate * gradient; what they were is kept."""
        self._kept = [one.detach().clone() for one in self._parameters]
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.sub_(gradient, alpha=rate)

    @torch.no_grad()
    def undo(self) -> None:
        """Bring every weight back, bit for bit."""
        for parameter, kept in zip(self._parameters, self._kept, strict=bool(self._kept)):
            parameter.copy_(kept)
        self._kept = []
