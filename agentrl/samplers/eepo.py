"""EEPO: half of the trajectories, then the rest from a policy that has just forgotten the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.core.types import Task, TrajectoryTree
from agentrl.rollout.player import StartEpisode
from agentrl.samplers.chain import play_chains


class EepoSampler(Settings):
    """Chains in two halves; a policy that is too sure of itself forgets the first one meanwhile.

    Sample-then-forget (EEPO, arXiv:2510.05837). Where the mean entropy of the first halves' tokens,
    averaged over the last `window` iterations (this one included), is below `entropy_below` nats,
    the engines get the policy after one plain gradient step of `rate` that lowers the probability
    of what all first halves of the iteration sampled, the more the likelier it was:

        descend  mean over their action tokens of -log(1 - min(p, 1 - 1e-6))

    and play the second halves with it. Then they get the policy back, and the learner, whose
    weights are again what they were bit for bit, trains on both halves as one group. Every token
    keeps the log-probability that it was sampled with. Before `window` iterations have been there
    is no forgetting. With an odd number of trajectories the first half has one more. Observations
    are not forgotten: they are nobody's actions.

    It costs two more pushes of the weights in each iteration that forgets.
    """

    type: Literal["eepo"] = "eepo"
    trajectories: int = Field(default=8, ge=2)
    entropy_below: float = Field(default=0.3, ge=0.0)
    window: int = Field(default=3, ge=1)
    rate: float = Field(default=3.0e-3, gt=0.0)

    @property
    def needs_fork(self) -> bool:
        """Chains never branch."""
        return False

    def half(self, number: Literal[0, 1]) -> Half:
        """The first or the second half of the chains."""
        middle = (self.trajectories + 1) // 2
        return Half(range(middle) if number == 0 else range(middle, self.trajectories))

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """All chains, of one policy: what an iteration without forgetting plays."""
        return await play_chains(task, start, range(self.trajectories), seed=seed)


@dataclass(frozen=True, slots=True)
class Half:
    """Some of the chains of a task, by the numbers that fix their seeds."""

    numbers: range

    @property
    def trajectories(self) -> int:
        """How many."""
        return len(self.numbers)

    @property
    def needs_fork(self) -> bool:
        """Chains never branch."""
        return False

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """One tree for each chain, in order."""
        return await play_chains(task, start, self.numbers, seed=seed)
