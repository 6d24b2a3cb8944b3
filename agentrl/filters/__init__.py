"""Filters: which of an iteration's compared groups and trajectories train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

from pydantic import Field

from agentrl.credit.aggregate import TakenOut
from agentrl.filters.best import BestFilter
from agentrl.filters.mean_range import MeanRangeFilter
from agentrl.filters.not_constant import NotConstantFilter
from agentrl.filters.top_advantage import TopAdvantageFilter
from agentrl.filters.widest import WidestFilter

AnyFilter: TypeAlias = Annotated[
    NotConstantFilter | MeanRangeFilter | WidestFilter | BestFilter | TopAdvantageFilter,
    Field(discriminator="type"),
]
"""Filters by the name in `type`; a new one is added here."""


def filter_metrics(filters: Sequence[AnyFilter], taken_out: Sequence[TakenOut]) -> dict[str, float]:
    """`filter/...` metrics: what each of `filters` took out; those of one type are summed."""
    metrics: dict[str, float] = {}
    for one, found in zip(filters, taken_out, strict=True):
        for name, count in (("trajectories", found.trajectories), ("groups", found.groups)):
            key = f"filter/{one.type}_{name}"
            metrics[key] = metrics.get(key, 0.0) + count
    return metrics


__all__ = [
    "AnyFilter",
    "BestFilter",
    "MeanRangeFilter",
    "NotConstantFilter",
    "TopAdvantageFilter",
    "WidestFilter",
    "filter_metrics",
]
