"""A tree that grows from the nodes it has: forks are parked where a turn may be sampled again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from agentrl.core.types import ROOT, TrajectoryTree
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import Episode
from agentrl.samplers.lines import LineKey, close_all, in_order, turn_seed

TurnName: TypeAlias = tuple[LineKey, int]
"""(line, turn): which proposal of a task it is, whoever finishes first."""


class Growth:
    """One tree: the names of its turns, and a fork parked at each node that a line went on from.

    An environment that forks by copying holds as many copies as there are parked forks; one that
    replays holds none. `close` ends the tree's work, however it went.
    """

    def __init__(self, episode: Episode, *, seed: int) -> None:
        self.tree = episode.tree
        self.seed = seed
        self.lines = [episode]
        self.names: dict[int, TurnName] = {}  # of each node whose line has ended
        self.parked: dict[int, Episode] = {}  # by node; its children are sampled from there

    async def line(self, key: LineKey, episode: Episode, turn: int, *, parks: bool) -> None:
        """Play a line to its end from `turn` on.

        With `parks` a fork stays behind at each node that it goes on from and that has none.
        """
        first = turn
        try:
            while episode.stop_reason is None:
                node = episode.node
                parked = parks and await self.park(episode)
                completion = await episode.propose(seed=turn_seed(self.seed, key, turn))
                if completion is None:
                    if parked:  # the node turned out to be a leaf
                        await self.parked.pop(node).close()
                    break
                if await episode.play(completion) is not None:
                    break
                turn += 1
        finally:
            await episode.close()
            self.names.update(
                (node, (key, first + number)) for number, node in enumerate(episode.added)
            )

    async def extend(self, nodes: Sequence[int], *, root: LineKey, first: int, last: bool) -> None:
        """Play a line to its end from each of `nodes`, all of which have a parked fork.

        They are numbered from `first` on, which makes their names; `root` is the name of the line
        that stands for the prompt. With `last` nothing stays parked.
        """
        for node in nodes:
            self.lines.append(await self.parked[node].fork())
        if last:
            await self.free()
        works = []
        for number, node in enumerate(nodes):
            key, turn = self._after(node, root)
            line = self.lines[len(self.lines) - len(nodes) + number]
            works.append(self.line((*key, turn, first + number), line, turn, parks=not last))
        await all_of(works)

    async def park(self, episode: Episode) -> bool:
        """Leave a fork of `episode` at its node; whether it is the one that stays there."""
        node = episode.node
        if node in self.parked:
            return False
        twin = await episode.fork()
        # An environment that could not be copied; or another line was here in the meantime.
        if twin.stop_reason is not None or node in self.parked:
            await twin.close()
            return False
        self.parked[node] = twin
        return True

    def inner(self) -> list[int]:
        """Nodes with a parked fork: the root first, then by the names of their turns."""
        return sorted(self.parked, key=lambda node: ((), 0) if node == ROOT else self.names[node])

    async def free(self) -> None:
        """Close all parked forks."""
        forks = list(self.parked.values())
        self.parked.clear()
        await close_all(forks)

    async def close(self) -> None:
        """Close everything, lines that were never played included."""
        await close_all([*self.parked.values(), *self.lines])

    def ordered(self) -> TrajectoryTree:
        """The tree, numbered by who continued whom."""
        return in_order(self.tree, {node: key for node, (key, _) in self.names.items()})

    def _after(self, node: int, root: LineKey) -> TurnName:
        if node == ROOT:
            return root, 0
        key, turn = self.names[node]
        return key, turn + 1
