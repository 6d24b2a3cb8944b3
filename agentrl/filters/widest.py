"""RAGEN's filter: of an iteration the groups whose scores differ most."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.table import TurnTable
from agentrl.filters.scores import Scores, only


class WidestFilter(Settings):
    """Keeps the share `keep` of the iteration's groups with the widest scores.

        k = floor(keep * G), by the standard deviation of the group's scores

    RAGEN's uncertainty filter (arXiv:2504.20073), with which UFO trains (arXiv:2507.14295, a
    quarter of the groups). Groups of equal scores are never kept, however few others there are; of
    equally wide ones (up to a billionth of the widest) the earlier stay. G counts the groups that
    have something to train. At least one is kept. The score is `eval.score`.
    """

    type: Literal["widest"] = "widest"
    keep: float = Field(default=0.25, gt=0.0, le=1.0)

    def __call__(self, table: TurnTable, leaves: LeafAdvantages) -> LeafAdvantages:
        """`leaves` of the k groups."""
        scores = Scores.of(table)
        group, finite = table.leaf_group, scores.finite
        off = np.where(finite, scores.value - scores.mean[group], 0.0)
        size = np.maximum(np.bincount(group[finite], minlength=table.n_groups), 1)
        spread = np.sqrt(np.bincount(group, off * off, table.n_groups) / size)
        trains = np.zeros(table.n_groups, np.bool_)
        trains[group[leaves.trains]] = True
        spread[scores.constant | ~trains] = 0.0
        widest = spread.max(initial=0.0)
        if widest == 0.0:
            return only(leaves, np.zeros(len(group), np.bool_))
        kept = max(1, math.floor(self.keep * np.count_nonzero(trains) + 1e-9))
        chosen = np.zeros(table.n_groups, np.bool_)
        chosen[np.argsort(-np.round(spread / widest, 9), kind="stable")[:kept]] = True
        return only(leaves, (chosen & (spread > 0.0))[group])
