"""Dynamic sampling: which groups are of use to an update, so that others are played for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentrl.core.types import Group
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.subtree import Levels, trajectory_sums
from agentrl.credit.table import TurnTable
from agentrl.filters import AnyFilter


def informative(groups: Sequence[Group], filters: Sequence[AnyFilter], score: str) -> list[bool]:
    """For each group, whether the filters leave a trajectory of it.

    They judge by `score` here, as they do in the update; every trajectory with a finite return is
    taken to train.
    """
    table = TurnTable.of(groups, score=score)
    returns = trajectory_sums(table, Levels.of(table), table.reward)
    scored = np.isfinite(returns)
    size = np.bincount(table.leaf_group[scored], minlength=table.n_groups).astype(np.float64)
    leaves = LeafAdvantages(
        advantage=np.zeros(len(returns)),
        trains=scored,
        compared=size,
        groups_dropped=0,
        groups_equal=0,
        leaves_unscored=int(np.count_nonzero(~scored)),
    )
    for one in filters:
        leaves = one(table, leaves)
    left = set(table.leaf_group[leaves.trains].tolist())
    return [index in left for index in range(len(groups))]
