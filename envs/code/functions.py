"""Program synthesis: attempts at a problem, feedback from visible tests, hidden ones that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from agentrl.core.datasets import read_once
from agentrl.core.env import Env, Observation, StepInfo, StepResult, history_key
from agentrl.core.errors import DataError, EnvError, RecipeError
from agentrl.core.types import Message, Task
from agentrl.sandbox import AnySandbox, BubblewrapSettings, shared

from . import builtin
from .grading import Grader, Outcome
from .problems import Case, Problem, problem_of
from .rows import Layout, hidden_cases, read_problems
from .text import (
    NO_CODE,
    Visible,
    extract_code,
    feedback,
    question,
    visible_cases,
    whole_program,
)

_SANDBOX = BubblewrapSettings()


class FunctionsEnv(Env):
    """Write a Python function or a program; hidden tests decide.

    Observation: the problem and its visible tests; after an attempt that fails one of them, which
    ones, what they gave and the traceback, in about `max_feedback_chars` characters.
    Action: text whose last closed code block (```python, or in `<code>` tags) is the program;
    without any block the whole text is. HumanEval's prompts may also be continued.
    Reward: `hidden`, once, for the last attempt: 1.0 where it passes all hidden tests, else 0.0
    (`score="fraction"`: the share that it passes). Running out of time, memory or output is 0.0;
    a failure of the sandbox is an `EnvError`.
    Ends: terminated by an attempt that passes the visible tests, or that is the last of
    `max_turns`; truncated where the last action holds no code.
    Data: `train` and `eval` are files or hub data sets in the layouts of `rows`; with neither, 28
    problems of our own. What is visible is said by `visible`: `"examples"` (the examples of
    HumanEval's docstring, MBPP's first assert, LiveCodeBench's public tests, the `visible` of plain
    rows), `"none"`, or `"all"`, which shows all tests of MBPP and of plain rows.

    Each run has `seconds` of CPU time, and all runs of an attempt have `attempt_seconds` of wall
    time, which should stay below the deadline of a step. See `grading` for how verdicts are kept
    out of a program's reach. Forks by copying: an attempt leaves nothing behind.
    """

    forkable = "copy"

    def __init__(
        self,
        *,
        train: str = "",
        eval: str = "",
        layout: Layout = "auto",
        visible: Visible = "examples",
        max_turns: int = 3,
        score: Literal["all", "fraction"] = "all",
        seconds: float = 5.0,
        attempt_seconds: float = 30.0,
        max_feedback_chars: int = 2000,
        sandbox: AnySandbox = _SANDBOX,
    ) -> None:
        if max_turns < 1 or min(seconds, attempt_seconds) <= 0 or max_feedback_chars < 200:
            raise RecipeError(
                "code/functions needs max_turns >= 1, seconds and attempt_seconds > 0 and "
                f"max_feedback_chars >= 200, got {max_turns}, {seconds:g}, {attempt_seconds:g} and "
                f"{max_feedback_chars}"
            )
        self.files = {"train": train, "eval": eval}
        self.layout: Layout = layout
        self.visible: Visible = visible
        self.max_turns = max_turns
        self.score = score
        self.seconds = seconds
        self.attempt_seconds = attempt_seconds
        self.max_feedback_chars = max_feedback_chars
        self.sandbox = sandbox
        self._task: Task | None = None
        self._turn = 0
        self._state_key = ""

    def tasks(self, split: str) -> Sequence[Task]:
        """One task for each problem of the split.

        Raises:
            DataError: a file is missing, or a row of it is malformed.
        """
        return [Task(one.id, one.data()) for one in self._problems(split)]

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The known solution, in every turn; None where there is none."""
        solution = str(task.data["solution"]).strip("\r\n")
        return f"```python\n{solution}\n```" if solution and turn < self.max_turns else None

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Ask."""
        problem = problem_of(task.data)
        asked = question(problem, visible_cases(problem, self.visible))
        self._task, self._turn = task, 0
        self._state_key = history_key(task.id, asked)
        return (Message.of("user", asked),)

    async def step(self, action: str) -> StepResult:
        """Try the program of `action` on the visible tests, and on the hidden ones at the end."""
        if self._task is None:
            raise EnvError("FunctionsEnv.step was called before reset or after the end")
        problem = problem_of(self._task.data)
        code = extract_code(action)
        left = self.max_turns - self._turn - 1
        if code is None:
            text = f"{NO_CODE}\n\nAttempts left: {left}."
            return self._result(action, text, malformed=1, truncated=left == 0)
        program = whole_program(problem, code)
        grader = Grader(
            shared(self.sandbox), self.sandbox.limits, self.seconds, self.attempt_seconds
        )
        cases = visible_cases(problem, self.visible)
        if left and cases:
            outcomes = await grader.grade(problem, program, cases)
            if not all(one.passed for one in outcomes):
                text = feedback(outcomes, left=left, max_chars=self.max_feedback_chars)
                return self._result(action, text)
        hidden = self._hidden(problem)
        early = self.score == "all"
        outcomes = await grader.grade(problem, program, hidden, stop_early=early)
        return self._result(action, "", reward=self._reward(outcomes, len(hidden)))

    def _hidden(self, problem: Problem) -> Sequence[Case]:
        try:
            return list(hidden_cases(problem))
        except DataError as error:
            raise EnvError(str(error)) from error

    def _reward(self, outcomes: Sequence[Outcome], count: int) -> float:
        passed = sum(one.passed for one in outcomes)
        return passed / count if self.score == "fraction" else float(passed == count)

    def _result(
        self,
        action: str,
        text: str,
        *,
        reward: float | None = None,
        malformed: int = 0,
        truncated: bool = False,
    ) -> StepResult:
        over = reward is not None or truncated
        self._turn += 1
        self._state_key = history_key(self._state_key, action, text)
        rewards: Mapping[str, float] = {"hidden": reward or 0.0} if over else {}
        if over:
            self._task = None
        info = StepInfo(
            rewards=rewards,
            malformed_calls=malformed,
            state_key=self._state_key,
            metrics={"attempts": float(self._turn)} if over else {},
        )
        observation = () if over else (Message.of("user", text),)
        return StepResult(observation, reward or 0.0, reward is not None, truncated, info)

    async def fork(self) -> Self:
        """A copy: plain values only."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def _problems(self, split: str) -> Sequence[Problem]:
        if not any(self.files.values()):
            return builtin.problems(split)
        source = self.files.get(split, "")
        if not source:
            return ()
        return _read(source, self.layout)


_read = read_once(read_problems)
