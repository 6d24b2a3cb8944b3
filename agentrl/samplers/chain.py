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

    All reset the environment with one seed, so that they are attempts from the same state. Best of
    n is this with `filters: [{type: best}]`: what does not train stays in the record, and its cost
    in the budget, where a sampler that dropped it would hide both.
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
        return await play_chains(task, start, range(self.trajectories), seed=seed)


async def play_chains(
    task: Task, start: StartEpisode, numbers: Sequence[int], *, seed: int
) -> Sequence[TrajectoryTree]:
    """One chain for each of `numbers`, which with `seed` fix what is drawn in it."""

    async def one(number: int) -> TrajectoryTree:
        return await play_to_end(await start(task, seed), seed=seed, key=(number,))

    return await all_of(one(number) for number in numbers)
