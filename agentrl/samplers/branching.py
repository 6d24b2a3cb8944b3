"""Lines of one task that ask an arbiter for branches while they are played."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass

from agentrl.core.types import Task, TrajectoryTree
from agentrl.rollout.player import Episode, StartEpisode
from agentrl.samplers.arbiter import Arbiter
from agentrl.samplers.lines import LineKey, close_all, in_order


@dataclass(slots=True)
class Line:
    """A trajectory in the making.

    `tree` is the number of its tree, `turn` that of the turn it plays next, `born` the turn that
    a branch started at, and `streak` how many turns in a row asked for branches.
    """

    key: LineKey
    tree: int
    episode: Episode
    turn: int = 0
    born: int | None = None
    streak: int = 0


class Branching(ABC):
    """The lines of one task. A line never waits; a branch waits for its verdict (`Arbiter`)."""

    def __init__(self, task: Task, start: StartEpisode, seed: int) -> None:
        self.task, self.start, self.seed = task, start, seed
        self.arbiter: Arbiter | None = None
        self._held: list[tuple[LineKey, int, Sequence[Line]]] = []  # reports before there is one
        self._over: list[LineKey] = []  # lines that ended before
        self._trees: dict[int, TrajectoryTree] = {}
        self._keys: dict[int, dict[int, LineKey]] = {}  # by tree, the line of each node
        self._tasks: set[asyncio.Task[None]] = set()
        self._episodes: list[Episode] = []

    @abstractmethod
    async def advance(self, line: Line) -> None:
        """Play `line` to its end and `report` each turn at which it could have branched."""

    async def begin(self, key: LineKey, tree: int) -> None:
        """Start a tree and play its first line."""
        episode = await self.start(self.task, self.seed)
        self._episodes.append(episode)
        self._trees[tree], self._keys[tree] = episode.tree, {}
        await self.play(Line(key, tree, episode))

    async def play(self, line: Line) -> None:
        """Play `line` to its end and close it."""
        try:
            await self.advance(line)
        finally:
            await line.episode.close()
            self._keys[line.tree].update(dict.fromkeys(line.episode.added, line.key))
            if self.arbiter is None:
                self._over.append(line.key)
            else:
                self.arbiter.ended(line.key)

    def open(self, *, budget: int, branch_factor: int, lines: Iterable[LineKey]) -> None:
        """Hand out `budget` branches from now on; what was reported before is decided first."""
        self.arbiter = Arbiter(budget=budget, branch_factor=branch_factor, lines=list(lines))
        for key, turn, branches in self._held:
            self.report(key, turn, branches)
        for key in self._over:
            self.arbiter.ended(key)
        self._held, self._over = [], []

    async def fork(self, line: Line, keys: Sequence[LineKey], *, turn: int) -> list[Line]:
        """Branches of `line` named `keys`, from where it stands, whose next turn is `turn`."""
        branches = []
        for key in keys:
            twin = await line.episode.fork()
            self._episodes.append(twin)
            branches.append(Line(key, line.tree, twin, turn, born=turn, streak=line.streak))
        return branches

    def report(self, key: LineKey, turn: int, branches: Sequence[Line] = ()) -> None:
        """Line `key` asks for `branches` at `turn`, or for nothing."""
        if self.arbiter is None:
            self._held.append((key, turn, branches))
        elif not branches:
            self.arbiter.passed(key, turn)
        else:
            self.arbiter.wanted(key, turn, [branch.key for branch in branches])
            for branch in branches:
                self.spawn(self._branch(branch))

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Do `work` beside the lines that are played already."""
        self._tasks.add(asyncio.ensure_future(work))

    async def finish(self) -> None:
        """Wait until all lines have ended; the first error is raised."""
        while self._tasks:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            self._tasks -= done
            for task in done:
                task.result()

    async def close(self) -> None:
        """End whatever is still played."""
        await close_all(self._episodes, players=self._tasks)

    def trees(self) -> list[TrajectoryTree]:
        """The trees by number, their nodes in an order that does not tell who was faster."""
        return [in_order(self._trees[tree], self._keys[tree]) for tree in sorted(self._trees)]

    async def _branch(self, branch: Line) -> None:
        """Wait for the arbiter's word, then play the branch or drop it."""
        assert self.arbiter is not None
        granted = False
        try:
            granted = await self.arbiter.verdict(branch.key)
        finally:
            if not granted:
                await branch.episode.close()
        if granted:
            await self.play(branch)
