"""The household environment: find, clean, heat, cool and put things, in ALFWorld's words."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from agentrl.core.env import Demonstration
from agentrl.core.errors import RecipeError
from agentrl.core.types import Task

from ..games.base import Played, Tag, TextGame
from . import wording
from .commands import read_command
from .planner import explored, plan
from .tasks import GOAL_TYPES, from_data, made_tasks
from .world import GoalType, done, reached


class HouseholdEnv(TextGame):
    """A room full of receptacles and things, and something to be done with one or two of them.

    Observation: the room and the task, in the words of ALFWorld; then what each command did,
    `Nothing happens.` where that is nothing. With `admissible` the commands that do something are
    listed below it, as in GiGPO's prompts (arXiv:2505.10978).
    Action: `go to r`, `open r`, `close r`, `take o from r`, `put o in/on r` (or `move o to r`),
    `clean o with r`, `heat o with r`, `cool o with r`, `use o`, `examine o` or `r`, `look`,
    `inventory`; `think: ...` changes nothing. Letter case does not matter. A text that is none of
    these is not valid; one that does nothing here is.
    Reward: `success`, 1.0 when the goal holds, else 0.0. Metrics `success` and `success_<type>`,
    for the task's type.
    Ends: terminated when the goal holds; truncated after `max_turns` actions.
    Data: made by seed (`made_tasks`), six types as in ALFWorld: put one thing, look at one under a
    lamp, put a clean, hot or cool one, put two. `types` keeps some. No goal (type, thing and
    receptacle) of training is one of evaluation. The rooms are our own, not ALFRED's scenes.
    Gold: a planner that knows where everything is. Demonstrations look for things instead.
    """

    def __init__(
        self,
        *,
        types: Sequence[GoalType] | None = None,
        train_tasks: int = 384,
        eval_tasks: int = 96,
        admissible: bool = False,
        max_turns: int = 50,
        tag: Tag = "action",
        invalid_reward: float = 0.0,
    ) -> None:
        super().__init__(max_turns=max_turns, tag=tag, invalid_reward=invalid_reward)
        kept = GOAL_TYPES if types is None else tuple(dict.fromkeys(types))
        if not kept or min(train_tasks, eval_tasks) < 0:
            raise RecipeError(
                "household/tasks needs at least one of types and 0 or more tasks, got "
                f"types={types}, train_tasks={train_tasks}, eval_tasks={eval_tasks}"
            )
        self.types: tuple[GoalType, ...] = kept
        self.amounts = {"train": train_tasks, "eval": eval_tasks}
        self.admissible = admissible

    def tasks(self, split: str) -> Sequence[Task]:
        """The made tasks of `split`, types taking turns."""
        if split not in self.amounts:
            return ()
        made = made_tasks(split, self.amounts[split], self.types)
        return [Task(one.id, one.data()) for one in made]

    def begin(self, task: Task, *, seed: int) -> str:
        """The room and the task; the seed changes nothing."""
        made = from_data(task.id, task.data)
        self._goal = made.goal
        self._household = made.household
        self._shown = made.prompt()
        return self._with_commands(f"{self._shown}\n\n{self._how()}")

    def play(self, command: str) -> Played:
        """Carry out one command."""
        read = read_command(command)
        if read is None:
            return Played(self._with_commands(wording.NOTHING), valid=False)
        after = done(self._household, read)
        if after is None:
            return Played(self._with_commands(wording.NOTHING), {"success": 0.0})
        self._household = after.household
        won = reached(self._household, self._goal)
        text = after.text if won else self._with_commands(after.text)
        return Played(text, {"success": float(won)}, won)

    def state(self) -> str:
        """The room and the task, where everything is and what was done to it."""
        return f"{self._shown}\n{self._household.key()}"

    def metrics(self) -> Mapping[str, float]:
        """Success, also under the name of the task's type."""
        won = float(reached(self._household, self._goal))
        return {"success": won, f"success_{self._goal.type}": won}

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The planner's command of this turn."""
        made = from_data(task.id, task.data)
        commands = plan(made.household, made.goal)
        return self.written(str(commands[turn])) if turn < len(commands) else None

    def _demonstrated(self, task: Task, seed: int) -> Demonstration | None:
        """An episode of one who has to look for things; None where there are too few turns."""
        made = from_data(task.id, task.data)
        commands = explored(made.household, made.goal, random.Random(seed))
        actions = map(self.written, map(str, commands))
        return self._recorded(task, seed, lambda seen: next(actions, None))

    def _how(self) -> str:
        return (
            f"Give one command a turn, as in {self.written('go to ...')}. Commands: go to, open, "
            "close, take ... from ..., put ... in/on ..., clean ... with ..., heat ... with ..., "
            f"cool ... with ..., use, examine, look, inventory. You have {self.max_turns} turns."
        )

    def _with_commands(self, text: str) -> str:
        if not self.admissible:
            return text
        return f"{text}\n\nAdmissible commands: {', '.join(map(str, self._household.commands()))}"
