"""Sokoban in text: push every box onto a target, on made levels or those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

from agentrl.core.datasets import read_once
from agentrl.core.errors import RecipeError
from agentrl.core.types import Task

from .base import MoveGame, Tag
from .sokoban_level import Level, read_level, read_levels
from .sokoban_levels import made_levels
from .sokoban_solver import is_dead, solve

Symbols: TypeAlias = Literal["ragen", "xsb"]
RewardStyle: TypeAlias = Literal["dense", "binary"]

_STATE = "State:\n"
_WORDS = {"U": "Up", "D": "Down", "L": "Left", "R": "Right"}
# XSB's wall, floor, target, box, box on target, player and player on target, in this order.
_XSB = "# .$*@+"
_STYLES: Mapping[Symbols, str] = {"xsb": _XSB, "ragen": "#_OX√PS"}
_MEANINGS = (
    "wall",
    "floor",
    "target",
    "box",
    "box on a target",
    "you",
    "you on a target",
)
_STEP, _ON, _OFF, _SOLVED = -0.1, 1.0, -1.0, 10.0


class SokobanEnv(MoveGame):
    """Push every box onto a target; boxes cannot be pulled, and only one at a time moves.

    Observation: the rules and the grid; then the grid after each action. `symbols` says how it is
    drawn: `"ragen"` as in RAGEN (`# _ O X √ P S`), `"xsb"` as Sokoban files are.
    Action: `Up`, `Down`, `Left` or `Right`; with `actions_per_turn` above 1 up to that many, as
    `Up || Left`. Letter case does not matter. A text with anything else moves nothing.
    Reward: `"dense"`: components `step` -0.1 for each move, also one against a wall, `on_target` +1
    for a box pushed onto a target, `off_target` -1 for one pushed off, `solved` +10; as in
    gym-sokoban. `"binary"`: `solved` 1.0 at the end. Metric `solved`.
    Ends: terminated when every target holds a box, or, with `end_on_deadlock`, when the boxes
    provably cannot get there any more (see `is_dead`); truncated after `max_turns` actions or
    `max_moves` moves.
    Data: levels made by reverse play (`made_levels`): `size` x `size` cells with `boxes` boxes,
    walls included, each solved by the gold actions within the limits. Or `levels` and
    `eval_levels`: files of levels, as rows with `grid` in XSB and optionally `solution`, or
    Boxoban's text files (Apache-2.0, github.com/google-deepmind/boxoban-levels).
    Gold: the row's solution, else one with the fewest pushes, searched among at most
    `solver_states` positions; a level without either has no gold actions. Off its way the expert
    searches from the grid it is shown.
    """

    moves = tuple(_WORDS.values())

    def __init__(
        self,
        *,
        size: int = 6,
        boxes: int = 1,
        train_tasks: int = 256,
        eval_tasks: int = 64,
        levels: str = "",
        eval_levels: str = "",
        actions_per_turn: int = 1,
        max_turns: int = 20,
        max_moves: int | None = None,
        reward: RewardStyle = "dense",
        end_on_deadlock: bool = False,
        symbols: Symbols = "ragen",
        solver_states: int = 50_000,
        tag: Tag = "answer",
        invalid_reward: float = 0.0,
    ) -> None:
        super().__init__(
            actions_per_turn=actions_per_turn,
            max_turns=max_turns,
            tag=tag,
            invalid_reward=invalid_reward,
        )
        _check(size, boxes, max_moves)
        if min(train_tasks, eval_tasks) < 0:
            raise RecipeError(
                f"games/sokoban cannot make {train_tasks} and {eval_tasks} levels: 0 or more"
            )
        if eval_levels and not levels:
            raise RecipeError("games/sokoban: eval_levels is given without levels")
        self.size, self.boxes = size, boxes
        self.amounts = {"train": train_tasks, "eval": eval_tasks}
        self.files = {"train": levels, "eval": eval_levels}
        self.max_moves = max_moves
        self.reward: RewardStyle = reward
        self.end_on_deadlock = end_on_deadlock
        self.solver_states = solver_states
        self._drawn = str.maketrans(_XSB, _STYLES[symbols])
        self._read = str.maketrans(_STYLES[symbols], _XSB)
        self._legend = ", ".join(
            f"{symbol!r} {meaning}"
            for symbol, meaning in zip(_STYLES[symbols], _MEANINGS, strict=True)
        )

    @property
    def _most_moves(self) -> int:
        moves = self.max_turns * self.actions_per_turn
        return moves if self.max_moves is None else min(moves, self.max_moves)

    def tasks(self, split: str) -> Sequence[Task]:
        """The levels of `split`; made ones are made when first asked for.

        Raises:
            DataError: a file is missing or malformed, or too few levels can be made.
        """
        if split not in self.files:
            return ()
        if self.files["train"]:
            path = self.files[split]
            return [_task(row.id, row.grid, row.solution) for row in _read(path)] if path else ()
        amount = self.amounts[split]
        made = made_levels(split, amount, self.size, self.boxes, self._most_moves)
        name = f"{self.size}x{self.boxes}"
        return [_task(f"{split}-{name}-{one.number}", one.grid, one.solution) for one in made]

    def begin(self, task: Task, *, seed: int) -> str:
        """The rules and the grid; the seed changes nothing."""
        self._level: Level = read_level(task.data["grid"], f"task {task.id!r}")
        self._position = self._level.start
        self._steps = 0
        self._lost = False
        limit = "" if self.max_moves is None else f" and {self.max_moves} moves"
        return (
            "You are solving a Sokoban puzzle: push every box onto a target. You move one cell at "
            "a time and push the box in front of you, if the cell behind it is free. Boxes cannot "
            f"be pulled.\nSymbols: {self._legend}.\nAct with {self.how()}.\n"
            f"You have {self.max_turns} turns{limit}.\n\n{self.shown()}"
        )

    def move(self, name: str) -> tuple[Mapping[str, float], bool]:
        """One step, which pushes the box in front of the player where it can."""
        before, moved = self._position.boxes, self._level.move(self._position, name[0])
        self._position = moved.position
        self._steps += 1
        solved = self._level.solved(moved.position.boxes)
        lost = self.end_on_deadlock and moved.pushed and not solved
        self._lost = lost and is_dead(self._level, moved.position.boxes)
        return self._earned(before, solved=solved), solved or self._lost

    def shown(self) -> str:
        """The grid in the symbols asked for."""
        end = ""
        if self._level.solved(self._position.boxes):
            end = "\nSolved: every target holds a box."
        elif self._lost:
            end = "\nLost: the boxes cannot all reach targets any more."
        return f"{_STATE}{self.state().translate(self._drawn)}{end}"

    def state(self) -> str:
        """The grid in XSB."""
        return self._level.write(self._position)

    def metrics(self) -> Mapping[str, float]:
        """Whether it was solved, and how many moves were made."""
        solved = self._level.solved(self._position.boxes)
        return {"solved": float(solved), "moves": float(self._steps)}

    def out_of_time(self) -> bool:
        """Whether `max_moves` moves were made."""
        return self.max_moves is not None and self._steps >= self.max_moves

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The next moves of the level's solution, or None where there is none."""
        letters = task.data["solution"] or self._solved(task.data["grid"])
        return self.gold_chunk([_WORDS[one] for one in letters], turn)

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The next moves of a solution from the grid that was shown last, or None.

        On the way of the row's solution it goes on with it; off it, it searches anew.
        """
        grid = self._shown_last(task, seen)
        if grid is None:
            return None
        ahead = _ahead(task.data["grid"], task.data["solution"])
        letters = ahead.get(grid) or self._solved(grid)
        return self.gold_chunk([_WORDS[one] for one in letters], 0)

    def _solved(self, grid: str) -> str:
        return solve(read_level(grid), max_states=self.solver_states).moves or ""

    def _shown_last(self, task: Task, seen: Sequence[str]) -> str | None:
        """The last grid in `seen`, in XSB."""
        level = read_level(task.data["grid"])
        for text in reversed(seen):
            _, mark, after = text.rpartition(_STATE)
            if mark:
                # A chat template may write on behind the grid, or trim it.
                rows = after.split("\n")[: level.height]
                cells = (row[: level.width].ljust(level.width) for row in rows)
                return "\n".join(cells).translate(self._read)
        return None

    def _earned(self, before: int, *, solved: bool) -> Mapping[str, float]:
        if self.reward == "binary":
            return {"solved": 1.0} if solved else {}
        targets = self._level.targets
        change = (self._position.boxes & targets).bit_count() - (before & targets).bit_count()
        found = {"step": _STEP}
        if change:
            found |= {"on_target": _ON} if change > 0 else {"off_target": _OFF}
        return found | {"solved": _SOLVED} if solved else found


def _check(size: int, boxes: int, max_moves: int | None) -> None:
    if not 5 <= size <= 32 or not 1 <= boxes <= (size - 2) ** 2 // 6:
        raise RecipeError(
            "games/sokoban makes levels with size 5 to 32 and one box, or more up to a sixth of "
            f"the inner cells, got size={size}, boxes={boxes}"
        )
    if max_moves is not None and max_moves < 1:
        raise RecipeError(f"games/sokoban needs max_moves >= 1, got {max_moves}")


def _task(id_: str, grid: str, solution: str) -> Task:
    return Task(id_, {"grid": grid, "solution": solution})


_read = read_once(read_levels)


@lru_cache(maxsize=256)
def _ahead(grid: str, solution: str) -> Mapping[str, str]:
    """Each grid on the way of `solution` -> the moves that are left there."""
    level = read_level(grid)
    position, found = level.start, {}
    for number, letter in enumerate(solution):
        found[level.write(position)] = solution[number:]
        position = level.move(position, letter).position
    return found
