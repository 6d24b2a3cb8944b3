"""FrozenLake in text: cross the ice past the holes, on made maps or those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from agentrl.core.datasets import read_once
from agentrl.core.errors import RecipeError
from agentrl.core.types import Task

from .base import MoveGame, Tag
from .frozenlake_map import (
    ACTIONS,
    Cell,
    Lake,
    LakeRow,
    generated,
    moved,
    optimal_plan,
    read_maps,
    shortest_path,
    slipped,
    start_of,
)

Symbols: TypeAlias = Literal["letters", "ragen"]

_STATE = "State:\n"
# Start, frozen, hole, goal, player, player in a hole, player at the goal.
_OURS = "SFHGPX*"
_STYLES: Mapping[Symbols, str] = {"letters": _OURS, "ragen": "__OGPX√"}
_LEGENDS: Mapping[Symbols, str] = {
    "letters": "'P' you, 'S' start, 'F' ice, 'H' hole, 'G' goal",
    "ragen": "'P' you, '_' ice, 'O' hole, 'G' goal",
}


class FrozenLakeEnv(MoveGame):
    """Walk over a frozen lake to the goal; holes end the game, and slippery ice turns moves.

    Observation: the rules and the grid; then the grid after each action. `symbols`: `"letters"`
    (`P` you, `S F H G`) or `"ragen"` (`P _ O G`).
    Action: `Left`, `Down`, `Right` or `Up`; with `actions_per_turn` above 1 up to that many, as
    `Right || Down`. Letter case does not matter. A text with anything else moves nothing.
    Reward: `goal`, 1.0 at the goal, else 0.0. Metric `goal`.
    Ends: terminated at the goal or in a hole; truncated after `max_turns` actions.
    Data: maps of `size` x `size` cells, frozen with chance `p`, as Gymnasium's
    `generate_random_map` makes them, that can be crossed within the limit; or `maps` and
    `eval_maps`, files of rows with `map`.
    Dynamics: Gymnasium's `FrozenLake-v1`: with `slippery`, a move goes as meant with chance
    `success_rate`, else at right angles to it, either way alike. The same seed slips the same way
    as Gymnasium's environment reset with it; forks slip alike.
    Gold: a shortest way, from wherever the player stands, without `slippery`. On slippery ice no
    policy always arrives, so there are no gold actions; `best_action` is what is optimal there.
    """

    moves = ACTIONS

    def __init__(
        self,
        *,
        size: int = 4,
        p: float = 0.8,
        slippery: bool = False,
        success_rate: float = 1.0 / 3.0,
        train_tasks: int = 256,
        eval_tasks: int = 64,
        maps: str = "",
        eval_maps: str = "",
        actions_per_turn: int = 1,
        max_turns: int = 20,
        symbols: Symbols = "letters",
        tag: Tag = "answer",
        invalid_reward: float = 0.0,
    ) -> None:
        super().__init__(
            actions_per_turn=actions_per_turn,
            max_turns=max_turns,
            tag=tag,
            invalid_reward=invalid_reward,
        )
        if not 2 <= size <= 64 or not 0.0 < p <= 1.0 or not 0.0 <= success_rate <= 1.0:
            raise RecipeError(
                "games/frozenlake needs size 2 to 64, p above 0 up to 1 and success_rate 0 to 1, "
                f"got size={size}, p={p}, success_rate={success_rate}"
            )
        if min(train_tasks, eval_tasks) < 0:
            raise RecipeError(
                f"games/frozenlake cannot make {train_tasks} and {eval_tasks} maps: 0 or more"
            )
        if eval_maps and not maps:
            raise RecipeError("games/frozenlake: eval_maps is given without maps")
        self.size, self.p = size, p
        self.slippery, self.success_rate = slippery, success_rate
        self.amounts = {"train": train_tasks, "eval": eval_tasks}
        self.files = {"train": maps, "eval": eval_maps}
        self.symbols: Symbols = symbols
        self._drawn = str.maketrans(_OURS, _STYLES[symbols])
        self._read = str.maketrans(_STYLES[symbols], _OURS)

    def tasks(self, split: str) -> Sequence[Task]:
        """The maps of `split`.

        Raises:
            DataError: a file is missing or malformed, or too few maps can be made.
        """
        if split not in self.files:
            return ()
        if self.files["train"]:
            path = self.files[split]
            rows: Sequence[LakeRow] = _read(path) if path else ()
        else:
            most = self.max_turns * self.actions_per_turn
            rows = generated(split, self.amounts[split], self.size, self.p, most)
        return [Task(row.id, {"map": list(row.lake)}) for row in rows]

    def begin(self, task: Task, *, seed: int) -> str:
        """The rules and the grid; the seed decides how the ice turns moves."""
        self._lake: Lake = tuple(task.data["map"])
        self._cell = start_of(self._lake)
        self._steps = 0
        # Drawn at once and never changed, so that forks share them. As in Gymnasium, the first
        # draw is that of the start.
        draws = np.random.default_rng(seed).random(1 + self.max_turns * self.actions_per_turn)
        self._draws: tuple[float, ...] = tuple(draws[1:].tolist()) if self.slippery else ()
        ice = (
            "The ice is slippery: you often move at right angles to where you want to go.\n"
            if self.slippery
            else ""
        )
        return (
            "You are crossing a frozen lake: walk to the goal and do not step into a hole.\n"
            f"{ice}Symbols: {_LEGENDS[self.symbols]}.\nAct with {self.how()}.\n"
            f"You have {self.max_turns} turns.\n\n{self.shown()}"
        )

    def move(self, name: str) -> tuple[Mapping[str, float], bool]:
        """One step, slipped where the ice is slippery."""
        action = ACTIONS.index(name)
        if self.slippery:
            action = slipped(action, self._draws[self._steps], self.success_rate)
        self._cell = moved(self._lake, self._cell, action)
        self._steps += 1
        return {"goal": float(self._here == "G")}, self._here in "GH"

    def shown(self) -> str:
        """The grid in the symbols asked for."""
        ends = {"G": "\nYou are at the goal.", "H": "\nYou fell into a hole."}
        return f"{_STATE}{self.state().translate(self._drawn)}{ends.get(self._here, '')}"

    def state(self) -> str:
        """The grid with the player on it; how the ice will turn moves is no part of it."""
        row, column = self._cell
        marked = {"G": "*", "H": "X"}.get(self._here, "P")
        line = self._lake[row]
        line = f"{line[:column]}{marked}{line[column + 1 :]}"
        return "\n".join((*self._lake[:row], line, *self._lake[row + 1 :]))

    def metrics(self) -> Mapping[str, float]:
        """Whether the goal was reached, and how many moves were made."""
        return {"goal": float(self._here == "G"), "moves": float(self._steps)}

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The next moves of a shortest way from the start; None on slippery ice."""
        lake = tuple(task.data["map"])
        return None if self.slippery else self._along(lake, start_of(lake), turn)

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The next moves of a shortest way from where the player is; None on slippery ice."""
        lake = tuple(task.data["map"])
        cell = self._found(lake, seen)
        return None if self.slippery or cell is None else self._along(lake, cell, 0)

    def best_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The optimal action where the player was last seen, slippery or not.

        On slippery ice it has the best chance of reaching the goal (`optimal_plan`).
        """
        if not self.slippery:
            return self.expert_action(task, seen)
        lake = tuple(task.data["map"])
        cell = self._found(lake, seen)
        if cell is None:
            return None
        actions = optimal_plan(lake, self.success_rate).actions
        return self.written(ACTIONS[actions[cell]]) if cell in actions else None

    @property
    def _here(self) -> str:
        return self._lake[self._cell.row][self._cell.column]

    def _along(self, lake: Lake, cell: Cell, turn: int) -> str | None:
        path = shortest_path(lake, cell) or []
        return self.gold_chunk([ACTIONS[one] for one in path], turn)

    def _found(self, lake: Lake, seen: Sequence[str]) -> Cell | None:
        """Where the player stands in the last grid that was shown; None if not on ice."""
        for text in reversed(seen):
            _, mark, after = text.rpartition(_STATE)
            if mark:
                rows = after.translate(self._read).split("\n")[: len(lake)]
                # A chat template may write on behind the last row.
                cells = [line[: len(lake[0])] for line in rows]
                row = next((n for n, line in enumerate(cells) if "P" in line), None)
                return None if row is None else Cell(row, cells[row].index("P"))
        return None


_read = read_once(read_maps)
