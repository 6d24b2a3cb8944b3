"""Somebody else's Gymnasium environment, if it can be played in text, as one of ours."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium
from gymnasium import spaces

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.errors import AgentRLError, EnvError, RecipeError, nearest
from agentrl.core.types import Message, Task
from agentrl.gym.thread import LoopThread

_EVAL_SEEDS = 1_000_000
_SHOWN_CHARS = 60

T = TypeVar("T")


class FromGymnasium(Env):
    """A `gymnasium.Env` whose actions are text or a few named choices.

    Observation: `prompt`, the environment's observation and the names of the actions; then its
    observations. They are strings, or made so by `formatter`, the path of a function as in
    `"builtins:str"`.
    Action: for a Text space the text itself, for a Discrete one a name of `actions` (the numbers
    where none are given), in any case. Thinking up to `</think>` does not count, and with
    `action_tag` only what stands between `<tag>` and `</tag>` does.
    Reward: the environment's, as `reward`.
    Ends: as the environment says; truncated after `max_turns` actions. A text that is no action
    is told so and uses a turn.
    Data: a task is the seed that the environment is reset with, `seeds` of them in each split,
    those of evaluation from 1,000,000 on. So all episodes of a task begin alike.

    Blocking calls run in a thread of their own, always the same one. Forks by replay.
    """

    forkable = "replay"

    def __init__(
        self,
        id: str,
        *,
        actions: Sequence[str] = (),
        prompt: str = "",
        formatter: str = "",
        action_tag: str = "",
        max_turns: int = 32,
        seeds: int = 64,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if max_turns < 1 or seeds < 1:
            raise RecipeError(
                f"gym:{id} needs max_turns >= 1 and seeds >= 1, got {max_turns} and {seeds}"
            )
        self.id = id
        self.actions = tuple(actions)
        self.prompt = prompt
        self.formatter = formatter
        self.action_tag = action_tag
        self.max_turns = max_turns
        self.seeds = seeds
        self.kwargs = dict(kwargs or {})
        self._thread = LoopThread()
        self._env: gymnasium.Env[Any, Any] | None = None
        self._format: Callable[[Any], str] | None = None
        self._playing = False
        self._turn = 0

    @property
    def stop(self) -> tuple[str, ...]:
        """The closing tag, where there is one."""
        return (f"</{self.action_tag}>",) if self.action_tag else ()

    def tasks(self, split: str) -> Sequence[Task]:
        """One for each seed."""
        first = 0 if split == "train" else _EVAL_SEEDS
        return [Task(f"{split}-{first + n}", {"seed": first + n}) for n in range(self.seeds)]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode from the task's seed, or from `seed` where the task has none."""
        self._playing = False
        if self._env is None:
            self._env = await self._blocking(self._make)
        env = self._env
        start = int(task.data.get("seed", seed))
        found, _ = await self._blocking(lambda: env.reset(seed=start))
        self._playing, self._turn = True, 0
        pieces = [self.prompt, self._text(found)]
        if isinstance(env.action_space, spaces.Discrete):
            pieces.append(f"Actions: {', '.join(self._names(env.action_space))}.")
        return (Message.of("user", "\n".join(piece for piece in pieces if piece)),)

    async def step(self, action: str) -> StepResult:
        """Play one turn."""
        if self._env is None or not self._playing:
            raise EnvError(f"gym:{self.id}: step was called before reset or after the end")
        env = self._env
        self._turn += 1
        parsed = self._parse(action)
        if isinstance(parsed, _Refusal):
            truncated = self._turn >= self.max_turns
            self._playing = not truncated
            told = (Message.of("user", f"error: {parsed}"),)
            info = StepInfo(malformed_calls=1)
            return StepResult(told, 0.0, False, truncated, info)
        found, reward, terminated, truncated, _ = await self._blocking(lambda: env.step(parsed))
        terminated = bool(terminated)
        truncated = not terminated and (bool(truncated) or self._turn >= self.max_turns)
        self._playing = not (terminated or truncated)
        value = float(reward)
        info = StepInfo(rewards={"reward": value})
        observation = (Message.of("user", self._text(found)),)
        return StepResult(observation, value, terminated, truncated, info)

    async def close(self) -> None:
        """Close the environment and its thread; may be called twice.

        Where a call still hangs, both are left behind: closing would wait for it.
        """
        env, self._env, self._playing = self._env, None, False
        if env is not None and self._thread.idle:
            await self._blocking(env.close)
        self._thread.close()

    async def _blocking(self, function: Callable[[], T]) -> T:
        try:
            return await self._thread.call(function)
        except AgentRLError:
            raise
        except Exception as error:
            raise EnvError(f"gym:{self.id} failed: {type(error).__name__}: {error}") from error

    def _make(self) -> gymnasium.Env[Any, Any]:
        try:
            env = gymnasium.make(self.id, disable_env_checker=True, **self.kwargs)
        except gymnasium.error.UnregisteredEnv as error:
            raise RecipeError(
                f"Gymnasium has no environment {self.id!r}."
                f"{nearest(self.id, gymnasium.registry)} Name the module that registers it, as in "
                f"'gym:its_module:{self.id}'."
            ) from error
        space = env.action_space
        if not isinstance(space, (spaces.Text, spaces.Discrete)):
            raise RecipeError(
                f"gym:{self.id} has the action space {space}: only Text and Discrete can be played"
            )
        if isinstance(space, spaces.Discrete):
            self._names(space)
        elif self.actions:
            raise RecipeError(f"gym:{self.id} takes any text: `actions` would have no effect")
        return env

    def _names(self, space: spaces.Discrete) -> tuple[str, ...]:
        first = int(space.start)
        names = self.actions or tuple(str(first + n) for n in range(int(space.n)))
        if len({name.strip().lower() for name in names}) != int(space.n):
            raise RecipeError(
                f"gym:{self.id} has {space.n} actions: `actions` must name each, with different "
                f"names, got {list(names)}"
            )
        return names

    def _parse(self, action: str) -> Any:
        """The action for the environment, or why there is none."""
        assert self._env is not None
        space = self._env.action_space
        text = action.rpartition("</think>")[2]
        if self.action_tag:
            opening, closing = f"<{self.action_tag}>", f"</{self.action_tag}>"
            rest = text.partition(opening)[2]
            text, closed, _ = rest.partition(closing)
            if not closed:
                return _Refusal(f"write your action between {opening} and {closing}.")
        if isinstance(space, spaces.Discrete):
            names = [name.strip().lower() for name in self._names(space)]
            if text.strip().lower() in names:
                return space.dtype.type(int(space.start) + names.index(text.strip().lower()))
            return _Refusal(f"{_short(text)} is no action. Actions: {', '.join(names)}.")
        for candidate in (text, text.strip()):
            if candidate in space:
                return candidate
        return _Refusal(f"{_short(text)} is no action that the environment takes.")

    def _text(self, found: object) -> str:
        if self._format is None:
            self._format = _function(self.formatter) if self.formatter else _as_it_is
        text = self._format(found)
        if not isinstance(text, str):
            raise EnvError(
                f"gym:{self.id} observes {type(text).__name__}, not text: give `formatter`, the "
                "path of a function that words it, as in formatter='my_module:describe'"
            )
        return text


class _Refusal(str):
    """Why a text is no action."""

    __slots__ = ()


def _as_it_is(found: Any) -> Any:
    return found


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "...")


def _function(path: str) -> Callable[[Any], str]:
    module_name, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"formatter {path!r} is no 'module:function': {error}") from error
    if not callable(function):
        raise RecipeError(f"formatter {path!r} is not callable")
    found: Callable[[Any], str] = function
    return found
