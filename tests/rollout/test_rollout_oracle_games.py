"""Oracles of the games, the household and the shop, through the whole rollout path."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from rollout_fakes import tokenizer

from agentrl.core.registry import make_env
from agentrl.core.types import StopReason, Task, Trajectory
from agentrl.engine.settings import ScriptedSettings
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import ChainSampler

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
BOXOBAN = DATA / "sokoban_boxoban"
MAPS = DATA / "frozenlake_maps" / "maps.jsonl"


class Suite(NamedTuple):
    """An environment with settings under which a solved task earns 1.0, and its number of tasks."""

    env_id: str
    args: dict[str, object]
    tasks: int


MADE = {
    "sokoban": Suite("games/sokoban", {"reward": "binary"}, 64),
    "sokoban_two_boxes": Suite(
        "games/sokoban",
        {"size": 8, "boxes": 2, "reward": "binary", "actions_per_turn": 5, "end_on_deadlock": True},
        64,
    ),
    "frozenlake": Suite("games/frozenlake", {"size": 8, "max_turns": 30}, 64),
    "household": Suite("household/tasks", {"admissible": True}, 96),
    "webshop": Suite("webshop/tasks", {}, 128),
}


async def play(suite: Suite, model: Path, tasks: Sequence[Task], script: str) -> list[Trajectory]:
    """Each of `tasks` once, by the oracle or its spoiled form."""
    tokenizer().save_pretrained(model)
    spec = HostSpec(
        env_id=suite.env_id,
        env_args=suite.args,
        engine=ScriptedSettings(script=script),
        model=str(model),
        sampler=ChainSampler(trajectories=1),
        rollout=RolloutSettings(
            sampling=SamplingSettings(max_tokens_per_turn=2048),
            limits=LimitsSettings(max_turns=64, max_tokens=262144),
        ),
    )
    host = RolloutHost(spec)
    await host.start()
    try:
        groups = await asyncio.gather(*(host.sample_group(task, seed=0) for task in tasks))
    finally:
        await host.close()
    return [one for group in groups for one in group.trajectories()]


def unsolved(played: Sequence[Trajectory]) -> dict[str, tuple[str, float]]:
    """What did not end by itself with a return of 1.0."""
    return {
        one.tree.task_id: (str(one.stop_reason), one.episode_return)
        for one in played
        if one.stop_reason is not StopReason.TERMINATED or one.episode_return != 1.0
    }


def unspoiled(played: Sequence[Trajectory]) -> list[str]:
    """What earned something, or did not run into its limit of turns."""
    return [
        one.tree.task_id
        for one in played
        if one.episode_return != 0.0 or one.stop_reason is not StopReason.TRUNCATED_TURNS
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
async def test_the_oracle_solves_every_made_task_and_the_spoiled_one_none(name, tmp_path) -> None:
    suite = MADE[name]
    tasks = make_env(suite.env_id, **suite.args).tasks("eval")
    assert len(tasks) == suite.tasks
    played = await play(suite, tmp_path, tasks, "oracle")
    assert (len(played), unsolved(played)) == (suite.tasks, {})
    assert not any(turn.malformed_calls for one in played for turn in one.turns)
    assert all(turn.state_key for one in played for turn in one.turns)
    spoiled = await play(suite, tmp_path, tasks[:16], "spoiled_oracle")
    assert (len(spoiled), unspoiled(spoiled)) == (16, [])


@pytest.mark.slow
@pytest.mark.skipif(not BOXOBAN.is_dir(), reason=f"the Boxoban levels are not in {BOXOBAN}")
@pytest.mark.parametrize("name", ["unfiltered", "medium", "hard"])
async def test_every_stored_boxoban_solution_solves_its_level(name, tmp_path) -> None:
    args = {"levels": str(BOXOBAN / f"{name}.jsonl"), "reward": "binary", "max_turns": 40}
    suite = Suite("games/sokoban", {**args, "actions_per_turn": 25}, 600)
    tasks = make_env(suite.env_id, **suite.args).tasks("train")
    assert len(tasks) == suite.tasks
    assert all(task.data["solution"] for task in tasks)
    played = await play(suite, tmp_path, tasks, "oracle")
    assert (len(played), unsolved(played)) == (600, {})
    short = suite._replace(args={**suite.args, "max_turns": 3})
    spoiled = await play(short, tmp_path, tasks, "spoiled_oracle")
    assert (len(spoiled), unspoiled(spoiled)) == (600, [])


@pytest.mark.slow
@pytest.mark.skipif(not MAPS.is_file(), reason=f"the maps are not at {MAPS}")
async def test_the_shortest_way_crosses_every_recorded_lake(tmp_path) -> None:
    suite = Suite("games/frozenlake", {"maps": str(MAPS), "max_turns": 20}, 300)
    tasks = make_env(suite.env_id, **suite.args).tasks("train")
    assert len(tasks) == suite.tasks
    # Some of the smallest maps are there twice, and an oracle tells tasks apart by what they show.
    different = {tuple(task.data["map"]): task for task in tasks}
    assert len(different) == 276
    played = await play(suite, tmp_path, list(different.values()), "oracle")
    assert (len(played), unsolved(played)) == (276, {})
    spoiled = await play(suite, tmp_path, list(different.values())[::12], "spoiled_oracle")
    assert (len(spoiled), unspoiled(spoiled)) == (23, [])
