"""Frozen lakes: Gymnasium's map generator and dynamics, shortest paths and optimal policies."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np

from agentrl.core.datasets import read_rows
from agentrl.core.errors import DataError

from .base import chosen_split

Lake: TypeAlias = tuple[str, ...]

ACTIONS = ("Left", "Down", "Right", "Up")
"""Actions in Gymnasium's order; the one before and the one after are at right angles."""

_OFFSETS = ((0, -1), (1, 0), (0, 1), (-1, 0))
_SWEEPS = 10_000


class Cell(NamedTuple):
    """A place on the lake: row and column from the top left corner, from 0."""

    row: int
    column: int


class LakeRow(NamedTuple):
    """A lake of a file or of the generator."""

    id: str
    lake: Lake


def generate_map(size: int, p: float, seed: int) -> Lake:
    """The map that Gymnasium's `generate_random_map(size, p, seed)` gives.

    Each cell is frozen (F) with chance `p`, otherwise a hole (H); S is top left, G bottom right.
    Maps without a way from S to G are drawn again.
    """
    # Gymnasium's np_random(seed) is this generator.
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    p = min(1.0, p)
    while True:
        board = rng.choice(["F", "H"], (size, size), p=[p, 1 - p])
        board[0, 0], board[-1, -1] = "S", "G"
        lake = tuple("".join(row) for row in board.tolist())
        if shortest_path(lake, Cell(0, 0)) is not None:
            return lake


@lru_cache(maxsize=32)
def generated(split: str, amount: int, size: int, p: float, max_moves: int) -> tuple[LakeRow, ...]:
    """The first `amount` different maps of `split`, by seed from 0; no map is in both splits.

    All have a way of at most `max_moves` moves.

    Raises:
        DataError: too few different maps turn up.
    """
    found: dict[Lake, LakeRow] = {}
    seed = 0
    while len(found) < amount:
        if seed > 1000 + 200 * amount:
            raise DataError(
                f"only {len(found)} of {amount} different {split} maps of size {size} with p={p:g} "
                f"and a way of at most {max_moves} moves turned up: ask for fewer, or for another "
                "size, another p or more turns"
            )
        lake = generate_map(size, p, seed)
        if lake not in found and chosen_split("\n".join(lake)) == split:
            path = shortest_path(lake, Cell(0, 0))
            if path is not None and len(path) <= max_moves:
                found[lake] = LakeRow(f"{split}-{size}-{seed}", lake)
        seed += 1
    return tuple(found.values())


def read_maps(path: str) -> list[LakeRow]:
    """The lakes of a file of rows with `map`, a list of texts over S, F, H, G, and maybe `id`.

    Raises:
        DataError: naming file, line and what was found there.
    """
    found = []
    for number, row in enumerate(read_rows(path, name="file of maps")):
        lake = row.texts("map")
        _check(lake, row.place)
        found.append(LakeRow(row.id() if "id" in row.data else f"map-{number}", lake))
    if not found:
        raise DataError(f"{path}: there is no map in it")
    return found


def _check(lake: Lake, place: str) -> None:
    cells = "".join(lake)
    if not lake or {len(row) for row in lake} != {len(lake[0])} or set(cells) - set("SFHG"):
        raise DataError(
            f"{place}: 'map' must be rows of equal length made of S, F, H and G, got {list(lake)}"
        )
    if cells.count("S") != 1 or "G" not in cells:
        raise DataError(f"{place}: a map has one S and a G, got {list(lake)}")
    if shortest_path(lake, start_of(lake)) is None:
        raise DataError(f"{place}: no way leads from S to G in {list(lake)}")


def start_of(lake: Lake) -> Cell:
    """Where S is."""
    row = next(number for number, line in enumerate(lake) if "S" in line)
    return Cell(row, lake[row].index("S"))


def moved(lake: Lake, cell: Cell, action: int) -> Cell:
    """The cell after a move that does not slip; the edge holds."""
    down, right = _OFFSETS[action]
    row = min(max(cell.row + down, 0), len(lake) - 1)
    return Cell(row, min(max(cell.column + right, 0), len(lake[0]) - 1))


def slipped(action: int, draw: float, success_rate: float) -> int:
    """The action that a slippery lake makes of `action`, for a uniform `draw` from [0, 1).

    Gymnasium's order: turned one way, as meant, turned the other way, by cumulated chances.
    """
    turned = (1.0 - success_rate) / 2.0
    chances = np.cumsum([turned, success_rate, turned])
    return (action - 1 + int(np.argmax(chances > draw))) % 4


def shortest_path(lake: Lake, start: Cell) -> list[int] | None:
    """Actions along a shortest way to G past the holes, or None where there is none."""
    came: dict[Cell, tuple[Cell, int]] = {}
    queue, seen = deque([start]), {start}
    while queue:
        cell = queue.popleft()
        if lake[cell.row][cell.column] == "G":
            path: list[int] = []
            while cell != start:
                cell, action = came[cell]
                path.append(action)
            return path[::-1]
        if lake[cell.row][cell.column] == "H":
            continue
        for action in range(4):
            to = moved(lake, cell, action)
            if to not in seen:
                seen.add(to)
                came[to] = (cell, action)
                queue.append(to)
    return None


class Plan(NamedTuple):
    """What is best on a slippery lake: the action and the discounted chance of G, by cell."""

    actions: Mapping[Cell, int]
    values: Mapping[Cell, float]


@lru_cache(maxsize=1024)
def optimal_plan(lake: Lake, success_rate: float, *, discount: float = 0.999) -> Plan:
    """Value iteration: reaching G is worth 1, each move multiplies by `discount`.

    Equal actions: the first of `ACTIONS`. Without a discount, actions that lead nowhere would be
    equal to those that make way.
    """
    height, width = len(lake), len(lake[0])
    places = [Cell(row, column) for row in range(height) for column in range(width)]
    symbols = np.array([lake[row][column] for row, column in places])
    ends = np.array([[moved(lake, cell, action) for cell in places] for action in range(4)])
    ways = ends[..., 0] * width + ends[..., 1]  # (4, cells)
    goal, going = symbols == "G", (symbols != "G") & (symbols != "H")
    turned = (1.0 - success_rate) / 2.0
    values = goal.astype(np.float64)
    quality = np.zeros((4, len(places)))
    for _ in range(_SWEEPS):
        reached = values[ways]
        beside = np.roll(reached, 1, axis=0) + np.roll(reached, -1, axis=0)
        quality = discount * (success_rate * reached + turned * beside)
        better = np.where(going, quality.max(axis=0), goal)
        change = float(np.abs(better - values).max())
        values = better
        if change < 1e-12:
            break
    best = (quality >= quality.max(axis=0) - 1e-9).argmax(axis=0).tolist()
    chances = values.tolist()
    kept = [number for number in range(len(places)) if going[number]]
    return Plan(
        {places[number]: best[number] for number in kept},
        {places[number]: chances[number] for number in kept},
    )
