"""Groups and credit into packed token rows, ready for the learner; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from agentrl.core.errors import ContractError
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

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ContractError(f"a row's per-token fields must have one length, got {lengths}")

    def __len__(self) -> int:
        return len(self.token_ids)

    @classmethod
    def sequence(
        cls,
        token_ids: Sequence[int] | Int32,
        *,
        weight: Sequence[float] | Float32,
        positive: Sequence[float] | Float32 | None = None,
        negative: Sequence[float] | Float32 | None = None,
        behavior_logprobs: Sequence[float] | Float32 | None = None,
    ) -> Row:
        """A row of one sequence, ready for `pack_rows`; what is None is 0.0 everywhere."""
        length = len(token_ids)

        def column(values: Sequence[float] | Float32 | None) -> Float32:
            return (
                np.zeros(length, np.float32) if values is None else np.asarray(values, np.float32)
            )

        return cls(
            token_ids=np.asarray(token_ids, np.int32),
            positions=np.arange(length, dtype=np.int32),
            segments=np.zeros(length, np.int32),
            positive=column(positive),
            negative=column(negative),
            weight=column(weight),
            behavior_logprobs=column(behavior_logprobs),
        )

    @property
    def segment_lengths(self) -> tuple[int, ...]:
        """Tokens of each of the row's sequences, in order."""
        starts = np.flatnonzero(np.diff(self.segments, prepend=-1))
        return tuple(np.diff(starts, append=len(self)).tolist())

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


def join_rows(rows: Sequence[Row]) -> Row:
    """One row of all sequences of `rows` (at least one), in order."""
    shifts = np.cumsum([0] + [len(row.segment_lengths) for row in rows[:-1]])
    columns = {
        field.name: np.concatenate([getattr(row, field.name) for row in rows])
        for field in fields(Row)
        if field.name != "segments"
    }
    segments = [row.segments + shift for row, shift in zip(rows, shifts, strict=True)]
    return Row(segments=np.concatenate(segments).astype(np.int32), **columns)


def pack_rows(rows: Sequence[Row], pack_tokens: int) -> tuple[Row, ...]:
    """Join `rows` into fewer of at most `pack_tokens` tokens: first fit, the longest first.

    Depends on the lengths and the order of `rows` alone. A row longer than `pack_tokens` stays
    alone, never cut; an empty row vanishes.
    """
    order = sorted((i for i, row in enumerate(rows) if len(row)), key=lambda i: -len(rows[i]))
    bins: list[list[int]] = []
    room: list[int] = []
    for index in order:
        length = len(rows[index])
        number = next((i for i, left in enumerate(room) if length <= left), len(bins))
        if number == len(bins):
            bins.append([])
            room.append(pack_tokens)
        bins[number].append(index)
        room[number] -= length
    return tuple(join_rows([rows[index] for index in members]) for members in bins)
