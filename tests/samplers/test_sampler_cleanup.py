"""Samplers that are cancelled while they clean up."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import CountEnv, RuleEngine, stage
from sampler_fakes import by_turn, starter

from agentrl.core.types import Task
from agentrl.samplers import (
    ArpoSampler,
    At2poSampler,
    MctsSampler,
    SpoSampler,
    TreeRlSampler,
    TreeSampler,
)


@pytest.mark.parametrize(
    "sampler",
    [
        TreeSampler(trees=2, expansions=2, rounds=2),
        At2poSampler(initial=2, expansions=2, rounds=1),
        SpoSampler(widths=(2, 2)),
        ArpoSampler(trajectories=4, initial=2),
        MctsSampler(simulations=3),
        TreeRlSampler(trees=2, expansions=1),
    ],
)
async def test_whoever_asks_again_while_environments_close_leaves_none_of_them_open(sampler):
    """Whenever the second cancellation comes, while the first is being heard."""
    made = []

    class Slow(CountEnv):
        def __init__(self):
            super().__init__()
            made.append(self)

        async def fork(self):
            twin = await super().fork()
            twin.closed = 0
            made.append(twin)
            return twin

        async def close(self):
            closing.set()
            await asyncio.sleep(0.01)
            await super().close()

    for later in range(0, 40, 4):
        made.clear()
        closing = asyncio.Event()
        setting = stage(RuleEngine(by_turn([1.0, 2.0, 3.0])), Slow)
        sampling = asyncio.ensure_future(sampler.sample(Task("t"), starter(setting), seed=0))
        await closing.wait()
        sampling.cancel()
        await asyncio.sleep(0.001 * later)
        sampling.cancel()
        await asyncio.wait([sampling])
        assert made and all(env.closed for env in made)
        assert not setting.live and not setting.slots.locked()
