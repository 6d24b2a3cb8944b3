"""A script that plays an environment's gold actions: dry runs, and tests of the whole path."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from agentrl.core.env import Env
from agentrl.core.errors import DataError
from agentrl.core.spoil import spoil
from agentrl.core.types import Task
from agentrl.rollout.render import Rendering

_TURNS_COMPARED = 64


class Oracle:
    """The text of a context -> the expert action of its turn, for a `ScriptedEngine`.

    It knows a context by its own actions in it, and forgets none: it plays any number of episodes
    at once, forks included. In a context that it has not made it looks for the actions that it
    would have played; there an observation that spells the next one would be taken for it.

    With `spoiled` each action is made wrong (`agentrl.core.spoil`), so that it must earn nothing.
    """

    def __init__(self, env: Env, renderer: Rendering, *, spoiled: bool = False) -> None:
        self._env = env
        self._renderer = renderer
        self._spoiled = spoiled
        self._resetting = asyncio.Lock()
        # Tasks that show the same prompt are one to a policy; their experts have to agree.
        self._prompts: dict[str, list[Task]] = {}
        self._lengths: list[int] = []
        # For each task: its contexts up to the end of an action of ours -> what was seen before it.
        self._played: dict[str, dict[str, tuple[str, ...]]] = {}

    async def add(self, tasks: Iterable[Task]) -> None:
        """Learn the prompts of `tasks`, which must not depend on the episode's seed."""
        async with self._resetting:
            for task in tasks:
                observation = await self._env.reset(task, seed=0)
                ids = self._renderer.prompt_ids(observation, self._env.tool_schemas)
                self.learn(task, self._renderer.decode(ids))

    def learn(self, task: Task, prompt: str) -> None:
        """Learn that `task` shows `prompt`, the text of a context that nobody has acted in."""
        alike = self._prompts.setdefault(prompt, [])
        if not any((one.id, one.data) == (task.id, task.data) for one in alike):
            self._check_alike([*alike, task], (prompt,))
            alike.append(task)
        if len(prompt) not in self._lengths:
            self._lengths = sorted([*self._lengths, len(prompt)], reverse=True)

    async def close(self) -> None:
        """Free what the env holds; may be called twice."""
        await self._env.close()

    def __call__(self, context: str) -> str:
        """The expert action that continues `context`."""
        tasks, prompt_end = self._tasks_of(context)
        played = self._played.setdefault(tasks[0].id, {})
        known = max((one for one in played if context.startswith(one)), key=len, default="")
        seen, at = played.get(known, ()), len(known)
        while True:
            now = (*seen, context[at:])
            action = self._action(tasks, now)
            found = -1 if known else context.find(action, max(at, prompt_end))
            if found < 0:
                played[context + action] = now
                return action
            seen, at = (*seen, context[at:found]), found + len(action)

    def _action(self, tasks: Sequence[Task], seen: tuple[str, ...]) -> str:
        action = self._agreed(tasks, seen)
        if self._spoiled:
            return "hello" if action is None else spoil(action)
        if action is None:
            raise DataError(f"task {tasks[0].id!r} has no gold action for turn {len(seen) - 1}")
        return action

    def _check_alike(self, tasks: Sequence[Task], seen: tuple[str, ...]) -> None:
        """Find at once what would show itself in the middle of a run."""
        if len(tasks) < 2:
            return
        if self._agreed(tasks, seen) is None:
            raise DataError(_indistinct(tasks[0], tasks[-1]))
        for turn in range(_TURNS_COMPARED):
            gold = {self._env.gold_action(task, turn) for task in tasks}
            if len(gold) > 1:
                raise DataError(_indistinct(tasks[0], tasks[-1]))
            if gold == {None}:
                break

    def _agreed(self, tasks: Sequence[Task], seen: tuple[str, ...]) -> str | None:
        action = self._env.expert_action(tasks[0], seen)
        for other in tasks[1:]:
            if self._env.expert_action(other, seen) != action:
                raise DataError(_indistinct(tasks[0], other))
        return action

    def _tasks_of(self, context: str) -> tuple[list[Task], int]:
        for length in self._lengths:
            tasks = self._prompts.get(context[:length])
            if tasks:
                return tasks, length
        raise DataError(f"no task of the oracle has a prompt that starts {context[:60]!r}")


def _indistinct(one: Task, other: Task) -> str:
    return (
        f"tasks {one.id!r} and {other.id!r} show the same prompt, so an oracle cannot tell which "
        "is played"
    )
