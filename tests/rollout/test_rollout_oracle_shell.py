"""The solutions of the shell tasks through the whole rollout path: all right, spoiled none."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest
from rollout_fakes import tokenizer

from agentrl.core.types import StopReason
from agentrl.engine.settings import ScriptedSettings
from agentrl.envs.code.shell_rows import own_tasks
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import ChainSampler
from agentrl.sandbox import DockerSettings, shared

DOCKER = {"type": "docker", "image": "agentrl-test:latest", "pull": "never", "containers": 4}
BUBBLEWRAP = {"type": "bubblewrap", "preload": []}


def need(sandbox):
    if sandbox["type"] == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not there: apt-get install bubblewrap")
    if sandbox["type"] == "docker":
        asked = ["sh", "-c", f"docker image inspect {DOCKER['image']}"]
        if subprocess.run(asked, capture_output=True, check=False).returncode:
            pytest.skip("no Docker daemon with the image agentrl-test:latest: run .ci/system")


async def play(split, sandbox, model, *, script):
    """Each task of the split once: how it ended, what it earned and how its calls went."""
    tokenizer().save_pretrained(model)
    spec = HostSpec(
        env_id="code/shell",
        env_args={"sandbox": sandbox},
        engine=ScriptedSettings(script=script),
        model=str(model),
        sampler=ChainSampler(trajectories=1),
        rollout=RolloutSettings(
            sampling=SamplingSettings(max_tokens_per_turn=4096),
            limits=LimitsSettings(max_turns=12, max_tokens=1_000_000),
        ),
    )
    host = RolloutHost(spec)
    await host.start()
    gate = asyncio.Semaphore(4)

    async def one(task):
        async with gate:
            (trajectory,) = (await host.sample_group(task, seed=0)).trajectories()
        return trajectory

    tasks = own_tasks(split)
    try:
        played = await asyncio.gather(*map(one, tasks))
    finally:
        await host.close()
        if sandbox["type"] == "docker":
            await shared(DockerSettings(**sandbox)).close()
    return {task.id: trajectory for task, trajectory in zip(tasks, played, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "sandbox"),
    [
        pytest.param("train", BUBBLEWRAP, marks=pytest.mark.bubblewrap),
        pytest.param("eval", BUBBLEWRAP, marks=pytest.mark.bubblewrap),
        pytest.param("train", DOCKER, marks=pytest.mark.docker),
        pytest.param("eval", DOCKER, marks=pytest.mark.docker),
    ],
)
async def test_every_solution_passes_its_check(split, sandbox, tmp_path):
    need(sandbox)
    played = await play(split, sandbox, tmp_path, script="oracle")
    assert len(played) == {"train": 20, "eval": 12}[split]
    exceptions = {
        id_: (str(one.stop_reason), one.episode_return)
        for id_, one in played.items()
        if one.stop_reason is not StopReason.TERMINATED or one.episode_return != 1.0
    }
    assert exceptions == {}
    assert all(call.ok for one in played.values() for t in one.turns for call in t.tool_calls)
    assert not any(t.malformed_calls for one in played.values() for t in one.turns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "sandbox"),
    [
        pytest.param("train", BUBBLEWRAP, marks=pytest.mark.bubblewrap),
        pytest.param("eval", BUBBLEWRAP, marks=pytest.mark.bubblewrap),
        pytest.param("eval", DOCKER, marks=pytest.mark.docker),
    ],
)
async def test_spoiled_solutions_earn_nothing(split, sandbox, tmp_path):
    need(sandbox)
    played = await play(split, sandbox, tmp_path, script="spoiled_oracle")
    assert {one.episode_return for one in played.values()} == {0.0}
    assert {str(one.stop_reason) for one in played.values()} == {"terminated"}
