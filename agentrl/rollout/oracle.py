"""A script that plays an environment's gold actions: dry runs, and tests of the whole path."""

from __future__ import annotations

from collections.abc import Iterable

from agentrl.core.env import Env
from agentrl.core.errors import DataError
from agentrl.core.spoil import spoil
from agentrl.core.types import Task
from agentrl.rollout.render import Renderer


class Oracle:
    """The text of a context -> the expert action of its turn, for a `ScriptedEngine`.

    It knows a context by its own actions in it, and forgets none: it plays any number of episodes
    at once, forks included. In a context that it has not made it looks for the actions that it
    would have played; there an observation that spells the next one would be taken for it.

    With `spoiled` each action is made wrong (`agentrl.core.spoil`), so that it must earn nothing.
    """

    def __init__(self, env: Env, renderer: Renderer, *, spoiled: bool = False) -> None:
        self._env = env
        self._renderer = renderer
        self._spoiled = spoiled
        self._prompts: dict[str, Task] = {}
        self._lengths: list[int] = []
        # For each task: its contexts up to the end of an action of ours -> what was seen before it.
        self._played: dict[str, dict[str, tuple[str, ...]]] = {}

    async def add(self, tasks: Iterable[Task]) -> None:
        """Learn the prompts of `tasks`, which must not depend on the episode's seed."""
        for task in tasks:
            observation = await self._env.reset(task, seed=0)
            ids = self._renderer.prompt_ids(observation, self._env.tool_schemas)
            other = self._prompts.setdefault(self._renderer.decode(ids), task)
            if other is not task and (other.id, other.data) != (task.id, task.data):
                raise DataError(
                    f"tasks {other.id!r} and {task.id!r} show the same prompt, so an oracle "
                    "cannot tell which is played"
                )
        self._lengths = sorted({len(prompt) for prompt in self._prompts}, reverse=True)

    def __call__(self, context: str) -> str:
        """The expert action that continues `context`."""
        task, prompt_end = self._task_of(context)
        played = self._played.setdefault(task.id, {})
        known = max((one for one in played if context.startswith(one)), key=len, default="")
        seen, at = played.get(known, ()), len(known)
        while True:
            now = (*seen, context[at:])
            action = self._action(task, now)
            found = -1 if known else context.find(action, max(at, prompt_end))
            if found < 0:
                played[context + action] = now
                return action
            seen, at = (*seen, context[at:found]), found + len(action)

    def _action(self, task: Task, seen: tuple[str, ...]) -> str:
        action = self._env.expert_action(task, seen)
        if self._spoiled:
            return "hello" if action is None else spoil(action)
        if action is None:
            raise DataError(f"task {task.id!r} has no gold action for turn {len(seen) - 1}")
        return action

    def _task_of(self, context: str) -> tuple[Task, int]:
        for length in self._lengths:
            task = self._prompts.get(context[:length])
            if task is not None:
                return task, length
        raise DataError(f"no task of the oracle has a prompt that starts {context[:60]!r}")
