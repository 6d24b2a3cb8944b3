"""Sweeps: tasks played by a script, gold or spoiled, through the whole rollout path."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import pytest
from rollout_fakes import tokenizer

from agentrl.core.env import Env
from agentrl.core.registry import make_env
from agentrl.core.types import StopReason, Task, Trajectory
from agentrl.engine.settings import ScriptedSettings
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import AnySampler, ChainSampler

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
"""Data sets that the sweeps read where they are there; the project does not need them."""

Script: TypeAlias = Literal["oracle", "spoiled_oracle"]


def needs_data(name: str) -> pytest.MarkDecorator:
    """Skips a test where a file or folder of the shared data is not there."""
    there = (SHARED_DATA / name).exists()
    return pytest.mark.skipif(not there, reason=f"the data set {name} is not in {SHARED_DATA}")


async def swept(
    env_id: str,
    env_args: Mapping[str, Any] | None = None,
    *,
    folder: Path,
    tasks: str | Sequence[Task],
    script: Script = "oracle",
    sampler: AnySampler | None = None,
    at_once: int = 64,
    make: Callable[[], Env] | None = None,
) -> list[Trajectory]:
    """The trajectories of `tasks`, or of all tasks of the split of that name, in their order.

    Each is played once, or as `sampler` does, with at most `at_once` episodes open; `make` makes
    another environment than `env_id` names. The limits are wide, so that an episode ends as the
    environment says, and none may have failed.
    """
    tokenizer().save_pretrained(folder)
    spec = HostSpec(
        env_id=env_id,
        env_args=dict(env_args or {}),
        engine=ScriptedSettings(script=script),
        model=str(folder),
        sampler=sampler or ChainSampler(trajectories=1),
        rollout=RolloutSettings(
            concurrency=at_once,
            sampling=SamplingSettings(max_tokens_per_turn=65_536),
            limits=LimitsSettings(max_turns=64, max_tokens=1_000_000),
        ),
    )
    if isinstance(tasks, str):
        tasks = make_env(env_id, **spec.env_args).tasks(tasks)
    host = RolloutHost(spec, make_env=make)
    await host.start()
    try:
        groups = await asyncio.gather(*(host.sample_group(task, seed=0) for task in tasks))
    finally:
        await host.close()
    assert [group.task_id for group in groups] == [task.id for task in tasks]
    assert not [failure for group in groups for tree in group.trees for failure in tree.failures]
    return [one for group in groups for one in group.trajectories()]


class End(NamedTuple):
    """How a trajectory ended, for messages."""

    task_id: str
    stop: StopReason
    earned: float
    rewards: Mapping[str, float]


def exceptions(
    played: Sequence[Trajectory], wanted: float, *, stop: StopReason = StopReason.TERMINATED
) -> list[End]:
    """What ended otherwise than for the reason `stop` with a return of `wanted`."""
    return [
        End(one.tree.task_id, one.stop_reason, one.episode_return, one.turns[-1].rewards)
        for one in played
        if one.stop_reason is not stop or one.episode_return != wanted
    ]


def malformed(played: Sequence[Trajectory]) -> list[int]:
    """The number of malformed calls of each turn."""
    return [turn.malformed_calls for one in played for turn in one.turns]


def calls(played: Sequence[Trajectory]) -> Counter[bool]:
    """How many calls succeeded (True) and how many did not (False)."""
    return Counter(call.ok for one in played for turn in one.turns for call in turn.tool_calls)
