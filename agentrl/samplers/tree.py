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
from agentrl.samplers.lines import LineKey, in_order, turn_seed


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
            return await _Tree(self, seed, index).sample(await start(task, seed))

        return await all_of(one(index) for index in range(self.trees))


class _Tree:
    """One tree: its lines by name, and the forks parked at its inner nodes."""

    def __init__(self, sampler: TreeSampler, seed: int, index: int) -> None:
        self.sampler, self.seed, self.index = sampler, seed, index
        self.keys: dict[int, LineKey] = {}  # the line of each node
        self.parked: dict[tuple[LineKey, int], Episode] = {}  # by line and turn

    async def sample(self, episode: Episode) -> TrajectoryTree:
        try:
            await self._line((self.index,), episode, 0, parks=self.sampler.needs_fork)
            for number in range(self.sampler.rounds):
                await self._expand(number)
        finally:
            await self._free()
        return in_order(episode.tree, self.keys)

    async def _expand(self, number: int) -> None:
        # In the order of their names, so that the draw does not tell who was faster.
        candidates = sorted(self.parked)
        draw = derive(self.seed, "expand", self.index, "round", number)
        chosen = [candidates[one] for one in self.sampler.chosen(len(candidates), seed=draw)]
        last = number + 1 == self.sampler.rounds
        twins: list[Episode] = []
        try:
            for place in chosen:
                twins.append(await self.parked[place].fork())
            if last:
                await self._free()
        except BaseException:
            for twin in twins:
                await twin.close()
            raise
        lines = [
            self._line(
                (*key, turn, number * self.sampler.expansions + order), twin, turn, parks=not last
            )
            for order, ((key, turn), twin) in enumerate(zip(chosen, twins, strict=True))
        ]
        await all_of(lines)

    async def _free(self) -> None:
        while self.parked:
            _, one = self.parked.popitem()
            await one.close()

    async def _line(self, key: LineKey, episode: Episode, turn: int, *, parks: bool) -> None:
        """Play a line to its end; `parks` a fork at each node that it goes on from.

        The node that a branch starts from has one already.
        """
        born = turn if len(key) > 1 else None
        try:
            while episode.stop_reason is None:
                if parks and turn != born:
                    self.parked[key, turn] = await episode.fork()
                completion = await episode.propose(seed=turn_seed(self.seed, key, turn))
                if completion is None:
                    await self._unpark(key, turn)  # the node turned out to be a leaf
                    break
                if await episode.play(completion) is not None:
                    break
                turn += 1
        finally:
            await episode.close()
            self.keys.update(dict.fromkeys(episode.added, key))

    async def _unpark(self, key: LineKey, turn: int) -> None:
        fork = self.parked.pop((key, turn), None)
        if fork is not None:
            await fork.close()
