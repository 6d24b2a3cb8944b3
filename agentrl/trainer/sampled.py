"""What sampling gave: a task as it was attempted, and what an iteration trains on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from agentrl.core.types import Group
from agentrl.trainer.summary import Budget, spent


class Attempt(NamedTuple):
    """All groups of one task's attempts: the first without help, others with more and more hints.

    `chosen` is the one that may train.
    """

    groups: tuple[Group, ...]
    chosen: int = 0

    @property
    def group(self) -> Group:
        """The one that may train."""
        return self.groups[self.chosen]

    @property
    def first(self) -> Group:
        """The one that the policy played by itself."""
        return self.groups[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The groups that an iteration trains on, and everything that was played for them.

    `groups` are those to train on, some of them perhaps with a trajectory of an earlier iteration.
    `fresh` are the same as they were played just now. `played` are all groups that the policy
    played by itself, those that were set aside included: what scores are taken of. `spent` counts
    those and the ones with hints. `seconds`, `waited` and `ahead` are the `Portion`'s; `metrics`
    are of the choosing.
    """

    groups: list[Group]
    fresh: list[Group]
    played: list[Group]
    spent: Budget
    seconds: float
    waited: float
    ahead: int
    metrics: dict[str, float]

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens by `seconds`; NaN where all had been played before."""
        return self.spent.generated_tokens / self.seconds if self.seconds else float("nan")


def cost(attempts: Iterable[Attempt]) -> Budget:
    """What all groups of `attempts` took."""
    return spent(group for attempt in attempts for group in attempt.groups)
