"""Attention in packed rows of segments: a token sees its own path, computed once for all leaves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from agentrl.learner.batch import Layout
from agentrl.learner.flex import attend_flex

QUERY_BLOCK = 512
"""Queries that attend at a time where a mask is needed: bounds the mask, and what it hides."""


def attend_segments(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    layout: Layout | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention of each segment to itself and those above; query (1, heads, T, width).

    One call per segment: the cost is that of the segments and their contexts, where a mask over
    the whole row would cost its square. On a GPU, where many small calls would leave it idle, one
    kernel does the row (`agentrl.learner.flex`). Dropout is never applied.
    """
    if query.is_cuda and layout is not None and len(layout.lengths) > 1:
        return attend_flex(query, key, value, layout, scaling).transpose(1, 2), None
    if layout is not None and layout.is_forest:
        output = _TreeAttention.apply(query, key, value, layout, scaling)  # type: ignore[no-untyped-call]
        return output.transpose(1, 2), None
    lengths = [query.shape[2]] if layout is None else list(layout.lengths)
    parts = zip(*(torch.split(x, lengths, 2) for x in (query, key, value)), strict=True)
    return torch.cat([_attend(part, scaling) for part in parts], 2).transpose(1, 2), None


class _Block(NamedTuple):
    """Queries of one segment, and the keys that they see: spans of the row, the last their own."""

    queries: slice
    spans: tuple[slice, ...]


@lru_cache(maxsize=64)
def _blocks(layout: Layout) -> tuple[_Block, ...]:
    """The blocks of a row, in order."""
    ends = list(itertools.accumulate(layout.lengths))
    own = [slice(end - size, end) for end, size in zip(ends, layout.lengths, strict=True)]
    paths: list[tuple[slice, ...]] = []
    found = []
    for segment, parent in zip(own, layout.parents, strict=True):
        above = paths[parent] if parent >= 0 else ()
        paths.append(_joined((*above, segment)))
        step = QUERY_BLOCK if above else segment.stop - segment.start
        for start in range(segment.start, segment.stop, step):
            stop = min(start + step, segment.stop)
            found.append(_Block(slice(start, stop), _joined((*above, slice(segment.start, stop)))))
    return tuple(found)


def _joined(spans: Sequence[slice]) -> tuple[slice, ...]:
    """Spans that touch become one."""
    joined: list[slice] = []
    for span in spans:
        if joined and joined[-1].stop == span.start:
            joined[-1] = slice(joined[-1].start, span.stop)
        else:
            joined.append(span)
    return tuple(joined)


class _TreeAttention(torch.autograd.Function):
    """Attention by blocks, whose gathered keys and values are not kept but gathered again.

    Kept, they would be as many as in rows of whole trajectories, which is what a tree saves. The
    output and the logarithms of its divisors are kept, so that nothing is computed again but the
    copies. They are what only PyTorch's own operators behind `scaled_dot_product_attention` give.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: Layout,
        scaling: float | None,
    ) -> Tensor:
        output = torch.empty_like(query)
        divisors = []
        for block in _blocks(layout):
            inputs = _gathered(block, query, key, value)
            mask = _mask(inputs)
            output[:, :, block.queries], divisor = _FORWARD(
                *inputs, is_causal=mask is None, attn_mask=mask, scale=scaling
            )
            divisors.append(divisor)
        ctx.save_for_backward(query, key, value, output, *divisors)
        ctx.layout, ctx.scaling = layout, scaling  # type: ignore[attr-defined]
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, *divisors = ctx.saved_tensors  # type: ignore[attr-defined]
        totals = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        blocks = _blocks(ctx.layout)  # type: ignore[attr-defined]
        for block, divisor in zip(blocks, divisors, strict=True):
            inputs = _gathered(block, query, key, value)
            mask = _mask(inputs)
            ours = block.queries
            here = _BACKWARD(
                upstream[:, :, ours],
                *inputs,
                output[:, :, ours],
                divisor,
                0.0,
                mask is None,
                attn_mask=mask,
                scale=ctx.scaling,  # type: ignore[attr-defined]
            )
            totals[0][:, :, ours] = here[0]
            for total, gradient in zip(totals[1:], here[1:], strict=True):
                for span, part in _parts(block.spans, gradient):
                    total[:, :, span] += part
        return (*totals, None, None)


_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _gathered(block: _Block, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """The block's queries, and its keys and values one after another."""
    gathered = [query[:, :, block.queries]]
    for x in (key, value):
        parts = [x[:, :, span] for span in block.spans]
        gathered.append(parts[0] if len(parts) == 1 else torch.cat(parts, 2))
    return gathered


def _parts(spans: Sequence[slice], gathered: Tensor) -> Iterator[tuple[slice, Tensor]]:
    start = 0
    for span in spans:
        stop = start + span.stop - span.start
        yield span, gathered[:, :, start:stop]
        start = stop


def _attend(inputs: Sequence[Tensor], scaling: float | None) -> Tensor:
    """Attention of queries, keys, values, where the queries are the last of the keys' tokens."""
    query, key, value = inputs
    mask = _mask(inputs)
    grouped = query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
    )


def _mask(inputs: Sequence[Tensor]) -> Tensor | None:
    """Which keys each of the last queries sees; None where it is the plain causal one."""
    query, key, _ = inputs
    queries, keys = query.shape[2], key.shape[2]
    if queries == keys:
        return None
    # Both ends of a causal mask are those of any larger one.
    whole = _causal(1 << (keys - 1).bit_length(), query.dtype, query.device)
    return whole[-queries:, -keys:]


@lru_cache(maxsize=4)
def _causal(keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where one of the last queries may look, minus infinity where not (QUERY_BLOCK, keys)."""
    mask = torch.full((QUERY_BLOCK, keys), float("-inf"), dtype=dtype, device=device)
    return mask.triu_(keys - QUERY_BLOCK + 1)
