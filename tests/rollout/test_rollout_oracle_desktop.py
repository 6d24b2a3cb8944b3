"""The desktop suite's scripted solutions and spoiled ones, through the whole rollout path."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from rollout_fakes import tokenizer

from agentrl.core.registry import make_env
from agentrl.core.types import StopReason
from agentrl.engine.settings import ScriptedSettings
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import ChainSampler

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "envs"))
from desktop_processes import needs_desktop

pytestmark = [pytest.mark.slow, pytest.mark.desktop, pytest.mark.bubblewrap, needs_desktop]
COUNTS = {"train": 16, "eval": 10}
AT_ONCE = 3


async def sweep(split, tmp_path, *, script, settings):
    """Every task of a split played by `script`: its trajectory by the task's id."""
    tokenizer().save_pretrained(tmp_path)
    host = RolloutHost(
        HostSpec(
            env_id="desktop/tasks",
            env_args=settings,
            engine=ScriptedSettings(script=script),
            model=str(tmp_path),
            sampler=ChainSampler(trajectories=1),
            rollout=RolloutSettings(
                sampling=SamplingSettings(max_tokens_per_turn=2048),
                limits=LimitsSettings(max_turns=8, max_tokens=262_144),
            ),
        )
    )
    tasks = make_env("desktop/tasks", **settings).tasks(split)
    room = asyncio.Semaphore(AT_ONCE)

    async def play(task):
        async with room:
            return await host.sample_group(task, seed=0)

    await host.start()
    try:
        groups = await asyncio.gather(*map(play, tasks))
    finally:
        await host.close()
    played = {group.task_id: one for group in groups for one in group.trajectories()}
    assert len(played) == len(tasks) == COUNTS[split]
    return played


@pytest.mark.parametrize("split", COUNTS)
async def test_every_solution_scores_through_the_whole_rollout_path(split, tmp_path):
    played = await sweep(split, tmp_path, script="oracle", settings={"desktops": 4})
    exceptions = {
        id_: (str(one.stop_reason), one.episode_return)
        for id_, one in played.items()
        if one.stop_reason is not StopReason.TERMINATED or one.episode_return != 1.0
    }
    assert exceptions == {}
    assert not any(turn.malformed_calls for one in played.values() for turn in one.turns)
    assert all(call.ok for one in played.values() for turn in one.turns for call in turn.tool_calls)


@pytest.mark.parametrize("split", COUNTS)
async def test_no_spoiled_solution_scores_through_the_whole_rollout_path(split, tmp_path):
    settings = {"desktops": 4, "max_turns": 2}
    played = await sweep(split, tmp_path, script="spoiled_oracle", settings=settings)
    assert {one.episode_return for one in played.values()} == {0.0}
    assert {one.stop_reason for one in played.values()} == {StopReason.TRUNCATED_TURNS}
    assert all(turn.malformed_calls for one in played.values() for turn in one.turns)
