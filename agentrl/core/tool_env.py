"""An environment made of typed Python functions: the policy calls them, answers and is scored."""

from __future__ import annotations

import asyncio
import copy
import inspect
import math
import time
from abc import abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from typing import ClassVar, NamedTuple, Self

from agentrl.core.env import Env, Forkable, Observation, StepInfo, StepResult, history_key
from agentrl.core.errors import EnvError, RecipeError, ToolError
from agentrl.core.formats import Format, FormatName, make_format
from agentrl.core.tool import Tool, ToolFunction
from agentrl.core.types import Message, Task, ToolCall, ToolRecord


class _Called(NamedTuple):
    text: str
    record: ToolRecord


class ToolEnv(Env):
    """A task, some tools and an answer that is scored; subclasses say which.

    Observation: `prompt(task)`; then the results of the calls, or what was wrong with them.
    Action: text with calls or an answer in `format` (see `agentrl.core.formats`).
    Reward: 0.0 until the end, then the sum of the components that `score` returns.
    Ends: terminated by an answer (right or wrong); truncated after `max_turns` actions, where
    `score` gets None for the answer and the calls of the last action are not run.

    `tools` are typed functions, in a class attribute or (methods) a property. With
    `instructions` a string prompt is preceded by a system message that describes them. Calls
    beyond `max_tool_calls` are not run and say so. A mistake in a call is told to the policy
    and counted; an exception in `score` is an `EnvError`, never a reward of 0.

    Forks by copying: a shallow copy, tools given as bound methods bound to the copy, then
    `copy_state`. A subclass whose episode changes a list, dict or object in place copies it there.
    """

    forkable: ClassVar[Forkable] = "copy"
    tools: Sequence[Tool | ToolFunction] = ()

    def __init__(
        self,
        *,
        format: FormatName = "xml",
        max_turns: int = 8,
        max_tool_calls: int | None = None,
        instructions: bool = False,
    ) -> None:
        if max_turns < 1 or (max_tool_calls is not None and max_tool_calls < 0):
            raise RecipeError(
                f"{type(self).__name__} needs max_turns >= 1 and max_tool_calls >= 0, got "
                f"{max_turns} and {max_tool_calls}"
            )
        self.format: FormatName = format
        self.max_turns = max_turns
        self.max_tool_calls = max_tool_calls
        self.instructions = instructions
        self._format: Format | None = None
        self._task: Task | None = None
        self._over = False
        self._turn = 0
        self._tool_calls = 0
        self._malformed_calls = 0
        self._state_key = ""

    @abstractmethod
    def prompt(self, task: Task) -> Observation | str:
        """The first messages of `task`; a string is one user message."""

    @abstractmethod
    def score(
        self, task: Task, answer: str | None
    ) -> Mapping[str, float] | Awaitable[Mapping[str, float]]:
        """The named reward components of `answer`, None where none was given; may be async.

        `turn`, `tool_calls` and `malformed_calls` tell how the episode went.
        """

    def begin(self, task: Task, *, seed: int) -> Awaitable[None] | None:
        """Prepare what an episode of `task` needs, before `prompt`; may be async."""
        return None

    def copy_state(self, twin: Self) -> None:
        """Replace in `twin`, a shallow copy, what an episode changes in place."""
        return

    @property
    def turn(self) -> int:
        """Actions played so far in this episode."""
        return self._turn

    @property
    def tool_calls(self) -> int:
        """Tool calls run so far in this episode."""
        return self._tool_calls

    @property
    def malformed_calls(self) -> int:
        """Mistakes in calls so far in this episode."""
        return self._malformed_calls

    @property
    def state_key(self) -> str:
        """A hash of the task and of all actions and observations so far."""
        return self._state_key

    @property
    def call_format(self) -> Format:
        """The format object: writes gold actions and instructions, reads actions."""
        if self._format is None:
            self._format = make_format(self.format, [Tool.of(one) for one in self.tools])
        return self._format

    @property
    def tool_schemas(self) -> tuple[Mapping[str, object], ...]:
        """For the json format; the tags of xml are not what chat templates present."""
        if self.format != "json":
            return ()
        return tuple(tool.schema for tool in self.call_format.tools.values())

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends an action in the format."""
        return self.call_format.stop

    def answer_of(self, action: str) -> str | None:
        """The answer that the format reads in `action`."""
        return self.call_format.parse(action).answer

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode of `task`."""
        self._task, self._over = None, False
        self._turn = self._tool_calls = self._malformed_calls = 0
        begun = self.begin(task, seed=seed)
        if inspect.isawaitable(begun):
            await begun
        prompt = self.prompt(task)
        if isinstance(prompt, str):
            system = self.call_format.instructions() if self.instructions else ""
            first = (Message.of("system", system),) if system else ()
            prompt = (*first, Message.of("user", prompt))
        self._task = task
        self._state_key = history_key(task.id, *_texts(prompt))
        return prompt

    async def step(self, action: str) -> StepResult:
        """Run the calls of `action`, or score its answer."""
        task = self._task
        if task is None:
            raise EnvError(f"{type(self).__name__}.step was called before reset")
        if self._over:
            raise EnvError(f"{type(self).__name__}.step was called after the end of the episode")
        parsed = self.call_format.parse(action)
        self._turn += 1
        self._malformed_calls += len(parsed.errors)
        truncated = parsed.answer is None and self._turn >= self.max_turns
        called: list[_Called] = []
        rewards: Mapping[str, float] = {}
        observation: Observation = ()
        if truncated or parsed.answer is not None:
            self._over = True
            rewards = await self._score(task, parsed.answer)
        else:
            called = await self._run(parsed.calls)
            left_out = [_LIMIT.format(self.max_tool_calls)] * (len(parsed.calls) - len(called))
            texts = [one.text for one in called] + left_out
            observation = self.call_format.observation(texts, parsed.errors)
        self._state_key = history_key(self._state_key, action, *_texts(observation))
        info = StepInfo(
            rewards=rewards,
            tool_calls=tuple(one.record for one in called),
            malformed_calls=len(parsed.errors),
            state_key=self._state_key,
        )
        terminated = parsed.answer is not None
        return StepResult(observation, math.fsum(rewards.values()), terminated, truncated, info)

    async def fork(self) -> Self:
        """A copy of this env at this turn."""
        twin = copy.copy(self)
        # Its tools may be methods bound to this env: they are built anew, for the copy.
        twin._format = None
        if "tools" in vars(self):
            twin.tools = tuple(Tool.of(one).rebound(self, twin) for one in self.tools)
        self.copy_state(twin)
        return twin

    async def _run(self, calls: Sequence[ToolCall]) -> list[_Called]:
        if self.max_tool_calls is not None:
            calls = calls[: max(0, self.max_tool_calls - self._tool_calls)]
        self._tool_calls += len(calls)
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._call(one)) for one in calls]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [one.result() for one in running]

    async def _call(self, call: ToolCall) -> _Called:
        started = time.perf_counter()
        try:
            text, ok = await self.call_format.tools[call.name].call(call.arguments), True
        except ToolError as error:
            text, ok = f"error: {error}", False
        seconds = time.perf_counter() - started
        return _Called(text, ToolRecord(call.name, call.arguments, ok, seconds))

    async def _score(self, task: Task, answer: str | None) -> dict[str, float]:
        where = f"{type(self).__name__}.score of task {task.id!r}"
        try:
            found = self.score(task, answer)
            rewards = await found if inspect.isawaitable(found) else found
            values = {str(name): float(value) for name, value in rewards.items()}
        except Exception as error:
            raise EnvError(f"{where} failed: {type(error).__name__}: {error}") from error
        for name, value in values.items():
            if not math.isfinite(value):
                raise EnvError(f"{where}: component {name!r} is {value}, not a finite number")
        return values


_LIMIT = "error: no tool calls are left (limit {}); give your answer now."


def _texts(observation: Observation) -> list[str]:
    return [f"{message.role}\0{message.text}" for message in observation]
