"""The experts of MiniWoB++ through the whole rollout path: right on every page, spoiled on none."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from rollout_fakes import tokenizer

from agentrl.core.types import StopReason, Task, Trajectory
from agentrl.engine.settings import ScriptedSettings
from agentrl.envs.miniwob import MiniWobEnv
from agentrl.envs.miniwob.browser import PROGRAMS
from agentrl.envs.miniwob.catalogue import DEFAULT_PAGES
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import ChainSampler

AT_ONCE = 6
"""Episodes that are open at the same time."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        not any(map(shutil.which, PROGRAMS)), reason="no Chromium: apt-get install chromium"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("miniwob") is None, reason='pip install "agentrl[miniwob]"'
    ),
]


async def play(tasks: Sequence[Task], model: Path, *, script: str) -> dict[str, Trajectory]:
    """Each of `tasks` once, by id; their prompts differ, since each is of another page."""
    tokenizer().save_pretrained(model)
    spec = HostSpec(
        env_id="miniwob/tasks",
        engine=ScriptedSettings(script=script),
        model=str(model),
        sampler=ChainSampler(trajectories=1),
        rollout=RolloutSettings(
            sampling=SamplingSettings(max_tokens_per_turn=2048),
            limits=LimitsSettings(max_turns=20, max_tokens=1_000_000),
        ),
    )
    host = RolloutHost(spec)
    await host.start()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(task: Task) -> Trajectory:
        async with gate:
            group = await host.sample_group(task, seed=0)
        failures = [failure for tree in group.trees for failure in tree.failures]
        assert not failures, f"{task.id}: {failures}"
        (trajectory,) = group.trajectories()
        return trajectory

    try:
        played = await asyncio.gather(*map(one, tasks))
    finally:
        await host.close()
    return {task.id: trajectory for task, trajectory in zip(tasks, played, strict=True)}


async def test_the_experts_solve_every_page_through_the_whole_rollout_path(tmp_path):
    tasks = MiniWobEnv(eval_seeds=1).tasks("eval")
    assert [task.data["page"] for task in tasks] == list(DEFAULT_PAGES)
    played = await play(tasks, tmp_path, script="oracle")
    exceptions = {
        id_: (str(one.stop_reason), one.episode_return)
        for id_, one in played.items()
        if one.stop_reason is not StopReason.TERMINATED or one.episode_return != 1.0
    }
    assert exceptions == {}
    assert not any(turn.malformed_calls for one in played.values() for turn in one.turns)


async def test_spoiled_experts_earn_nothing(tmp_path):
    tasks = MiniWobEnv(eval_seeds=1).tasks("eval")
    played = await play(tasks[::2], tmp_path, script="spoiled_oracle")
    assert {one.stop_reason for one in played.values()} == {StopReason.TRUNCATED_TURNS}
    assert {one.episode_return for one in played.values()} == {0.0}
    assert {turn.malformed_calls for one in played.values() for turn in one.turns} == {1}
