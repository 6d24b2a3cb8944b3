"""Groups and credit into packed token rows, ready for the learner; numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agentrl.core.types import Float32, Int32


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row of T tokens: whole sequences one after another.

    `segments` (T,) numbers the row's sequences from 0 up, `positions` (T,) restart at 0 with each.
    The rest is aligned with `token_ids` and 0.0 wherever the token is not trained: the token's
    credit (`positive`, `negative`, `weight`, see `Credit`) and its behaviour log-probability.
    Every sampled token is trained in exactly one row, however many leaves share it.
    """

    token_ids: Int32
    positions: Int32
    segments: Int32
    positive: Float32
    negative: Float32
    weight: Float32
    behavior_logprobs: Float32

    @property
    def trained_tokens(self) -> int:
        """Tokens with a weight."""
        return int(np.count_nonzero(self.weight))


@dataclass(frozen=True, slots=True)
class Batch:
    """All rows of one optimizer step and the denominator of its loss, over the global batch.

    loss = sum over all rows and tokens of the token's term / `denominator`.
    """

    rows: tuple[Row, ...]
    denominator: float
