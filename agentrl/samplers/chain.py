"""Independent chains: as many trajectories as asked for, each a tree of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.core.types import Task, TrajectoryTree
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import StartEpisode
from agentrl.samplers.lines import play_to_end


class ChainSampler(Settings):
    """`trajectories` chains of one task, none of which waits for another.

    All reset the environment with one seed, so that they are attempts from the same state.
    """

    type: Literal["chain"] = "chain"
    trajectories: int = Field(default=8, ge=1)

    @property
    def needs_fork(self) -> bool:
        """Chains never branch."""
        return False

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """One tree for each chain, in order."""

        async def one(index: int) -> TrajectoryTree:
            return await play_to_end(await start(task, seed), seed=seed, key=(index,))

        return await all_of(one(index) for index in range(self.trajectories))
