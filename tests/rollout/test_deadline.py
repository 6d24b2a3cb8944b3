"""What is cancelled cleans up to its end, whoever else has finished by then."""

from __future__ import annotations

import asyncio

import pytest
from rollout_fakes import CountEnv, RuleEngine, stage

from agentrl.core.env import StepResult
from agentrl.core.types import Task
from agentrl.rollout.deadline import OverdueError, all_of, to_its_end
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


async def test_cleaning_up_goes_on_when_it_is_cancelled_and_is_given_up_at_its_deadline() -> None:
    cleaned = []

    async def clean(seconds: float) -> str:
        await asyncio.sleep(seconds)
        cleaned.append(seconds)
        return "clean"

    assert await to_its_end(clean(0.0), 60.0) == "clean"
    cleaning = asyncio.ensure_future(to_its_end(clean(0.02), 60.0))
    await asyncio.sleep(0.001)
    cleaning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cleaning
    assert cleaned == [0.0, 0.02]
    endless = asyncio.ensure_future(to_its_end(clean(3600.0), 0.02))
    await asyncio.sleep(0.001)
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(endless, 60.0)
    with pytest.raises(OverdueError):
        await to_its_end(clean(3600.0), 0.001)

    async def odd() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled itself"):
        await to_its_end(odd(), 60.0)


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
