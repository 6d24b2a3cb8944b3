"""From trajectories to one number: row weights and denominators over the global batch."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from agentrl.core.types import Float64
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.subtree import Levels, path_sums
from agentrl.credit.table import Bool, Credit, TurnTable

Aggregation: TypeAlias = Literal["token_mean", "sequence_mean", "constant"]


class CreditMethod(Protocol):
    """What assigns credit: leaves compared within their groups, then credit to turns."""

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


class RowWeights(NamedTuple):
    """Weight of every trajectory's tokens, (L,), and the denominator of the loss."""

    weights: Float64
    denominator: float


class Assigned(NamedTuple):
    """Credit of all turns, the loss's denominator, and the comparison that it came from."""

    credit: Credit
    denominator: float
    leaves: LeafAdvantages


def row_weights(
    table: TurnTable,
    aggregation: Aggregation,
    constant: float | None = None,
    *,
    trains: Bool | None = None,
    levels: Levels | None = None,
) -> RowWeights:
    """Weights so that sum of w * (token terms) / denominator is the aggregation over the table.

    With n_i action tokens in trajectory i and N trajectories that train and have n_i > 0
    (spec/losses.md 1.1):

    - "token_mean": w = 1, denominator = sum n_i;
    - "sequence_mean": w = 1 / n_i, denominator = N (the mean of the trajectories' token means);
    - "constant": w = 1, denominator = N * `constant` (Dr. GRPO, arXiv:2503.20783).

    A shared turn counts once for each trajectory that passes through it. `trains` (L,) leaves
    trajectories out; their weight is 0. With nothing to train the denominator is 1.
    """
    tokens = path_sums(levels or Levels.of(table), table.tokens.astype(np.float64))[table.leaf_turn]
    counts = tokens > 0
    if trains is not None:
        counts &= trains
    weights = counts.astype(np.float64)
    rows = float(np.count_nonzero(counts))
    if aggregation == "token_mean":
        denominator = float(tokens[counts].sum())
    elif aggregation == "sequence_mean":
        weights /= np.maximum(tokens, 1.0)
        denominator = rows
    else:
        if constant is None or constant <= 0:
            raise ValueError(f"aggregation 'constant' needs a constant above 0, got {constant}")
        denominator = rows * constant
    return RowWeights(weights, denominator or 1.0)


def assign(
    table: TurnTable,
    method: CreditMethod,
    aggregation: Aggregation = "token_mean",
    constant: float | None = None,
) -> Assigned:
    """Credit by `method` over the trajectories that it trains, with the loss's denominator."""
    levels = Levels.of(table)
    leaves = method.compare(table, levels)
    weights, denominator = row_weights(
        table, aggregation, constant, trains=leaves.trains, levels=levels
    )
    credit = method(table, weights, levels=levels, leaves=leaves)
    return Assigned(credit, denominator, leaves)
