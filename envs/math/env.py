"""Problems with one right answer, graded exactly; with a Python tool where one is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

from agentrl.core.datasets import read_once
from agentrl.core.env import Forkable, Observation, StepResult
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.formats import Format, FormatName
from agentrl.core.tool import Tool
from agentrl.core.types import Task
from agentrl.graders.math import DEADLINE, Outcome, grade_text_async
from agentrl.graders.math_extract import Marker, extract_answer
from agentrl.sandbox import AnySandbox, BubblewrapSettings
from agentrl.tools.python import PythonSessionEnv, python_tool

from .formats import make_final_format
from .generated import generated_problems
from .prompts import ACCEPTED, ASKED, PromptStyle, final_answer, problem_prompt
from .records import gold_of
from .sources import DatasetName, read_problems

_SANDBOX = BubblewrapSettings()
_DEFAULT_TURNS = {False: 1, True: 6}


class MathEnv(PythonSessionEnv):  # type: ignore[misc]  # mypy knows tools/ by another name
    r"""A problem of mathematics and one attempt at it, with Python beside it where `tools` has it.

    Observation: the problem and where its answer is to stand (`prompt`); then the results of the
    programs, or what was wrong with an action.
    Action: free text with a final answer; with `tools: [python]` a call in `format`, too.
    Reward: `correct`, 1.0 for a right answer, else 0.0 (`agentrl.graders.math`). Under which
    markers an answer counts says `accept`, by default only what the prompt asks for: `\boxed{}`
    (the last closed one), `####`, or `<answer>`; text inside `<think>` never does.
    Ends: terminated by a final answer, right or wrong; truncated after `max_turns` actions (by
    default 1, with tools 6).
    Data: problems of our own, generated from a fixed seed, or those of the files or hub data sets
    `train` and `eval` (see `sources` for the formats, which `dataset` names).

    An answer that could not be graded within `grade_seconds` is an `EnvError` that says
    "ungraded", never a reward of 0. With `python: session` a program sees what earlier ones
    defined, and forks with the environment; with `stateless` each starts anew.
    """

    _format: Format | None

    def __init__(
        self,
        *,
        train: str = "",
        eval: str = "",
        dataset: DatasetName = "auto",
        prompt: PromptStyle = "boxed",
        accept: Sequence[Marker] | None = None,
        tools: Sequence[Literal["python"]] = (),
        python: Literal["session", "stateless"] = "session",
        sandbox: AnySandbox = _SANDBOX,
        format: FormatName = "xml",
        max_turns: int | None = None,
        max_tool_calls: int | None = None,
        grade_seconds: float = DEADLINE,
    ) -> None:
        turns = _DEFAULT_TURNS[bool(tools)] if max_turns is None else max_turns
        super().__init__(format=format, max_turns=turns, max_tool_calls=max_tool_calls)
        if grade_seconds <= 0 or (accept is not None and not accept):
            raise RecipeError(
                "math/problems needs grade_seconds > 0 and at least one marker in accept, got "
                f"{grade_seconds} and {accept}"
            )
        if dataset != "auto" and not (train or eval):
            raise RecipeError(
                f"dataset={dataset!r} names the format of train and eval, but neither is given"
            )
        self.files = {"train": train, "eval": eval}
        self.dataset = dataset
        self.prompt_style: PromptStyle = prompt
        self.accept: tuple[Marker, ...] = ACCEPTED[prompt] if accept is None else tuple(accept)
        self.python_state = python
        self.sandbox = sandbox
        self.grade_seconds = grade_seconds
        if tools:
            stateful = python == "session"
            self.tools = (self.python_tool() if stateful else python_tool(sandbox),)
        self._metrics: Mapping[str, float] = {}

    @property
    def forkable(self) -> Forkable:
        """By copying; with a session as its sandbox does."""
        if self.tools and self.python_state == "session":
            return self._session_forkable
        return "copy"

    @cached_property
    def _session_forkable(self) -> Forkable:
        from agentrl.sandbox.shared import build

        return build(self.sandbox).forkable

    @property
    def call_format(self) -> Format:
        """Reads final answers, and calls where there are tools."""
        made = self._format
        if made is None:
            tools = [Tool.of(one) for one in self.tools]
            made = self._format = make_final_format(
                self.format, tools, accept=self.accept, asked=ASKED[self.prompt_style]
            )
        return made

    @property
    def stop(self) -> tuple[str, ...]:
        """The tags that end an action, where the prompt explains any."""
        if self.tools:
            return self.call_format.stop
        return ("</answer>",) if self.prompt_style == "tag" else ()

    def tasks(self, split: str) -> Sequence[Task]:
        """The problems of the split's source; none where another split has one and it has not.

        Raises:
            DataError: the file is missing or malformed.
            SetupError: a hub data set that cannot be read.
        """
        if split not in self.files:
            return ()
        if not any(self.files.values()):
            return [problem.task() for problem in generated_problems(split)]
        source = self.files[split]
        if not source:
            return []
        problems = _read(source, dataset=self.dataset, split=split)
        return [problem.task() for problem in problems]

    async def begin(self, task: Task, *, seed: int) -> None:
        """Open a session, where programs are to have one."""
        self._metrics = {}
        if self.tools and self.python_state == "session":
            await self.open_session()

    def prompt(self, task: Task) -> Observation | str:
        """The problem, and where its answer is to stand."""
        return problem_prompt(
            task.data["text"],
            self.prompt_style,
            several=bool(task.data.get("several")),
            python=bool(self.tools) and self.format == "xml",
        )

    async def step(self, action: str) -> StepResult:
        """Run a program, or grade the answer."""
        result: StepResult = await super().step(action)
        if not (result.terminated or result.truncated):
            return result
        return result._replace(info=replace(result.info, metrics=self._metrics))

    async def score(self, task: Task, answer: str | None) -> Mapping[str, float]:
        """1.0 for a right answer.

        Raises:
            EnvError: the answer could not be graded.
        """
        grade = await grade_text_async(
            answer or "", gold_of(task.data), accept=self.accept, deadline=self.grade_seconds
        )
        if grade.outcome is Outcome.UNGRADED:
            raise EnvError(f"ungraded: {grade.reason}, for the answer {grade.answer!r:.200}")
        self._metrics = {
            "correct": float(grade.correct),
            "answered": float(grade.outcome is not Outcome.NO_ANSWER),
            "refused": float(bool(grade.reason)),
        }
        return {"correct": float(grade.correct)}

    def answer_of(self, action: str) -> str | None:
        """The final answer in `action`."""
        return extract_answer(action, self.accept)

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The data's own solution, then its result; before it a program, where tasks have one."""
        code = task.data.get("code")
        programs = [code] if self.tools and code else []
        if turn < len(programs):
            return self.call_format.call("python", {"code": programs[turn]})
        worked, result = task.data.get("worked", ""), task.data.get("result", task.data["answer"])
        if extract_answer(worked, self.accept[:1]) is not None:
            return str(worked)
        last = final_answer(result.replace("$", ""), self.prompt_style)
        return f"{worked}\n{last}" if worked else last


_read = read_once(read_problems)
