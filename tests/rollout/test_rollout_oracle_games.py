"""Oracles of games, the household and the shop that are in no suite, through the rollout path."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from sweeps import SHARED_DATA, exceptions, malformed, needs_data, swept

from agentrl.core.registry import make_env
from agentrl.core.types import StopReason

MAPS = "frozenlake_maps/maps.jsonl"
TRUNCATED = StopReason.TRUNCATED_TURNS


class Suite(NamedTuple):
    """An environment with settings under which a solved task earns 1.0, and its number of tasks."""

    env_id: str
    args: dict[str, Any]
    tasks: int


MADE = {
    "sokoban_two_boxes": Suite(
        "games/sokoban",
        {"size": 8, "boxes": 2, "reward": "binary", "actions_per_turn": 5, "end_on_deadlock": True},
        64,
    ),
    "household": Suite("household/tasks", {"admissible": True}, 96),
    "webshop": Suite("webshop/tasks", {}, 128),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
async def test_the_oracle_solves_every_made_task_and_the_spoiled_one_none(name, tmp_path) -> None:
    suite = MADE[name]
    tasks = make_env(suite.env_id, **suite.args).tasks("eval")
    assert len(tasks) == suite.tasks
    played = await swept(suite.env_id, suite.args, folder=tmp_path, tasks=tasks)
    assert (len(played), exceptions(played, 1.0)) == (suite.tasks, [])
    assert not any(malformed(played))
    assert all(turn.state_key for one in played for turn in one.turns)
    spoiled = await swept(
        suite.env_id, suite.args, folder=tmp_path, tasks=tasks[:16], script="spoiled_oracle"
    )
    assert (len(spoiled), exceptions(spoiled, 0.0, stop=TRUNCATED)) == (16, [])


@pytest.mark.slow
@needs_data(MAPS)
async def test_the_shortest_way_crosses_every_recorded_lake(tmp_path) -> None:
    args = {"maps": str(SHARED_DATA / MAPS), "max_turns": 20}
    tasks = make_env("games/frozenlake", **args).tasks("train")
    assert len(tasks) == 300
    # Some of the smallest maps are there twice, and an oracle tells tasks apart by what they show.
    different = list({tuple(task.data["map"]): task for task in tasks}.values())
    assert len(different) == 276
    played = await swept("games/frozenlake", args, folder=tmp_path, tasks=different)
    assert (len(played), exceptions(played, 1.0)) == (276, [])
    spoiled = await swept(
        "games/frozenlake", args, folder=tmp_path, tasks=different[::12], script="spoiled_oracle"
    )
    assert (len(spoiled), exceptions(spoiled, 0.0, stop=TRUNCATED)) == (23, [])
