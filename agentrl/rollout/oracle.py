"""A script that plays an environment's gold actions: dry runs, and tests of the whole path."""

from __future__ import annotations

from collections.abc import Iterable

from agentrl.core.env import Env
from agentrl.core.errors import DataError
from agentrl.core.types import Task
from agentrl.rollout.render import Renderer


class Oracle:
    """The text of a context -> the gold action of its turn, for a `ScriptedEngine`.

    It reads both from the text, so it holds no state and plays any number of episodes at once,
    forks included: the task by the prompt that the context starts with, the turn by how many gold
    actions follow. An observation that spells the next gold action would be taken for it.
    """

    def __init__(self, env: Env, renderer: Renderer) -> None:
        self._env = env
        self._renderer = renderer
        self._prompts: dict[str, Task] = {}
        self._lengths: list[int] = []

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
        """The gold action that continues `context`."""
        task, at = self._task_of(context)
        turn = 0
        while (action := self._env.gold_action(task, turn)) is not None:
            found = context.find(action, at)
            if found < 0:
                return action
            at, turn = found + len(action), turn + 1
        raise DataError(f"task {task.id!r} has no gold action for turn {turn}")

    def _task_of(self, context: str) -> tuple[Task, int]:
        for length in self._lengths:
            task = self._prompts.get(context[:length])
            if task is not None:
                return task, length
        raise DataError(f"no task of the oracle has a prompt that starts {context[:60]!r}")
