"""Each trajectory's return against the mean of its group: what GRPO and its kin share."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.core.settings import Settings
from agentrl.core.types import Float64
from agentrl.credit.subtree import Levels, trajectory_sums
from agentrl.credit.table import Bool, Int64, TurnTable

EPSILON = 1e-6
"""Added to the standard deviation, outside the root (verl's value; spec/losses.md 1.5)."""
EQUAL = 1e-9
"""Returns whose spread is at most this times max(1, |mean|) are equal: advantage exactly 0."""

Scale: TypeAlias = Literal["std", "batch", "none"]


Grain: TypeAlias = Literal["trajectory", "turn", "copy"]
"""What has one advantage: a whole trajectory; a turn, whichever trajectories share it; or only a
trajectory's own copy of a turn or of a token."""


class Returns(NamedTuple):
    """The returns of L leaves, which of them are finite numbers, and which are in statistics."""

    value: Float64
    scored: Bool
    counted: Bool


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
    scale: Scale,
    ddof: Literal[0, 1] = 1,
) -> Compared:
    """(value - mean) / (std + 1e-6) over the counted values of each group, in float64.

    With `scale="batch"` the std is that of all counted values, with "none" the difference stands
    alone. In a group of one it is 0. `ddof` is 1 for the sample's standard deviation, 0 for the
    population's.
    """
    if not counted.all():
        at = np.flatnonzero(counted)
        found = against_group(values[at], group[at], counted[at], n_groups, scale=scale, ddof=ddof)
        advantage = np.zeros(len(values))
        advantage[at] = found.advantage
        return found._replace(advantage=advantage)
    size = np.bincount(group, minlength=n_groups).astype(np.float64)
    mean = np.bincount(group, values, n_groups) / np.maximum(size, 1)
    deviation = values - mean[group]
    squares = np.bincount(group, deviation * deviation, n_groups).astype(np.float64)
    equal = _equal(values, group, size, mean, squares)
    factor = np.ones(n_groups)
    if scale == "std":
        factor /= np.sqrt(squares / np.maximum(size - ddof, 1)) + EPSILON
    elif scale == "batch" and len(values) > ddof:
        factor /= np.std(values, ddof=ddof) + EPSILON
    factor[equal] = 0.0
    return Compared(deviation * factor[group], size, equal)


class GroupBaseline(Settings):
    """How a return is compared with its group; the settings that GRPO and ARPO have in common.

    `scale="std"` divides by the group's sample standard deviation (ddof = 1), "batch" by that of
    all values of the iteration (Lite PPO, arXiv:2508.08221), "none" by nothing (Dr. GRPO,
    arXiv:2503.20783). `singleton` says what a group with one trajectory left does: "zero" trains
    nothing, "raw" takes the return itself as the advantage (as verl does), "error" stops.
    `truncated` trajectories are kept, or masked (in the statistics, not trained), or excluded
    from both.
    """

    scale: Scale = "std"
    singleton: Literal["zero", "raw", "error"] = "zero"
    truncated: Literal["keep", "mask", "exclude"] = "keep"

    def compare(self, table: TurnTable, levels: Levels | None = None) -> LeafAdvantages:
        """Advantages of all leaves, statistics in float64 over each group's survivors.

        A = (R - mean) / (std + 1e-6), the return R being the sum of the rewards along the path.
        A trajectory without a finite return takes no part. Raises ContractError on a group of
        one with `singleton="error"`.
        """
        returns, scored, counted = self.returns(table, levels or Levels.of(table))
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

    def returns(self, table: TurnTable, levels: Levels) -> Returns:
        """R of all leaves, the sum of the rewards along the path, and what takes part."""
        value = trajectory_sums(table, levels, table.reward)
        scored = np.isfinite(value)
        counted = scored & ~table.leaf_truncated if self.truncated == "exclude" else scored
        return Returns(value, scored, counted)

    @property
    def needs_group(self) -> bool:
        """Whether a trajectory says nothing without others of its task beside it."""
        return self.singleton != "raw"

    @property
    def grain(self) -> Grain:
        """What has one advantage (see `Grain`)."""
        return "copy"

    @property
    def needs_tokens(self) -> bool:
        """Whether the table must have its columns over tokens (`TurnTable.of`)."""
        return False

    def _enough(self, size: Float64) -> Bool:
        if self.singleton == "error" and (size == 1).any():
            raise ContractError(
                f"{np.count_nonzero(size == 1)} of {len(size)} groups have one trajectory left to "
                f"compare (the first is group {int(np.argmax(size == 1))}); credit.singleton is "
                "'error': sample more trajectories per task, or set it to 'zero'"
            )
        return size >= (2 if self.needs_group else 1)


def _equal(values: Float64, group: Int64, size: Float64, mean: Float64, squares: Float64) -> Bool:
    """Groups (G,) whose largest and smallest values are equal but for rounding.

    `squares` (G,) are the sums of squared deviations. Where they are 0 the values are equal, and
    where they are too large for the allowed spread they are not; only between is it looked up.
    """
    allowed = EQUAL * np.maximum(1.0, np.abs(mean))
    equal: Bool = squares == 0.0
    unsure = ~equal & (squares <= size * allowed**2)
    if unsure.any():
        among = np.flatnonzero(unsure[group])
        high, low = np.full(len(size), -np.inf), np.full(len(size), np.inf)
        np.maximum.at(high, group[among], values[among])
        np.minimum.at(low, group[among], values[among])
        equal[unsure] = (high - low)[unsure] <= allowed[unsure]
    return equal
