"""A tree of fixed width per turn: every state of the first turns is acted from several times."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from typing import Literal

from pydantic import field_validator

from agentrl.core.settings import Settings
from agentrl.core.types import Task, TrajectoryTree
from agentrl.rollout.player import Episode, StartEpisode
from agentrl.samplers.lines import LineKey, close_all, in_order, turn_seed


class SpoSampler(Settings):
    """One tree, in which each state after k turns is acted from `widths[k]` times.

    The tree of SPO (arXiv:2505.23564, section 4.2: 6, 6, 6), whose segments are turns here. Past
    the last width every state is acted from once, so a tree has at most the product of the widths
    as leaves, and fewer where a trajectory ends before its turns have branched. The mean over a
    node's children estimates its value without a critic.

    With `rollout.sampling.segment_tokens` the nodes are the paper's segments: k counts segments of
    at most so many tokens, and the last that forks is the rest of its turn, as in the paper.

    A turn forks as soon as its first child is sampled; no line waits for another.
    """

    type: Literal["spo"] = "spo"
    widths: tuple[int, ...] = (2, 2, 2)

    @field_validator("widths")
    @classmethod
    def _at_least_one_each(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if not widths or min(widths) < 1:
            raise ValueError(f"needs one width or more, each 1 or more, got {list(widths)}")
        return widths

    @property
    def trajectories(self) -> int:
        """Most leaves of the task's tree."""
        return math.prod(self.widths)

    @property
    def needs_fork(self) -> bool:
        """Siblings of the first child start in the middle of an episode."""
        return self.trajectories > 1

    def siblings(self, turn: int) -> int:
        """How many further times a state after `turn` turns is acted from."""
        return self.widths[turn] - 1 if turn < len(self.widths) else 0

    def forks_after(self, turn: int) -> bool:
        """Whether a state after more than `turn` turns is acted from more than once."""
        return any(width > 1 for width in self.widths[turn + 1 :])

    async def sample(
        self, task: Task, start: StartEpisode, *, seed: int
    ) -> Sequence[TrajectoryTree]:
        """One tree."""
        return [await _Tree(self, await start(task, seed), seed).sample()]


class _Tree:
    """One tree, its lines and their names."""

    def __init__(self, sampler: SpoSampler, episode: Episode, seed: int) -> None:
        self.sampler, self.seed = sampler, seed
        self.lines = [episode]
        self.keys: dict[int, LineKey] = {}  # the line of each node
        self.tasks: set[asyncio.Task[None]] = set()

    async def sample(self) -> TrajectoryTree:
        try:
            self._run(self._line((0,), self.lines[0], 0))
            while self.tasks:
                done, _ = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
                self.tasks -= done
                for task in done:
                    task.result()
        finally:
            await close_all(self.lines, players=self.tasks)
        return in_order(self.lines[0].tree, self.keys)

    def _run(self, work: Coroutine[object, object, None]) -> None:
        self.tasks.add(asyncio.ensure_future(work))

    async def _line(self, key: LineKey, episode: Episode, turn: int) -> None:
        """Play a line to its end from `turn` on; its siblings there exist already."""
        born = turn if len(key) > 1 else None
        try:
            while completion := await episode.propose(
                seed=turn_seed(self.seed, key, turn), whole=not self.sampler.forks_after(turn)
            ):
                if turn != born:
                    for number in range(self.sampler.siblings(turn)):
                        twin = await episode.fork()
                        self.lines.append(twin)
                        self._run(self._line((*key, turn, number), twin, turn))
                if await episode.play(completion) is not None:
                    break
                turn += 1
        finally:
            await episode.close()
            self.keys.update(dict.fromkeys(episode.added, key))
