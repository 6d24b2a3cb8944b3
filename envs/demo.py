"""Tiny environments to try the framework with: a calculator, a number to guess, a door to open."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Message, Task


def add(terms: str) -> str:
    """Add two whole numbers, written as `12 + 30`."""
    left, right = terms.split("+")
    return str(int(left) + int(right))


class CalculatorEnv(ToolEnv):
    """A sum of three numbers with a tool that adds two.

    Observation: the question; then the tool's sums.
    Action: a call of `add`, or the answer.
    Reward: `correct`, 1.0 for the exact sum, else 0.0.
    Ends: terminated on an answer; truncated after `max_turns` actions.
    Data: sums of numbers below 50, drawn from a fixed seed; evaluation sums are other ones.
    """

    tools = (add,)

    def tasks(self, split: str) -> Sequence[Task]:
        """32 sums for training, 16 for evaluation."""
        if split not in ("train", "eval"):
            return []
        rng = random.Random(f"demo/calculator/{split}")
        return [
            Task(f"{split}-{n}", {"terms": [rng.randrange(split != "train", 50, 2) for _ in "abc"]})
            for n in range(32 if split == "train" else 16)
        ]

    def prompt(self, task: Task) -> str:
        """The question."""
        return "What is {} + {} + {}?".format(*task.data["terms"])

    def score(self, task: Task, answer: str | None) -> Mapping[str, float]:
        """Exact match with the sum."""
        return {"correct": float(answer == str(sum(task.data["terms"])))}

    def gold_action(self, task: Task, turn: int) -> str:
        """Add the first two, add the third, answer."""
        first, second, third = task.data["terms"]
        if turn < 2:
            terms = f"{first} + {second}" if turn == 0 else f"{first + second} + {third}"
            return self.call_format.call("add", {"terms": terms})
        return self.call_format.answer(str(first + second + third))


class GuessEnv(Env):
    """Guess a number from 1 to `highest` that the seed decides; the answers say higher or lower.

    Observation: the range, then "higher" or "lower", or that the guess was no number.
    Action: a number, nothing else.
    Reward: `found`, 1.0 for the right guess, else 0.0.
    Ends: terminated on the right guess; truncated after `max_turns` guesses.
    Data: one task per highest number; the secret is drawn from the episode's seed.
    """

    forkable = "replay"

    def __init__(self, *, highest: int = 100, max_turns: int = 7) -> None:
        self.highest = highest
        self.max_turns = max_turns
        self._secret: int | None = None
        self._turn = 0

    def tasks(self, split: str) -> Sequence[Task]:
        """One: the seed makes the difference."""
        return [Task(f"{split}-{self.highest}")] if split in ("train", "eval") else []

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Draw the secret from `seed`."""
        self._secret, self._turn = random.Random(seed).randint(1, self.highest), 0
        return (Message.of("user", f"Guess my number, from 1 to {self.highest}."),)

    async def step(self, action: str) -> StepResult:
        """One guess."""
        if self._secret is None:
            raise EnvError("GuessEnv.step was called before reset or after the end")
        self._turn += 1
        text = action.strip()
        guess = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
        found = guess == self._secret
        said = "not a number" if guess is None else "higher" if guess < self._secret else "lower"
        truncated = not found and self._turn >= self.max_turns
        if found or truncated:
            self._secret = None
        observation = () if found else (Message.of("user", said),)
        info = StepInfo(rewards={"found": float(found)})
        return StepResult(observation, float(found), found, truncated, info)


COLOURS = ("red", "green", "blue", "white")
DIRECTIONS = ("north", "south", "east", "west")


class DoorEnv(Env):
    """A door, a mat that hides the way, and the way: the least task where turns build on turns.

    There are `doors` of them, from 2 to 4, with as many mats and ways. Each door has one mat.
    Whoever lifts it is told which way to go; another mat tells nothing, and the way can only be
    guessed. With `needs_mat=False` every mat tells it, so that the second action alone decides.

    Observation: `door red`; then `go north`, or `go somewhere`.
    Action: a colour, then a direction; the first word counts.
    Reward: `opened`, 1.0 for the right direction, else 0.0.
    Ends: terminated on the second action.
    Data: a task for each door; the way is drawn from the episode's seed.
    """

    forkable = "copy"

    def __init__(self, *, needs_mat: bool = True, doors: int = 4) -> None:
        if not 2 <= doors <= len(COLOURS):
            raise RecipeError(f"doors must be from 2 to {len(COLOURS)}, got {doors}")
        self.needs_mat = needs_mat
        self.colours, self.ways = COLOURS[:doors], DIRECTIONS[:doors]
        self._door = ""
        self._way = ""
        self._lifted: str | None = None

    def tasks(self, split: str) -> Sequence[Task]:
        """The same doors in both splits."""
        if split not in ("train", "eval"):
            return []
        return [Task(f"{split}-{colour}", {"door": colour}) for colour in self.colours]

    @property
    def words(self) -> tuple[str, ...]:
        """All words of observations and actions."""
        return ("door", "go", "somewhere", *self.colours, *self.ways)

    def mat(self, door: str) -> str:
        """The colour of the mat that belongs to `door`: the next one in the list."""
        return self.colours[(self.colours.index(door) + 1) % len(self.colours)]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Show the door."""
        self._door, self._lifted = task.data["door"], None
        self._way = random.Random(seed).choice(self.ways)
        return (Message.of("user", f"door {self._door}"),)

    async def step(self, action: str) -> StepResult:
        """Lift a mat, then walk."""
        if not self._door:
            raise EnvError("DoorEnv.step was called before reset or after the end")
        said = (action.split() or [""])[0]
        if self._lifted is None:
            self._lifted = said
            told = not self.needs_mat or said == self.mat(self._door)
            clue = f"go {self._way if told else 'somewhere'}"
            info = StepInfo(rewards={"opened": 0.0}, state_key=f"{self._door}: {clue}")
            return StepResult((Message.of("user", clue),), 0.0, False, False, info)
        self._door = ""
        reward = float(said == self._way)
        return StepResult((), reward, True, False, StepInfo(rewards={"opened": reward}))

    async def fork(self) -> DoorEnv:
        """A copy at this turn."""
        return copy.copy(self)

    def expert_action(self, task: Task, seen: Sequence[str]) -> str:
        """Lift the right mat, go where it says."""
        if len(seen) == 1:
            return self.mat(task.data["door"])
        return next((way for way in self.ways if way in seen[-1]), self.ways[0])
