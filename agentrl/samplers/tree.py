"""Tree-GRPO's trees: whole chains first, then continuations from nodes drawn at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from agentrl.core.settings import Settings
from agentrl.core.types import Task, TrajectoryTree
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import Episode, StartEpisode
from agentrl.rollout.seeds import derive
from agentrl.samplers.growth import Growth


class TreeSampler(Settings):
    """`trees` chains, each expanded `rounds` times from `expansions` of its nodes.

    A round draws `expansions` nodes of a tree uniformly with replacement from its root and its
    nodes that are no leaves, and plays one continuation to the end from each: 1 + `expansions` x
    `rounds` leaves a tree (Tree-GRPO, arXiv:2509.21240, section 3.2; the released code counts the
    root among the nodes, and so does this). A tree whose own chain failed at its root stays as it
    is. All leaves are kept: pruning some would throw away what was paid for.

    A fork of the environment is parked at every node that may be drawn, and freed with its tree:
    an environment that forks by copying holds as many copies as the tree has inner nodes; one that
    replays holds none. Trees do not wait for each other; within a tree a round waits for the one
    before, whose nodes it draws from.
    """

    type: Literal["tree"] = "tree"
    trees: int = Field(default=2, ge=1)
    expansions: int = Field(default=2, ge=0)
    rounds: int = Field(default=1, ge=1)

    @property
    def trajectories(self) -> int:
        """Leaves of all trees of a task."""
        return self.trees * (1 + self.expansions * self.rounds)

    @property
    def needs_fork(self) -> bool:
        """Continuations start in the middle of an episode."""
        return self.expansions > 0

    def chosen(self, candidates: int, *, seed: int) -> list[int]:
        """A round's `expansions` draws from `candidates` nodes, with replacement."""
        rng = random.Random(seed)
        return [rng.randrange(candidates) for _ in range(self.expansions)] if candidates else []

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """The trees in order."""

        async def one(index: int) -> TrajectoryTree:
            return await _sample(self, await start(task, seed), seed=seed, index=index)

        return await all_of(one(index) for index in range(self.trees))


async def _sample(
    sampler: TreeSampler, episode: Episode, *, seed: int, index: int
) -> TrajectoryTree:
    growth = Growth(episode, seed=seed)
    try:
        await growth.line((index,), episode, 0, parks=sampler.needs_fork)
        for number in range(sampler.rounds):
            inner = growth.inner()
            draw = derive(seed, "expand", index, "round", number)
            await growth.extend(
                [inner[one] for one in sampler.chosen(len(inner), seed=draw)],
                root=(index,),
                first=number * sampler.expansions,
                last=number + 1 == sampler.rounds,
            )
    finally:
        await growth.close()
    return growth.ordered()
