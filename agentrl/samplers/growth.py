"""A tree that grows from the nodes it has: forks are parked where a turn may be sampled again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from agentrl.core.types import ROOT, TrajectoryTree
from agentrl.rollout.deadline import all_of
from agentrl.rollout.player import Episode
from agentrl.rollout.segments import split_turn
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
        names = [self._after(node, root) for node in nodes]
        await self._grow(names, first=first, last=last)

    async def resample(self, nodes: Sequence[int], *, first: int, last: bool) -> None:
        """As `extend`, from each of `nodes` that `split` returned: the rest of their turns anew."""
        for node in nodes:
            state, segments = self._state(node)
            assert state is not None
            line = await state.fork()
            self.lines.append(line)
            for segment in segments:
                line.follow(segment)
        await self._grow([self.names[node] for node in nodes], first=first, last=last)

    def split(self, forks: Sequence[tuple[int, int]]) -> list[int]:
        """The nodes (node, at) split before their tokens `at`; the nodes of the tokens before them.

        A node keeps its number as the last part of its turn, which is what a child, a leaf and a
        parked fork are after. Until `ordered`, a parent may have the larger number.
        """
        before: dict[tuple[int, int], int] = {}
        tree = self.tree
        for node, at in sorted(forks, key=lambda fork: (fork[0], -fork[1])):
            # Of a node that is split at several tokens the later parts are cut off first.
            later = [one for one in before if one[0] == node]
            head = before[later[-1]] if later else node
            first, tree.turns[head] = split_turn(tree.turns[head], at)
            tree.turns.append(first)
            tree.parents.append(tree.parents[head])
            before[node, at] = tree.parents[head] = len(tree.turns) - 1
            self.names[before[node, at]] = self.names[node]
        return [before[node, at] for node, at in forks]

    def sampled(self) -> list[int]:
        """Nodes that can be sampled again, by their names; none that failed."""
        found = [
            node
            for node in self.names
            if not self._failed(node) and self._state(node)[0] is not None
        ]
        return sorted(found, key=lambda node: (self.names[node], len(self.tree.path(node))))

    def _failed(self, node: int) -> bool:
        reason = self.tree.leaves.get(node)
        return reason is not None and reason.is_failure

    def _state(self, node: int) -> tuple[Episode | None, list[int]]:
        """The parked fork from which `node` was sampled, and the segments between the two.

        The last of these is `node` itself where its action goes on.
        """
        tree, segments = self.tree, [node] if self.tree.turns[node].goes_on else []
        above = tree.parents[node]
        while above not in self.parked and above != ROOT and tree.turns[above].goes_on:
            segments.append(above)
            above = tree.parents[above]
        return self.parked.get(above), segments[::-1]

    async def _grow(self, names: Sequence[TurnName], *, first: int, last: bool) -> None:
        """Play the newest lines, one for each of `names` of the turns that they start with."""
        if last:
            await self.free()
        lines = self.lines[len(self.lines) - len(names) :]
        await all_of(
            self.line((*key, turn, first + number), line, turn, parks=not last)
            for number, (line, (key, turn)) in enumerate(zip(lines, names, strict=True))
        )

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
