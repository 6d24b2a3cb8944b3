"""How quick an environment is: its steps, its resets and its forks, played by its expert."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import numpy as np

from agentrl.core.env import Env, Observation
from agentrl.core.errors import EnvError
from agentrl.core.fork import fork_env
from agentrl.core.types import Task


class Spread(NamedTuple):
    """Seconds of one operation, measured so many times: the median and the 99th percentile."""

    times: int
    median: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Of measured values; NaN where there are none."""
        if not seconds:
            return cls(0, float("nan"), float("nan"))
        median, p99 = np.percentile(seconds, (50, 99))
        return cls(len(seconds), float(median), float(p99))


class EnvSpeed(NamedTuple):
    """What was measured in `seconds` of wall time; `fork` is at the middle of an episode."""

    seconds: float
    episodes: int
    steps: int
    reset: Spread
    step: Spread
    fork: Spread

    @property
    def steps_per_second(self) -> float:
        """Of all players together, resets included."""
        return self.steps / self.seconds


class _Clock:
    def __init__(self) -> None:
        self.reset: list[float] = []
        self.step: list[float] = []
        self.fork: list[float] = []


async def measure_env(
    make: Callable[[], Env],
    *,
    tasks: Sequence[Task],
    seconds: float = 5.0,
    concurrency: int = 1,
    forks: int = 20,
    max_turns: int = 64,
) -> EnvSpeed:
    """Play `tasks` in turn for `seconds` with `concurrency` players, then fork `forks` times.

    A player does what the environment's expert does, and says "hello" where there is none.
    """
    if not tasks:
        raise EnvError("the environment has no tasks to measure it with")
    clock, began = _Clock(), time.perf_counter()

    async def player(number: int) -> int:
        episodes = 0
        while not episodes or time.perf_counter() - began < seconds:
            task = tasks[(number + episodes * concurrency) % len(tasks)]
            async with _fresh(make) as env:
                await _play(env, task, clock, max_turns)
            episodes += 1
        return episodes

    episodes = sum(await asyncio.gather(*(player(number) for number in range(concurrency))))
    took = time.perf_counter() - began
    if make().forkable != "no":
        for number in range(forks):
            await _fork(make, tasks[number % len(tasks)], clock, max_turns)
    return EnvSpeed(
        seconds=took,
        episodes=episodes,
        steps=len(clock.step),
        reset=Spread.of(clock.reset),
        step=Spread.of(clock.step),
        fork=Spread.of(clock.fork),
    )


@asynccontextmanager
async def _fresh(make: Callable[[], Env]) -> AsyncIterator[Env]:
    env = make()
    try:
        yield env
    finally:
        await env.close()


async def _play(
    env: Env, task: Task, clock: _Clock, max_turns: int
) -> tuple[list[str], list[Observation]]:
    """One episode of at most `max_turns` actions: what was done and what was shown."""
    before = time.perf_counter()
    observations = [await env.reset(task, seed=0)]
    clock.reset.append(time.perf_counter() - before)
    actions: list[str] = []
    while len(actions) < max_turns:
        action = env.expert_action(task, [_text(one) for one in observations]) or "hello"
        actions.append(action)
        before = time.perf_counter()
        result = await env.step(action)
        clock.step.append(time.perf_counter() - before)
        observations.append(result.observation)
        if result.terminated or result.truncated:
            break
    return actions, observations


async def _fork(make: Callable[[], Env], task: Task, clock: _Clock, max_turns: int) -> None:
    async with _fresh(make) as env:
        actions, observations = await _play(env, task, _Clock(), max_turns)
    half = len(actions) // 2
    async with _fresh(make) as env:
        await _play(env, task, _Clock(), half)
        before = time.perf_counter()
        twin = await fork_env(
            env,
            make=make,
            task=task,
            seed=0,
            actions=actions[:half],
            observations=observations[: half + 1],
        )
        clock.fork.append(time.perf_counter() - before)
        await twin.close()


def _text(observation: Observation) -> str:
    return "\n".join(message.text for message in observation)
