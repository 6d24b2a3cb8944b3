"""From trajectories to one number: row weights and denominators over the global batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from agentrl.core.types import Float64
from agentrl.credit.groups import Grain, LeafAdvantages
from agentrl.credit.subtree import Levels, at_leaves, subtree_sums, trajectory_sums
from agentrl.credit.table import Bool, Credit, TurnTable

Aggregation: TypeAlias = Literal[
    "token_mean",
    "token_sum",
    "turn_mean",
    "turn_sum",
    "sequence_mean",
    "sequence_sum",
    "constant",
]


class CreditMethod(Protocol):
    """What assigns credit: leaves compared within their groups, then credit to turns."""

    @property
    def grain(self) -> Grain:
        """What has one advantage."""
        ...

    @property
    def needs_tokens(self) -> bool:
        """Whether the table must have its columns over tokens."""
        ...

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Which leaves train, and their advantages."""
        ...

    def __call__(
        self,
        table: TurnTable,
        row_weights: Float64,
        *,
        levels: Levels | None = None,
        leaves: LeafAdvantages | None = None,
    ) -> Credit:
        """Credit of all turns; `levels` and `leaves` where they are known already."""
        ...


class Filter(Protocol):
    """What chooses which of the compared trajectories train."""

    def __call__(self, table: TurnTable, leaves: LeafAdvantages) -> LeafAdvantages:
        """`leaves` with fewer that train; advantages and statistics stay those of all."""
        ...


class TakenOut(NamedTuple):
    """What one filter took out: trajectories that would have trained, and groups left without."""

    trajectories: int
    groups: int

    @classmethod
    def between(cls, table: TurnTable, before: LeafAdvantages, after: LeafAdvantages) -> TakenOut:
        """The difference that a filter made."""
        had, has = (np.unique(table.leaf_group[one.trains]).size for one in (before, after))
        return cls(int(before.trains.sum() - after.trains.sum()), had - has)


class RowWeights(NamedTuple):
    """Weight of every trajectory's tokens and its share of the loss's denominator, both (L,).

    `turns` (K,) multiplies what each token of a turn has, in whichever trajectory; None: 1.
    """

    weights: Float64
    shares: Float64
    turns: Float64 | None = None

    def credit(
        self,
        table: TurnTable,
        method: CreditMethod,
        *,
        leaves: LeafAdvantages,
        levels: Levels | None = None,
    ) -> Credit:
        """Credit of all turns by `method`, weighed."""
        found = method(table, self.weights, levels=levels, leaves=leaves)
        return found if self.turns is None else found.scaled(table, self.turns)

    @property
    def denominator(self) -> float:
        """That of the loss over all trajectories; 1 where none trains."""
        return denominator(self.shares)


def denominator(shares: Float64) -> float:
    """The divisor of the loss over the trajectories with these shares; 1 where none trains."""
    return float(shares.sum()) or 1.0


class Assigned(NamedTuple):
    """Credit of all turns, the trajectories' weights, and the comparison that it came from.

    `leaves` are those after all filters; `taken_out` has what each filter did, in order.
    """

    credit: Credit
    rows: RowWeights
    leaves: LeafAdvantages
    taken_out: tuple[TakenOut, ...] = ()

    @property
    def denominator(self) -> float:
        """The loss's, over all trajectories."""
        return self.rows.denominator


def row_weights(
    table: TurnTable,
    aggregation: Aggregation,
    constant: float | None = None,
    *,
    trains: Bool | None = None,
    levels: Levels | None = None,
) -> RowWeights:
    """Weights so that sum of w * f * (token terms) / denominator is the aggregation over the table.

    N trajectories train and have action tokens; trajectory i has n_i of them, in T_i turns, of
    which turn k has m_k. w is a trajectory's `weights`, f a turn's factor `turns`
    (spec/losses.md 1.1):

    - "token_mean": w = 1, denominator = sum n_i;
    - "token_sum": w = 1, denominator = 1;
    - "turn_mean": w = 1, f = 1 / m_k, denominator = sum T_i (the mean of the turns' token means);
    - "turn_sum": w = 1, denominator = sum T_i (the mean of the turns' token sums);
    - "sequence_mean": w = 1 / n_i, denominator = N (the mean of the trajectories' token means);
    - "sequence_sum": w = 1, denominator = N (the mean of the trajectories' token sums);
    - "constant": w = 1, denominator = N * `constant` (Dr. GRPO, arXiv:2503.20783).

    A shared turn counts once for each trajectory that passes through it; a turn without action
    tokens is none. Those with w = 1 and f = 1 differ by what they divide by, which for one batch is
    a factor and from batch to batch is not. "turn_sum" by a constant would be a factor for good and
    is left out, as is LUSPO's n_i * loss_i over N, which is "sequence_sum".

    `trains` (L,) leaves trajectories out; their weight and share are 0. The denominator is the sum
    of `shares`, so a part of the trajectories has that of its own; with nothing to train, and where
    no trajectory has a share ("token_sum"), it is 1.
    """
    levels = levels or Levels.of(table)
    tokens = trajectory_sums(table, levels, table.tokens.astype(np.float64))
    counts = tokens > 0
    if trains is not None:
        counts &= trains
    weights = counts.astype(np.float64)
    if aggregation == "token_mean":
        return RowWeights(weights, np.where(counts, tokens, 0.0))
    if aggregation == "token_sum":
        return RowWeights(weights, np.zeros_like(weights))
    if aggregation == "sequence_mean":
        return RowWeights(weights / np.maximum(tokens, 1.0), weights)
    if aggregation == "sequence_sum":
        return RowWeights(weights, weights)
    if aggregation == "constant":
        if constant is None or constant <= 0:
            raise ValueError(f"aggregation 'constant' needs a constant above 0, got {constant}")
        return RowWeights(weights, weights * constant)
    turns = trajectory_sums(table, levels, (table.tokens > 0).astype(np.float64))
    factors = 1.0 / np.maximum(table.tokens, 1) if aggregation == "turn_mean" else None
    return RowWeights(weights, np.where(counts, turns, 0.0), factors)


def assign(
    table: TurnTable,
    method: CreditMethod,
    aggregation: Aggregation = "token_mean",
    constant: float | None = None,
    *,
    filters: Sequence[Filter] = (),
) -> Assigned:
    """Credit by `method` over the trajectories that it trains and that pass all `filters`.

    Where turns count once, the shares of means over tokens or turns are those of the turns: a
    denominator is the sum of weight * tokens ("turn_sum": of weight over turns with tokens), which
    with every copy counted is `row_weights`'.
    """
    levels = Levels.of(table)
    leaves = method.compare(table, levels)
    taken_out = []
    for one in filters:
        before, leaves = leaves, one(table, leaves)
        taken_out.append(TakenOut.between(table, before, leaves))
    rows = row_weights(table, aggregation, constant, trains=leaves.trains, levels=levels)
    credit = rows.credit(table, method, levels=levels, leaves=leaves)
    if credit.once and aggregation in ("token_mean", "turn_mean", "turn_sum", "sequence_mean"):
        counted = table.tokens > 0 if aggregation == "turn_sum" else table.tokens
        shares = _shares_of_turns(table, levels, credit.weight * counted, rows.weights)
        rows = rows._replace(shares=shares)
    return Assigned(credit, rows, leaves, tuple(taken_out))


def _shares_of_turns(table: TurnTable, levels: Levels, parts: Float64, weights: Float64) -> Float64:
    """Shares (L,) that sum to the `parts` (K,) of all turns, each turn's among its trajectories."""
    trains = weights > 0
    copies = subtree_sums(levels, at_leaves(table, trains.astype(np.float64)))
    share = parts / np.maximum(copies, 1.0)
    return np.where(trains, trajectory_sums(table, levels, share), 0.0)
