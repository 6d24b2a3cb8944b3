"""What is cancelled cleans up to its end, whoever else has finished by then."""

from __future__ import annotations

import asyncio

import pytest
from rollout_fakes import CountEnv, RuleEngine, stage

from agentrl.core.env import StepResult
from agentrl.core.types import Task
from agentrl.rollout.deadline import OverdueError, all_of, within
from agentrl.rollout.episode import LiveEpisode
from agentrl.samplers import ChainSampler


async def test_works_that_are_cancelled_together_all_clean_up_to_their_end() -> None:
    cleaned = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            # The first to have cleaned up ends what waits for all of them.
            for _ in range(3 * number):
                await asyncio.sleep(0)
            cleaned.append(number)

    together = asyncio.ensure_future(all_of(work(number) for number in range(4)))
    await asyncio.sleep(0.01)
    together.cancel()
    with pytest.raises(asyncio.CancelledError):
        await together
    assert cleaned == [0, 1, 2, 3]


async def test_the_first_error_cancels_the_others_once_and_waits_for_them() -> None:
    cleaned = []

    async def work(number: int) -> None:
        try:
            await asyncio.sleep(0.01 if number == 0 else 3600)
            raise ValueError("the first")
        finally:
            for _ in range(3 * number):
                await asyncio.sleep(0)
            cleaned.append(number)

    with pytest.raises(ValueError, match="the first"):
        await all_of(work(number) for number in range(3))
    assert cleaned == [0, 1, 2]


async def test_what_comes_after_the_deadline_or_to_nobody_is_handed_over_once() -> None:
    late: list[str] = []

    async def stubborn(said: str) -> str:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            return f"{said}, late"
        return said

    with pytest.raises(OverdueError):
        await within(stubborn("a"), 0.001, late=late.append)
    for _ in range(3):
        await asyncio.sleep(0)
    assert late == ["a, late"]
    assert await within(stubborn("b"), 60.0, late=late.append) == "b"

    async def at_once() -> str:
        return "c"

    # It has returned, and whoever waits for it has not heard of it yet.
    waiting = asyncio.ensure_future(within(at_once(), 60.0, late=late.append))
    for _ in range(2):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert late == ["a, late", "c"]


@pytest.mark.parametrize("after", [0.02, 0.05])
async def test_environments_that_close_slowly_are_closed_whenever_the_cancellation_comes(
    after: float,
) -> None:
    """While they act, and while the first of them close already."""
    made: list[CountEnv] = []

    class Slow(CountEnv):
        def __init__(self) -> None:
            super().__init__()
            self.number = len(made)
            made.append(self)

        async def step(self, action: str) -> StepResult:
            await asyncio.sleep(0.04 if self.number < 2 else 3600)
            return await super().step(action)

        async def close(self) -> None:
            await asyncio.sleep(0.02 * (1 + self.number))
            await super().close()

    setting = stage(RuleEngine(lambda prompt, seed: ("stop", 1.0)), Slow)

    async def start(task: Task, seed: int) -> LiveEpisode:
        return await LiveEpisode.start(setting, task, seed=seed)

    sampling = asyncio.ensure_future(ChainSampler(trajectories=4).sample(Task("t"), start, seed=0))
    await asyncio.sleep(after)
    sampling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sampling
    assert len(made) == 4 and all(env.closed for env in made)
    assert not setting.live and not setting.slots.locked()
