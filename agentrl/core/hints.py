"""Starts an episode with a part of its solution, for tasks that are too hard without (GHPO)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from agentrl.core.env import Env, Observation, StepResult
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.types import Message, Task, Text
from agentrl.core.wrappers import Wrapper

_KEY = "agentrl.hint"
_INLINE = "inline"

LEAD = "\n\nThe solution begins like this:\n"


def hinted(task: Task, share: float) -> Task:
    """`task` for an environment in `Hints`, which then shows that share of the solution."""
    return Task(task.id, {**task.data, _KEY: share})


class _Asked(NamedTuple):
    task: Task
    share: float


class Hints(Wrapper):
    """Shows the beginning of the solution to a task that asks for it (`hinted`); others pass.

    For an agent the solution is what the expert of the environment does: the first k of its n
    actions are played in the environment, and the policy's prompt shows them with what they led
    to, as if the policy had taken them. They are part of the prompt, so they are never trained.

        k = min(ceil(share * n), n - 1)

    The last action is always left to the policy; a task that the expert solves in one action gets
    no hint. With `reference`, the key of the task's data that holds a solution in words, the
    first floor(share * length) characters of it stand after `lead` at the end of the prompt
    (GHPO, arXiv:2507.10628, whose released code counts characters too).

    Which tasks get how much is `train.hints`: groups that failed as a whole are sampled again with
    more and more. Metric of every turn after a hint: `hint`, the share that was asked for.

    The environment is reset twice with one seed and has to show the same. One whose observations
    continue the policy's own turn (inline) and also speak in turns cannot show actions as a
    prompt. Forks as the inner environment does.
    """

    def __init__(self, env: Env, *, reference: str = "", lead: str = LEAD) -> None:
        super().__init__(env)
        if reference and not lead.strip():
            raise RecipeError("hints needs a lead that says what follows, got an empty one")
        self.reference = reference
        self.lead = lead
        self._share = 0.0

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The inner environment's gold action."""
        return self.env.gold_action(_asked(task).task, turn)

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The inner environment's expert action."""
        return self.env.expert_action(_asked(task).task, seen)

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode, after the hint that the task asks for."""
        task, share = _asked(task)
        self._share = share
        if not share:
            return await self.env.reset(task, seed=seed)
        if self.reference:
            return self._told(task, await self.env.reset(task, seed=seed))
        return await self._led(task, seed)

    async def step(self, action: str) -> StepResult:
        """Play a turn; its metrics say that there was a hint."""
        result = await self.env.step(action)
        if not self._share:
            return result
        metrics = {**result.info.metrics, "hint": self._share}
        return result._replace(info=replace(result.info, metrics=metrics))

    def _told(self, task: Task, observation: Observation) -> Observation:
        solution = task.data.get(self.reference)
        if not isinstance(solution, str):
            raise EnvError(
                f"{self!r}: task {task.id!r} has no text {self.reference!r} to hint at; its data "
                f"has {', '.join(sorted(task.data)) or 'nothing'}"
            )
        *before, last = observation
        part = solution[: math.floor(self._share * len(solution))]
        return (*before, replace(last, parts=(*last.parts, Text(self.lead + part))))

    async def _led(self, task: Task, seed: int) -> Observation:
        """Play the expert's episode to know its length, then its beginning in a new one."""
        whole = await self._played(task, seed, None)
        count = min(math.ceil(self._share * len(whole.actions) - 1e-9), len(whole.actions) - 1)
        part = await self._played(task, seed, count)
        if part.shown != whole.shown[: count + 1]:
            raise EnvError(f"{self!r}: a second reset of task {task.id!r} showed something else")
        first, *later = part.shown
        if all(message.role == _INLINE for shown in later for message in shown):
            role = _INLINE
        elif any(message.role == _INLINE for shown in part.shown for message in shown):
            raise EnvError(
                f"{self!r}: task {task.id!r} speaks both inline and in turns, so the expert's "
                "actions cannot be shown as its prompt; use `reference`"
            )
        else:
            role = "assistant"
        pairs = zip(part.actions, later, strict=True)
        return (*first, *(m for act, shown in pairs for m in (Message.of(role, act), *shown)))

    async def _played(self, task: Task, seed: int, count: int | None) -> _Played:
        """The expert's first `count` actions (None: all) and what was shown around them."""
        shown = [await self.env.reset(task, seed=seed)]
        actions: list[str] = []
        while count is None or len(actions) < count:
            seen = ["".join(message.text for message in one) for one in shown]
            action = self.env.expert_action(task, seen)
            if action is None:
                raise EnvError(
                    f"{self!r}: task {task.id!r} has no expert action for turn {len(actions)} to "
                    "hint at; give the environment an expert, or name a `reference`"
                )
            result = await self.env.step(action)
            actions.append(action)
            if result.terminated or result.truncated:
                break
            shown.append(result.observation)
        return _Played(actions, shown)


class _Played(NamedTuple):
    """Actions, and what was shown before the first and after each that did not end the episode."""

    actions: list[str]
    shown: list[Observation]


def _asked(task: Task) -> _Asked:
    data: Mapping[str, Any] = task.data
    if _KEY not in data:
        return _Asked(task, 0.0)
    share = float(data[_KEY])
    return _Asked(Task(task.id, {k: v for k, v in data.items() if k != _KEY}), share)
