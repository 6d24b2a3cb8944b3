"""Environments around an environment, each of which changes one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from agentrl.core.env import Env, Forkable, Observation, StepResult
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.types import Message, Task


class Wrapper(Env):
    """Delegates everything to `env`, read anew each time; subclasses override what they change.

    A subclass whose episode has state of its own resets it in `reset`; it forks with `env` if
    it is made of plain values, and is otherwise copied in `copy_state`. What the subclass does
    not change is the inner environment's, other attributes of it included.
    """

    def __init__(self, env: Env) -> None:
        self.env = env

    def __repr__(self) -> str:
        inner = repr(self.env) if isinstance(self.env, Wrapper) else type(self.env).__name__
        return f"<{type(self).__name__}{inner if inner.startswith('<') else f'<{inner}>'}>"

    def __getattr__(self, name: str) -> object:
        # Only what neither this wrapper nor Env has; private names stay private.
        if name.startswith("_") or name == "env":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.env, name)

    @property
    def unwrapped(self) -> Env:
        """The innermost environment."""
        return self.env.unwrapped if isinstance(self.env, Wrapper) else self.env

    @property
    def forkable(self) -> Forkable:  # type: ignore[override]
        """As the inner environment's."""
        return self.env.forkable

    def tasks(self, split: str) -> Sequence[Task]:
        """The inner environment's tasks."""
        return self.env.tasks(split)

    @property
    def tool_schemas(self) -> tuple[Mapping[str, object], ...]:
        """The inner environment's schemas."""
        return self.env.tool_schemas

    @property
    def stop(self) -> tuple[str, ...]:
        """The inner environment's stop strings."""
        return self.env.stop

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The inner environment's gold action."""
        return self.env.gold_action(task, turn)

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The inner environment's expert action."""
        return self.env.expert_action(task, seen)

    def answer_of(self, action: str) -> str | None:
        """The inner environment's reading."""
        return self.env.answer_of(action)

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode of the inner environment."""
        return await self.env.reset(task, seed=seed)

    async def step(self, action: str) -> StepResult:
        """Play a turn of the inner environment."""
        return await self.env.step(action)

    async def fork(self) -> Self:
        """Wrap a fork of the inner environment in a copy of this wrapper."""
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        twin.env = await self.env.fork()
        self.copy_state(twin)
        return twin

    def copy_state(self, twin: Self) -> None:
        """Replace in `twin`, a shallow copy, what an episode changes in place."""
        return

    async def close(self) -> None:
        """Close the inner environment."""
        await self.env.close()


class TurnLimit(Wrapper):
    """Truncates after `max_turns` actions, whatever the inner environment allows.

    An action that ends the episode by itself keeps its outcome.
    """

    def __init__(self, env: Env, *, max_turns: int) -> None:
        super().__init__(env)
        if max_turns < 1:
            raise RecipeError(f"TurnLimit needs max_turns >= 1, got {max_turns}")
        self.max_turns = max_turns
        self._turn = 0

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode and the count."""
        self._turn = 0
        return await self.env.reset(task, seed=seed)

    async def step(self, action: str) -> StepResult:
        """Play a turn, the last one truncated."""
        if self._turn >= self.max_turns:
            raise EnvError(f"{self!r}.step was called after the end of the episode")
        result = await self.env.step(action)
        self._turn += 1
        if self._turn >= self.max_turns and not result.terminated:
            return result._replace(truncated=True)
        return result


class FormatReminder(Wrapper):
    """Appends `reminder` to the observation of an action with a malformed call.

    It is part of the last message, so that an inline observation stays one; none is added
    where the episode is over.
    """

    def __init__(self, env: Env, *, reminder: str) -> None:
        super().__init__(env)
        self.reminder = reminder

    async def step(self, action: str) -> StepResult:
        """Play a turn, and remind after a mistake."""
        result = await self.env.step(action)
        over = result.terminated or result.truncated
        if over or not result.info.malformed_calls or not result.observation:
            return result
        *before, last = result.observation
        reminded = replace(last, parts=(*last.parts, *Message.of(last.role, self.reminder).parts))
        return result._replace(observation=(*before, reminded))


WRAPPERS = {
    "format_reminder": "agentrl.core.wrappers:FormatReminder",
    "hints": "agentrl.core.hints:Hints",
    "try_again": "agentrl.core.try_again:TryAgain",
    "turn_limit": "agentrl.core.wrappers:TurnLimit",
}
"""Wrappers by the `type` that a recipe names (`env.wrappers`) -> "module:Class"."""
