"""Attention in packed rows on a GPU: one FlexAttention kernel under a block mask of the tree."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from agentrl.learner.batch import Int64, Layout

BLOCK = 128
"""Queries and keys that the kernel treats at a time."""


def attend_flex(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None
) -> Tensor:
    """Each token attends to its own path; (1, heads, T, width) in and out.

    The kernel visits the blocks of keys that some query of a block sees and no others, so the cost
    is that of the segments and their contexts, as with `attend_segments`.
    """
    mask = block_mask(layout, query.device)
    kernel: Any = _compiled() if query.is_cuda else flex_attention
    grouped = query.shape[1] != key.shape[1]
    output: Tensor = kernel(query, key, value, block_mask=mask, scale=scaling, enable_gqa=grouped)
    return output


@lru_cache(maxsize=64)
def block_mask(layout: Layout, device: torch.device) -> BlockMask:
    """Which blocks of keys each block of queries sees, in part or wholly.

    Segments stand in depth-first order, so a token and all that continue it are one span: key k is
    seen by the queries from k to the last token below its segment. That one number for each key
    decides a block too, without a matrix of all pairs.
    """
    last = last_below(layout)
    tokens = len(last)
    starts = np.arange(0, tokens, BLOCK)
    ends = np.minimum(starts + BLOCK, tokens) - 1
    nearest, furthest = np.minimum.reduceat(last, starts), np.maximum.reduceat(last, starts)
    before = starts[:, None] > starts[None]
    some = before & (furthest[None] >= starts[:, None])
    whole = before & (nearest[None] >= ends[:, None])
    partial = (some & ~whole) | np.eye(len(starts), dtype=bool)
    reach = torch.from_numpy(last).to(device)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query <= reach[key])

    counts, indices = _listed(partial, device)
    full_counts, full_indices = _listed(whole, device)
    return BlockMask.from_kv_blocks(
        counts,
        indices,
        full_counts,
        full_indices,
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(tokens, tokens),
    )


def last_below(layout: Layout) -> Int64:
    """For each token (T,), the index of the last token of its segment and all that continue it."""
    last = np.cumsum(layout.lengths) - 1
    for segment in range(len(last) - 1, -1, -1):
        parent = layout.parents[segment]
        if parent >= 0:
            last[parent] = max(last[parent], last[segment])
    return np.repeat(last, layout.lengths)


def _listed(
    seen: np.ndarray[tuple[int, int], np.dtype[np.bool_]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """How many blocks each row of `seen` has, and which, those first; int32 as the kernel asks."""
    order = np.argsort(~seen, axis=1, kind="stable")
    counts, indices = (
        torch.from_numpy(one.astype(np.int32)).to(device)[None, None]
        for one in (seen.sum(1), order)
    )
    return counts, indices


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    """The kernel for any length; eager FlexAttention would build the matrix of all pairs."""
    kernel: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return kernel
