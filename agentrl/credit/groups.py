"""Each trajectory's return against the mean of its group: what GRPO and its kin share."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.settings import Settings
from agentrl.core.types import Float64
from agentrl.credit.subtree import Levels, path_sums
from agentrl.credit.table import Bool, Int64, TurnTable

EPSILON = 1e-6
"""Added to the standard deviation, outside the root (verl's value; spec/losses.md 1.5)."""
EQUAL = 1e-9
"""Returns whose spread is at most this times max(1, |mean|) are equal: advantage exactly 0."""


class LeafAdvantages(NamedTuple):
    """What each trajectory is worth beside its group; L leaves.

    `advantage` (L,) is 0 where `trains` (L,) is False. `compared` (G,) is the number of
    trajectories that each group's statistics are over. `groups_dropped` had fewer than two
    trajectories to compare, `groups_equal` had two or more of one and the same return,
    `leaves_unscored` had a return that is no finite number.
    """

    advantage: Float64
    trains: Bool
    compared: Float64
    groups_dropped: int
    groups_equal: int
    leaves_unscored: int


class Compared(NamedTuple):
    """N values beside their groups' means; G groups.

    `advantage` (N,) is 0 for values that are not counted and in groups whose values are `equal`
    (G,); `size` (G,) counts.
    """

    advantage: Float64
    size: Float64
    equal: Bool


def against_group(
    values: Float64,
    group: Int64,
    counted: Bool,
    n_groups: int,
    *,
    scale: Literal["std", "none"],
) -> Compared:
    """(value - mean) / (std + 1e-6), ddof = 1, over the counted values of each group; float64.

    With `scale="none"` the difference alone. In a group of one it is 0.
    """
    value = np.where(counted, values, 0.0)
    size = np.bincount(group[counted], minlength=n_groups).astype(np.float64)
    mean = np.bincount(group, value, n_groups) / np.maximum(size, 1)
    deviation = np.where(counted, value - mean[group], 0.0)
    equal = _spread(group, values, counted, n_groups) <= EQUAL * np.maximum(1.0, np.abs(mean))
    advantage = np.where(equal[group], 0.0, deviation)
    if scale == "std":
        squares = np.bincount(group, deviation**2, n_groups)
        advantage /= np.sqrt(squares / np.maximum(size - 1, 1))[group] + EPSILON
    return Compared(advantage, size, equal)


class GroupBaseline(Settings):
    """How a return is compared with its group; the settings that GRPO and ARPO have in common.

    `scale="std"` divides by the sample standard deviation (ddof = 1), "none" does not (Dr. GRPO,
    arXiv:2503.20783). `singleton` says what a group with one trajectory left does: "zero" trains
    nothing, "raw" takes the return itself as the advantage (as verl does), "error" stops.
    `truncated` trajectories are kept, or masked (in the statistics, not trained), or excluded
    from both.
    """

    scale: Literal["std", "none"] = "std"
    singleton: Literal["zero", "raw", "error"] = "zero"
    truncated: Literal["keep", "mask", "exclude"] = "keep"

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Advantages of all leaves, statistics in float64 over each group's survivors.

        A = (R - mean) / (std + 1e-6), the return R being the sum of the rewards along the path.
        A trajectory without a finite return takes no part. Raises ContractError on a group of
        one with `singleton="error"`.
        """
        returns = path_sums(levels or Levels.of(table), table.reward)[table.leaf_turn]
        scored = np.isfinite(returns)
        counted = scored & ~table.leaf_truncated if self.truncated == "exclude" else scored
        group = table.leaf_group
        found = against_group(returns, group, counted, table.n_groups, scale=self.scale)
        size, advantage = found.size, found.advantage
        trains = counted & self._enough(size)[group]
        if self.singleton == "raw":
            advantage = np.where(counted & (size[group] == 1), returns, advantage)
        if self.truncated == "mask":
            trains &= ~table.leaf_truncated
        return LeafAdvantages(
            advantage=np.where(trains, advantage, 0.0),
            trains=trains,
            compared=size,
            groups_dropped=int(np.count_nonzero(~self._enough(size))),
            groups_equal=int(np.count_nonzero(found.equal & (size > 1))),
            leaves_unscored=int(np.count_nonzero(~scored)),
        )

    def _enough(self, size: Float64) -> Bool:
        if self.singleton == "error" and (size == 1).any():
            raise ContractError(
                f"{np.count_nonzero(size == 1)} of {len(size)} groups have one trajectory left to "
                f"compare (the first is group {int(np.argmax(size == 1))}); credit.singleton is "
                "'error': sample more trajectories per task, or set it to 'zero'"
            )
        return size >= (1 if self.singleton == "raw" else 2)


def _spread(group: Int64, values: Float64, counted: Bool, n_groups: int) -> Float64:
    """Largest minus smallest counted value of each group (G,); 0 where none is counted."""
    spread = np.zeros(n_groups)
    order = np.argsort(group, kind="stable")  # In a table of whole groups it is the identity.
    chosen = order[counted[order]]
    if len(chosen):
        starts = np.flatnonzero(np.diff(group[chosen], prepend=-1))
        value = values[chosen]
        high, low = np.maximum.reduceat(value, starts), np.minimum.reduceat(value, starts)
        spread[group[chosen[starts]]] = high - low
    return spread
