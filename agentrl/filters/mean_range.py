"""A filter by difficulty: groups whose mean score is neither too low nor too high."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from agentrl.core.settings import Settings
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.table import TurnTable
from agentrl.filters.scores import Scores, above, only


class MeanRangeFilter(Settings):
    """Keeps the groups whose mean score lies strictly between `low` and `high`.

        low < mean of the group's scores < high

    OpenRLHF's form of dynamic sampling (DAPO, arXiv:2503.14476): with scores of 0 and 1 and the
    defaults it is `not_constant`; a narrower range leaves out what is nearly always solved or
    nearly never. The score is `eval.score`.
    """

    type: Literal["mean_range"] = "mean_range"
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _check(self) -> MeanRangeFilter:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        return self

    def __call__(self, table: TurnTable, leaves: LeafAdvantages) -> LeafAdvantages:
        """`leaves` of the groups in the range; a group without a score is in none."""
        mean = Scores.of(table).mean
        inside = above(mean, self.low) & above(-mean, -self.high)
        return only(leaves, inside[table.leaf_group])
