"""Packed token rows, ready for the learner: sequences and trees of segments; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agentrl.core.errors import ContractError
from agentrl.core.types import Float32, Float64, Int32

Int64 = npt.NDArray[np.int64]


class Layout(NamedTuple):
    """How a row's tokens hang together: segments' lengths and parents (see `Row`)."""

    lengths: tuple[int, ...]
    parents: tuple[int, ...]

    @property
    def is_forest(self) -> bool:
        """Whether some segment continues another."""
        return any(parent >= 0 for parent in self.parents)


class RowValues(NamedTuple):
    """What a critic learns at each of a row's T tokens; 0.0 where it learns nothing.

    `weight`, `target` and `spread` are those of `agentrl.credit.values.ValueTargets`; `old` is the
    value before the iteration's first update. The value of a token is that of the state before it.
    """

    weight: Float32  # (T,)
    target: Float32
    spread: Float32
    old: Float32


@dataclass(frozen=True, slots=True)
class Row:
    """One packed row of T tokens in S segments, one after another.

    `segments` (T,) numbers the segments from 0 up; `parents` (S,) is the segment that each one
    continues, always an earlier one, or -1 where it begins a sequence. A token sees the tokens
    before it in its own segment and those of the segments above; `positions` (T,) count along
    that path from 0. So a chain is one segment, and a tree holds each shared part once.

    The rest is aligned with `token_ids` and 0.0 wherever the token is not trained: the token's
    credit (`positive`, `negative`, `weight`, see `Credit`) and its behaviour log-probability.
    Every sampled token is trained in exactly one row, however many leaves share it. `sources` (T,)
    says which action token of the batch's `TurnTable` a trained token is, -1 where it is none.
    `values` is there where a critic learns too.
    """

    token_ids: Int32
    positions: Int32
    segments: Int32
    parents: Int32
    positive: Float32
    negative: Float32
    weight: Float32
    behavior_logprobs: Float32
    sources: Int32
    values: RowValues | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in _PER_TOKEN}
        if len(set(lengths.values())) != 1:
            raise ContractError(f"a row's per-token fields must have one length, got {lengths}")
        count = len(np.flatnonzero(np.diff(self.segments, prepend=-1)))
        if len(self.parents) != count or not (self.parents < np.arange(count)).all():
            raise ContractError(
                f"a row of {count} segments needs an earlier parent for each, or -1; got "
                f"{self.parents.tolist()[:20]}"
            )

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
            parents=np.full(min(length, 1), -1, np.int32),
            positive=column(positive),
            negative=column(negative),
            weight=column(weight),
            behavior_logprobs=column(behavior_logprobs),
            sources=np.full(length, -1, np.int32),
        )

    @property
    def segment_lengths(self) -> tuple[int, ...]:
        """Tokens of each segment, in order."""
        return tuple(np.diff(self._starts, append=len(self)).tolist())

    @property
    def layout(self) -> Layout:
        """What attention needs to know of the row."""
        return Layout(self.segment_lengths, tuple(self.parents.tolist()))

    @property
    def previous(self) -> Int64:
        """Index (T,) of the token before each one on its path: what predicts it; -1: nothing."""
        previous = np.arange(-1, len(self) - 1)
        ends = np.append(self._starts[1:], len(self)) - 1
        above = ends[self.parents] if len(self) else ends
        previous[self._starts] = np.where(self.parents < 0, -1, above)
        return previous

    @property
    def _starts(self) -> Int64:
        """Index of each segment's first token."""
        return np.flatnonzero(np.diff(self.segments, prepend=-1))

    @property
    def trained_tokens(self) -> int:
        """Tokens with a weight."""
        return int(np.count_nonzero(self.weight))


_PER_TOKEN = tuple(one.name for one in fields(Row) if one.name not in ("parents", "values"))


@dataclass(frozen=True, slots=True)
class Batch:
    """All rows of one optimizer step and the denominator of its loss, over the global batch.

    loss = sum over all rows and tokens of the token's term / `denominator`.
    """

    rows: tuple[Row, ...]
    denominator: float


def gather(rows: Sequence[Row], columns: Sequence[Float32], tokens: int) -> Float64:
    """What `columns` (T,) of `rows` say of trained tokens, by `Row.sources` (tokens,).

    NaN for action tokens that no row trains.
    """
    found = np.full(tokens, np.nan)
    for row, column in zip(rows, columns, strict=True):
        trained = row.sources >= 0
        found[row.sources[trained]] = column[trained]
    return found


def scatter(rows: Sequence[Row], **columns: Float64) -> tuple[Row, ...]:
    """`rows` with per-token fields by name, each given over all action tokens (see `gather`)."""
    changed = []
    for row in rows:
        trained = row.sources >= 0
        new = {}
        for name, values in columns.items():
            column = getattr(row, name).copy()
            column[trained] = values[row.sources[trained]]
            new[name] = column
        changed.append(replace(row, **new))
    return tuple(changed)


def with_values(rows: Sequence[Row], **columns: Float64) -> tuple[Row, ...]:
    """`rows` with `values`: the fields of `RowValues`, each over all action tokens (`gather`)."""
    changed = []
    for row in rows:
        trained = row.sources >= 0
        found = {}
        for name, values in columns.items():
            found[name] = np.zeros(len(row), np.float32)
            found[name][trained] = values[row.sources[trained]]
        changed.append(replace(row, values=RowValues(**found)))
    return tuple(changed)


def join_rows(rows: Sequence[Row]) -> Row:
    """One row of all segments of `rows` (at least one), in order; without their `values`."""
    shifts = np.cumsum([0] + [len(row.parents) for row in rows[:-1]])
    columns = {
        name: np.concatenate([getattr(row, name) for row in rows])
        for name in _PER_TOKEN
        if name != "segments"
    }
    segments, parents = [], []
    for row, shift in zip(rows, shifts, strict=True):
        segments.append(row.segments + shift)
        parents.append(np.where(row.parents < 0, -1, row.parents + shift))
    return Row(
        segments=np.concatenate(segments).astype(np.int32),
        parents=np.concatenate(parents).astype(np.int32),
        **columns,
    )


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


def check_trainable(row: Row, row_id: int) -> None:
    """Raise `ContractError` on a trained token without predecessor or with a number not finite."""
    trained = np.flatnonzero(row.weight)
    first = trained[row.previous[trained] < 0]
    if len(first):
        raise ContractError(
            f"row {row_id}: token {first[0]} is the first of its sequence and cannot be trained: "
            "nothing predicts it"
        )
    columns = (row.positive, row.negative, row.weight, row.behavior_logprobs)
    finite = np.isfinite([column[trained] for column in columns]).all(axis=0)
    if not finite.all():
        raise ContractError(
            f"row {row_id}: the credit or the behaviour log-probability of token "
            f"{trained[~finite][0]} is not finite: so it came from the credit or the engine"
        )


def empty_row() -> Row:
    """A row that trains nothing, for a rank that has no more rows."""
    return Row.sequence([0], weight=[0.0])
