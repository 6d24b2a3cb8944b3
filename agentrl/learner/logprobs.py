"""Log-probabilities of given tokens from hidden states, without the logits of all tokens at once.

N tokens, D hidden width, V vocabulary. Logits exist for one chunk of tokens at a time, in float32
(float64 for float64 inputs); softmax, entropy and gradient are computed in place, block by block
while the block is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

Terms: TypeAlias = Callable[[slice, Tensor, Tensor], Tensor]
"""(which tokens, their log-probabilities, their entropies) -> their losses, all (n,)."""

CHUNK_ELEMENTS = 2**25
"""Logits in memory at a time: 128 MiB of float32."""
CPU_BLOCK_ELEMENTS = 2**19
"""Logits worked on at a time on a CPU: few enough to stay in its cache."""


class ChunkedLoss(NamedTuple):
    """The loss (a scalar with a gradient) and the tokens' log-probabilities and entropies (N,).

    The latter two are in nats, under the softmax of logits / temperature, without a gradient.
    `values` (N,) are those of a critic on the same hidden states, where there is one.
    """

    loss: Tensor
    logprobs: Tensor
    entropies: Tensor
    values: Tensor | None = None


def chunked_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (N,) of `targets` (N,) after `hidden` (N, D), no gradient.

    `weight` (V, D) is the output projection: logits = hidden · weightᵀ / temperature.
    """
    with torch.no_grad():
        work = _Chunks(hidden, weight, targets, temperature)
        for span, logits in work.chunks():
            for block, part in work.blocks(span, logits):
                work.softmax(block, part)
    return work.logprobs, work.entropies


def chunked_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    terms: Terms,
    *,
    temperature: float = 1.0,
    scale: float = 1.0,
    entropy_gradient: bool = False,
) -> ChunkedLoss:
    """The sum of scale · `terms` over the tokens, whose gradient is found on the way forward.

    `terms` must treat tokens separately: it is called on a few at a time, with a gradient to
    their log-probabilities (and entropies, with `entropy_gradient`). So the logits are computed
    once, three matrix products in all, and the memory does not grow with N (beyond N·D). The
    gradient can be taken once.
    """
    loss, logprobs, entropies = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]
        hidden,
        weight,
        targets,
        terms,
        temperature,
        scale,
        entropy_gradient,
        torch.is_grad_enabled(),
    )
    return ChunkedLoss(loss, logprobs, entropies)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        terms: Terms,
        temperature: float,
        scale: float,
        entropy_gradient: bool,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        work = _Chunks(hidden, weight, targets, temperature)
        to_hidden, to_weight = (grad_enabled and needs for needs in ctx.needs_input_grad[:2])  # type: ignore[attr-defined]
        grad_hidden = torch.empty_like(hidden) if to_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=work.dtype) if to_weight else None
        loss = torch.zeros((), dtype=work.dtype, device=hidden.device)
        for span, logits in work.chunks():
            for block, part in work.blocks(span, logits):
                softmax = work.softmax(block, part)
                value, to_logprobs, to_entropies = _evaluate(
                    lambda *token: scale * terms(*token).sum(),
                    block,
                    work.logprobs[block],
                    work.entropies[block],
                    entropy_gradient,
                )
                loss += value
                if to_hidden or to_weight:
                    work.logit_gradient(block, part, softmax, to_logprobs, to_entropies)
            if grad_hidden is not None:
                grad_hidden[span] = work.hidden_gradient(logits)
            if grad_weight is not None:
                work.add_weight_gradient(grad_weight, span, logits)
        ctx.gradients = (  # type: ignore[attr-defined]
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
        )
        ctx.mark_non_differentiable(work.logprobs, work.entropies)
        return loss, work.logprobs, work.entropies

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, upstream: Tensor, _logprobs: Tensor, _entropies: Tensor
    ) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients  # type: ignore[attr-defined]
        if gradients is None:
            raise RuntimeError("the gradient of a chunked loss can be taken once")
        # In place: a second copy of the projection's gradient would double the peak.
        ctx.gradients = None  # type: ignore[attr-defined]
        scaled = [None if g is None else g.mul_(upstream.to(g.dtype)) for g in gradients]
        return (*scaled, None, None, None, None, None, None)


def _evaluate(
    loss: Callable[[slice, Tensor, Tensor], Tensor],
    block: slice,
    logprobs: Tensor,
    entropies: Tensor,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The loss of a block and its gradient to the log-probabilities and the entropies (n,)."""
    with torch.enable_grad():
        logprobs = logprobs.detach().requires_grad_()
        entropies = entropies.detach().requires_grad_(entropy_gradient)
        value = loss(block, logprobs, entropies)
        inputs = (logprobs, entropies) if entropy_gradient else (logprobs,)
        gradients = torch.autograd.grad(value, inputs, materialize_grads=True)
    return value.detach(), gradients[0], gradients[1] if entropy_gradient else None


class _Chunks:
    """One pass over the tokens: chunks for the matrix products, blocks for the softmax."""

    def __init__(self, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> None:
        self.hidden, self.weight, self.targets = hidden, weight, targets.long()
        self.temperature = temperature
        self.dtype = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.logprobs = hidden.new_empty(len(hidden), dtype=self.dtype)
        self.entropies = torch.empty_like(self.logprobs)
        vocabulary = len(weight)
        self.chunk = max(1, CHUNK_ELEMENTS // vocabulary)
        block_elements = CHUNK_ELEMENTS if hidden.is_cuda else CPU_BLOCK_ELEMENTS
        self.block = max(1, block_elements // vocabulary)
        # Half-precision products on a CPU would round their results: whole blocks of the
        # projection are widened instead, and on a GPU the product itself returns float32.
        self.widen = weight.dtype != self.dtype and not hidden.is_cuda
        self.slab = max(1, CHUNK_ELEMENTS // 8 // weight.shape[1]) if self.widen else vocabulary

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the tokens, each with its logits (n, V) in one reused buffer."""
        n = len(self.hidden)
        buffer = self.hidden.new_empty(min(self.chunk, n), len(self.weight), dtype=self.dtype)
        for start in range(0, n, self.chunk):
            span = slice(start, min(start + self.chunk, n))
            logits = buffer[: span.stop - start]
            for words, slab in self._slabs():
                logits[:, words] = self._product(self.hidden[span], slab.t())
            if self.temperature != 1.0:
                logits.div_(self.temperature)
            yield span, logits

    def blocks(self, span: slice, logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Slices of `span`'s tokens with their rows of `logits`, in place."""
        for start in range(span.start, span.stop, self.block):
            block = slice(start, min(start + self.block, span.stop))
            yield block, logits[start - span.start : block.stop - span.start]

    def softmax(self, block: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log-softmax and softmax (n, V) of `logits`; notes the targets' and the entropies."""
        log_p = torch.log_softmax(logits, -1)
        p = log_p.exp()
        self.logprobs[block] = log_p.gather(1, self.targets[block, None])[:, 0]
        self.entropies[block] = -torch.linalg.vecdot(p, log_p)
        return log_p, p

    def logit_gradient(
        self,
        block: slice,
        logits: Tensor,
        softmax: tuple[Tensor, Tensor],
        to_logprobs: Tensor,
        to_entropies: Tensor | None,
    ) -> None:
        """Overwrite `logits` (n, V) with the loss's gradient to them, before the temperature.

        For token y: d log p_y / d logit_v = 1[v = y] - p_v; dH / d logit_v = -p_v (log p_v + H).
        """
        log_p, p = softmax
        to_logprobs = (to_logprobs / self.temperature)[:, None]
        torch.mul(p, -to_logprobs, out=logits)
        if to_entropies is not None:
            entropies = self.entropies[block, None]
            log_p.add_(entropies).mul_(p).mul_((to_entropies / self.temperature)[:, None])
            logits.sub_(log_p)
        logits.scatter_add_(1, self.targets[block, None], to_logprobs)

    def hidden_gradient(self, logits: Tensor) -> Tensor:
        """Gradient (n, D) to the hidden states from that to the logits (n, V)."""
        total = logits.new_zeros(len(logits), self.weight.shape[1])
        for words, slab in self._slabs():
            total += self._product(logits[:, words], slab)
        return total

    def add_weight_gradient(self, total: Tensor, span: slice, logits: Tensor) -> None:
        """Add to `total` (V, D) the gradient to the projection."""
        hidden = self.hidden[span]
        if hidden.is_cuda and hidden.dtype != self.dtype:
            total += self._product(logits.t(), hidden)
        else:
            total.addmm_(logits.t(), hidden.to(self.dtype))

    def _slabs(self) -> Iterator[tuple[slice, Tensor]]:
        """The projection by rows of words, wide enough for a product that does not round."""
        for start in range(0, len(self.weight), self.slab):
            words = slice(start, start + self.slab)
            yield words, self.weight[words].to(self.dtype) if self.widen else self.weight

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        if left.is_cuda and right.dtype != self.dtype:
            return torch.mm(left.to(right.dtype), right, out_dtype=self.dtype)
        return left.to(self.dtype) @ right.to(self.dtype)
