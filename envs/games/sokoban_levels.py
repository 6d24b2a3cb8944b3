"""Sokoban levels made by playing in reverse: solvable by construction, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from agentrl.core.errors import DataError

from .base import chosen_split
from .sokoban_level import Level, Position, read_level
from .sokoban_solver import pushes_needed, solve

_ATTEMPTS = 2000
_FLOOR_SHARE = 0.75
_SOLVER_STATES = 20_000


class Made(NamedTuple):
    """A made level: its number among the seeds, its grid in XSB and a solution."""

    number: int
    grid: str
    solution: str


@lru_cache(maxsize=32)
def made_levels(split: str, amount: int, size: int, boxes: int, max_moves: int) -> tuple[Made, ...]:
    """The first `amount` different levels of `split` whose solution has at most `max_moves` moves.

    A level's split is decided by its grid, so that no level is in both.

    Raises:
        DataError: too few such levels turn up.
    """
    found: dict[str, Made] = {}
    number = 0
    while len(found) < amount:
        if number > _ATTEMPTS + 100 * amount:
            raise DataError(
                f"only {len(found)} of {amount} Sokoban levels of size {size} with {boxes} boxes "
                f"and at most {max_moves} moves turned up: allow more turns or ask for fewer levels"
            )
        grid = make_level(number, size=size, boxes=boxes)
        if grid and chosen_split(grid) == split and grid not in found:
            solved = solve(read_level(grid), max_states=_SOLVER_STATES)
            if solved.moves is not None and len(solved.moves) <= max_moves:
                found[grid] = Made(number, grid, solved.moves)
        number += 1
    return tuple(found.values())


def make_level(seed: int, *, size: int, boxes: int) -> str:
    """A level of `size` x `size` cells, walls included, in XSB; "" where this seed gives none.

    Rooms of floor are drawn, boxes are put on targets and pulled away at random, so that pushing
    them back solves the level. No box starts on a target.
    """
    rng = random.Random(f"sokoban/{size}/{boxes}/{seed}")
    room = _room(rng, size)
    if len(room) < 3 * boxes + 1:
        return ""
    targets = rng.sample(sorted(room), boxes)
    rows = [
        "".join(
            "#" if (row, column) not in room else "*" if (row, column) in targets else " "
            for column in range(size)
        )
        for row in range(size)
    ]
    player = rng.choice(sorted(room - set(targets)))
    line = rows[player[0]]
    rows[player[0]] = f"{line[: player[1]]}@{line[player[1] + 1 :]}"
    level = read_level("\n".join(rows))
    position = _pulled(level, rng, pulls=rng.randint(2, 4 * size) * boxes)
    return "" if position.boxes & level.targets else level.write(position)


def _room(rng: random.Random, size: int) -> set[tuple[int, int]]:
    """The largest connected patch of floor of a random interior."""
    inside = range(1, size - 1)
    left = {(row, column) for row in inside for column in inside if rng.random() < _FLOOR_SHARE}
    largest: set[tuple[int, int]] = set()
    while left:
        patch: set[tuple[int, int]] = set()
        edge = [min(left)]
        while edge:
            cell = edge.pop()
            if cell in left:
                left.remove(cell)
                patch.add(cell)
                row, column = cell
                edge += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        largest = max(largest, patch, key=len)
    return largest


def _pulled(level: Level, rng: random.Random, *, pulls: int) -> Position:
    """Of the positions after random walks and pulls, the first that is farthest from solved."""
    position = furthest = level.start
    far = 0
    for _ in range(pulls):
        choices = list(_pulls(level, position))
        if not choices:
            break
        position = rng.choice(choices)
        away = pushes_needed(level, position.boxes)
        if away > far and not position.boxes & level.targets:
            furthest, far = position, away
    walks = [furthest.player]
    for cell in walks:
        free = level.floor & ~furthest.boxes
        steps = level.steps.values()
        walks += [cell + by for by in steps if free >> cell + by & 1 and cell + by not in walks]
    return Position(furthest.boxes, rng.choice(sorted(walks)))


def _pulls(level: Level, position: Position) -> Iterator[Position]:
    """The positions after one pull, from wherever the player can walk to."""
    boxes = position.boxes
    free = level.floor & ~boxes
    reached, edge = {position.player}, [position.player]
    while edge:
        cell = edge.pop()
        for step in level.steps.values():
            if boxes >> cell + step & 1 and free >> cell - step & 1:
                moved = boxes ^ (1 << cell + step) ^ (1 << cell)
                yield Position(moved, cell - step)
            if free >> cell + step & 1 and cell + step not in reached:
                reached.add(cell + step)
                edge.append(cell + step)
