"""Sokoban levels as sets of cells, written in XSB (`#` wall, `@` player, `$` box, `.` target)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from agentrl.core.datasets import Row, read_rows, shown
from agentrl.core.errors import DataError

MOVES = "UDLR"
"""The letters of a solution: up, down, left, right."""

_PLAYER, _BOX, _TARGET = "@+", "$*", ".+*"
_KNOWN = frozenset("# @$.+*")


class Position(NamedTuple):
    """Where things are: boxes as a set of cells (bits), the player's cell (a bit number)."""

    boxes: int
    player: int


class Moved(NamedTuple):
    """A move's outcome: the position after it and whether it pushed a box."""

    position: Position
    pushed: bool


@dataclass(frozen=True)
class Level:
    """What does not change in a level, and how it starts.

    A set of cells is a number, whose bit `(row + 1) * stride + column + 1` stands for the cell
    (row, column); so a border of walls surrounds the grid, and no step leaves it.
    """

    width: int
    height: int
    floor: int
    targets: int
    start: Position

    @property
    def stride(self) -> int:
        """Bits from a cell to the one below it."""
        return self.width + 2

    @cached_property
    def steps(self) -> dict[str, int]:
        """Letter of a move -> how far it takes a cell's number."""
        return {"U": -self.stride, "D": self.stride, "L": -1, "R": 1}

    def move(self, position: Position, letter: str) -> Moved:
        """One step; into a wall, or a box that cannot move, it changes nothing."""
        step = self.steps[letter]
        boxes, player = position
        to = player + step
        if not self.floor >> to & 1:
            return Moved(position, False)
        if not boxes >> to & 1:
            return Moved(Position(boxes, to), False)
        beyond = to + step
        if not (self.floor & ~boxes) >> beyond & 1:
            return Moved(position, False)
        return Moved(Position(boxes ^ (1 << to) ^ (1 << beyond), to), True)

    def solved(self, boxes: int) -> bool:
        """Whether every target holds a box."""
        return boxes & self.targets == self.targets

    @cached_property
    def _empty(self) -> bytes:
        """The level in XSB without player and boxes."""
        rows = (
            range(first, first + self.width)
            for first in range(self.stride + 1, self.stride * (self.height + 1), self.stride)
        )
        symbols = {(0, 0): "#", (1, 0): " ", (1, 1): "."}
        return "\n".join(
            "".join(symbols[self.floor >> cell & 1, self.targets >> cell & 1] for cell in row)
            for row in rows
        ).encode()

    def write(self, position: Position) -> str:
        """The level in XSB, lines joined by newlines."""
        text = bytearray(self._empty)
        boxes = position.boxes
        while boxes:
            cell = boxes.bit_length() - 1
            boxes ^= 1 << cell
            text[self._place(cell)] = ord("*" if self.targets >> cell & 1 else "$")
        cell = position.player
        text[self._place(cell)] = ord("+" if self.targets >> cell & 1 else "@")
        return text.decode()

    def _place(self, cell: int) -> int:
        """Where `cell` is written: a line is the row's width and a newline."""
        row, column = divmod(cell, self.stride)
        return (row - 1) * (self.width + 1) + column - 1


class LevelRow(NamedTuple):
    """A level of a file: its grid in XSB and, where the file has one, a solution (`UDLR`)."""

    id: str
    grid: str
    solution: str


@lru_cache(maxsize=4096)
def read_level(grid: str, place: str = "level") -> Level:
    """The level written as `grid` in XSB; lines shorter than the longest end in walls.

    Raises:
        DataError: an unknown symbol, not one player, or not as many boxes as targets.
    """
    lines = grid.split("\n")
    width, height = max(map(len, lines)), len(lines)
    floor = targets = boxes = 0
    players: list[int] = []
    for row, line in enumerate(lines):
        for column, symbol in enumerate(line):
            if symbol not in _KNOWN:
                raise DataError(
                    f"{place}: line {row + 1} of the grid has {symbol!r} in column {column + 1}; "
                    "XSB has # wall, space floor, @ player, $ box, . target, * box on target, "
                    "+ player on target"
                )
            bit = 1 << ((row + 1) * (width + 2) + column + 1)
            floor |= bit if symbol != "#" else 0
            targets |= bit if symbol in _TARGET else 0
            boxes |= bit if symbol in _BOX else 0
            players += [bit.bit_length() - 1] if symbol in _PLAYER else []
    if len(players) != 1 or boxes.bit_count() != targets.bit_count() or not boxes:
        raise DataError(
            f"{place}: a level has one player and as many boxes as targets, got {len(players)} "
            f"players, {boxes.bit_count()} boxes, {targets.bit_count()} targets"
        )
    return Level(width, height, floor, targets, Position(boxes, players[0]))


def read_levels(path: str) -> Sequence[LevelRow]:
    """The levels of a file: Boxoban's own text (`.txt`), or rows with `grid`.

    A row may have an `id`, and a `solution` in the letters U, D, L, R.

    Raises:
        DataError: naming file, line and what was found there.
    """
    found = list(_boxoban(Path(path)) if path.endswith(".txt") else _rows(path))
    if not found:
        raise DataError(f"{path}: there is no level in it")
    return found


def _rows(path: str) -> Iterator[LevelRow]:
    for number, row in enumerate(read_rows(path, name="level file")):
        grid = row.text("grid").strip("\n")
        _check(grid, row.place)
        id_ = row.id() if "id" in row.data else f"{Path(path).stem}-{number}"
        yield LevelRow(id_, grid, _solution(row))


def _check(grid: str, place: str) -> None:
    level = read_level(grid, place)
    if level.solved(level.start.boxes):
        raise DataError(f"{place}: every box of this level is on a target already")


def _solution(row: Row) -> str:
    if row.data.get("solution") is None:
        return ""
    solution = row.text("solution", empty=True)
    if set(solution) - set(MOVES):
        raise DataError(
            f"{row.place}: 'solution' must be made of {', '.join(MOVES)}, got {shown(solution)}"
        )
    return solution


def _boxoban(path: Path) -> Iterator[LevelRow]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the level file cannot be read: {error}") from error
    name, first, lines = "", 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ";"], start=1):
        if not line.startswith(";"):
            if line.strip():
                lines.append(line)
                first = first or number
            continue
        if lines:
            grid = "\n".join(lines)
            _check(grid, f"{path}:{first}")
            yield LevelRow(f"{path.stem}#{name}", grid, "")
        name, first, lines = line[1:].strip(), 0, []
