"""A Sokoban solver: A* over pushes, with dead squares, small deadlocks and matching distances."""

from __future__ import annotations

import heapq
from collections import deque
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from .sokoban_level import Level, Position

_FAR = 1 << 20
_MATCHED_BOXES = 7


class Solved(NamedTuple):
    """What a search found. `moves` is None where there is no solution or none was found.

    `pushes` is the fewest there are. `exhausted`: the whole space was searched, so that a level
    without `moves` has no solution; otherwise the bound stopped the search.
    """

    moves: str | None
    pushes: int
    states: int
    exhausted: bool


class _Push(NamedTuple):
    """How a state was reached: the state before it, the pushed box's old cell, the direction."""

    before: Position
    box: int
    letter: str


@lru_cache(maxsize=4096)
def solve(level: Level, *, max_states: int = 50_000) -> Solved:
    """A solution with the fewest pushes, walking the shortest way from push to push.

    Stops after `max_states` positions were looked at.
    """
    return _Search(level).run(max_states)


def is_dead(level: Level, boxes: int) -> bool:
    """Whether these boxes can be seen to never all reach targets.

    True for a box that no pushes at all could bring to a target, boxes that cannot all have a
    target of their own, and a square of four walls and boxes with a box off target. False says
    nothing: other deadlocks exist.
    """
    search = _searcher(level)
    return search.distance(boxes) >= _FAR or any(
        search.stuck(boxes, cell) for cell in _cells(boxes)
    )


def pushes_needed(level: Level, boxes: int) -> int:
    """A lower bound of the pushes that bring these boxes to targets: the cheapest pairing."""
    return _searcher(level).distance(boxes)


@lru_cache(maxsize=256)
def _searcher(level: Level) -> _Search:
    return _Search(level)


class _Search:
    """The tables of one level, and the search."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.walls = ~level.floor
        self.from_target = [_push_distances(level, cell) for cell in _cells(level.targets)]
        alive = 0
        for cell in _cells(level.floor):
            if any(cell in table for table in self.from_target):
                alive |= 1 << cell
        self.alive = alive
        down = level.stride
        self.squares = {
            cell: tuple(
                1 << cell | 1 << cell + across | 1 << cell + along | 1 << cell + across + along
                for across in (-1, 1)
                for along in (-down, down)
            )
            for cell in _cells(level.floor)
        }
        self._distances: dict[int, int] = {}

    def distance(self, boxes: int) -> int:
        """No more than the pushes that are still needed: the cheapest pairing with targets."""
        found = self._distances.get(boxes)
        if found is None:
            found = self._distances[boxes] = self._matched(_cells(boxes))
        return found

    def _matched(self, boxes: list[int]) -> int:
        tables = self.from_target
        if len(boxes) > _MATCHED_BOXES:
            return sum(min(table.get(cell, _FAR) for table in tables) for cell in boxes)
        best = {0: 0}
        for cell in boxes:
            further: dict[int, int] = {}
            for used, cost in best.items():
                for number, table in enumerate(tables):
                    bit = 1 << number
                    if used & bit or cell not in table:
                        continue
                    total = cost + table[cell]
                    if total < further.get(used | bit, _FAR):
                        further[used | bit] = total
            best = further
        return min(best.values(), default=_FAR)

    def stuck(self, boxes: int, cell: int) -> bool:
        """Whether the box on `cell` is in a square of walls and boxes, one of them off target."""
        filled, off = self.walls | boxes, boxes & ~self.level.targets
        return any(square & filled == square and square & off for square in self.squares[cell])

    def reach(self, boxes: int, player: int) -> int:
        """The cells that the player can walk to."""
        free, down = self.level.floor & ~boxes, self.level.stride
        reached, grown = 0, 1 << player
        while grown != reached:
            reached = grown
            grown |= (grown << 1 | grown >> 1 | grown << down | grown >> down) & free
        return reached

    def run(self, max_states: int) -> Solved:
        """Search from the level's start."""
        level, order = self.level, count()
        start = level.start
        bound = self.distance(start.boxes)
        if bound >= _FAR:
            return Solved(None, 0, 0, True)
        came: dict[Position, _Push | None] = {self._named(start): None}
        costs = {self._named(start): 0}
        # The best estimate first; among equals the one that is furthest on.
        queue = [(bound, 0, next(order), self._named(start))]
        states = 0
        while queue:
            _, negative, _, position = heapq.heappop(queue)
            cost = -negative
            if cost > costs[position]:
                continue
            if level.solved(position.boxes):
                return Solved(self._walked(came, position), cost, states, False)
            if states >= max_states:
                return Solved(None, 0, states, False)
            states += 1
            for push, after in self._pushes(position):
                if cost + 1 >= costs.get(after, _FAR):
                    continue
                ahead = self.distance(after.boxes)
                if ahead >= _FAR:
                    continue
                costs[after], came[after] = cost + 1, push
                heapq.heappush(queue, (cost + 1 + ahead, -cost - 1, next(order), after))
        return Solved(None, 0, states, True)

    def _named(self, position: Position) -> Position:
        """The same for all places that the player can walk between."""
        reached = self.reach(*position)
        return Position(position.boxes, (reached & -reached).bit_length() - 1)

    def _pushes(self, position: Position) -> list[tuple[_Push, Position]]:
        boxes = position.boxes
        reached = self.reach(boxes, position.player)
        open_cells = self.alive & ~boxes
        found = []
        for letter, step in self.level.steps.items():
            pushable = boxes & _shifted(reached, step) & _shifted(open_cells, -step)
            for box in _cells(pushable):
                to = box + step
                moved = boxes ^ (1 << box) ^ (1 << to)
                if not self.stuck(moved, to):
                    after = self._named(Position(moved, box))
                    found.append((_Push(position, box, letter), after))
        return found

    def _walked(self, came: dict[Position, _Push | None], last: Position) -> str:
        """The moves of the pushes that led to `last`."""
        pushes: list[_Push] = []
        push = came[last]
        while push is not None:
            pushes.append(push)
            push = came[push.before]
        moves, at = "", self.level.start.player
        for push in reversed(pushes):
            beside = push.box - self.level.steps[push.letter]
            moves += _walk(self.level, push.before.boxes, at, beside) + push.letter
            at = push.box
        return moves


def _walk(level: Level, boxes: int, start: int, end: int) -> str:
    """The shortest walk between two cells that are connected."""
    free = level.floor & ~boxes
    ways, queue = {start: ""}, deque([start])
    while end not in ways:
        cell = queue.popleft()
        for letter, step in level.steps.items():
            to = cell + step
            if free >> to & 1 and to not in ways:
                ways[to] = ways[cell] + letter
                queue.append(to)
    return ways[end]


def _push_distances(level: Level, target: int) -> dict[int, int]:
    """Fewest pushes from each cell to `target` for a lone box, wherever the player stands."""
    found, queue = {target: 0}, deque([target])
    while queue:
        cell = queue.popleft()
        for step in level.steps.values():
            before, player = cell - step, cell - 2 * step
            if before not in found and level.floor >> before & 1 and level.floor >> player & 1:
                found[before] = found[cell] + 1
                queue.append(before)
    return found


def _shifted(cells: int, step: int) -> int:
    return cells << step if step > 0 else cells >> -step


def _cells(cells: int) -> list[int]:
    """The numbers of the bits that are set, lowest first."""
    found = []
    while cells:
        lowest = cells & -cells
        found.append(lowest.bit_length() - 1)
        cells ^= lowest
    return found
