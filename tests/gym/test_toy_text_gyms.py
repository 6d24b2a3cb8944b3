"""Gymnasium's own text environments, played through our contract with numbers put into words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.testing import check_env

MOVES = ["left", "down", "right", "up"]
CASES = {
    "FrozenLake-v1": {"actions": MOVES, "formatter": "builtins:str"},
    "CliffWalking-v1": {"actions": ["up", "right", "down", "left"], "formatter": "builtins:str"},
    "Taxi-v4": {
        "actions": ["south", "north", "east", "west", "pick up", "drop off"],
        "formatter": "builtins:str",
    },
    "Blackjack-v1": {"actions": ["stick", "hit"], "formatter": "builtins:str"},
}


@pytest.mark.parametrize("id_", list(CASES))
async def test_it_keeps_our_contract(id_: str) -> None:
    settings = {**CASES[id_], "max_turns": 6, "seeds": 3}
    report = await check_env(
        lambda: make_env(f"gym:{id_}", **settings),
        scripts=[[CASES[id_]["actions"][-1]] * 6, list(CASES[id_]["actions"])],
    )
    assert {"fork", "leak", "repeat", "ends"} <= set(report.checked)


async def test_a_lake_that_is_not_slippery_is_crossed() -> None:
    env = make_env(
        "gym:FrozenLake-v1", **CASES["FrozenLake-v1"], kwargs={"is_slippery": False}, max_turns=9
    )
    (first,) = await env.reset(Task("t", {"seed": 0}), seed=0)
    assert first.text == "0\nActions: left, down, right, up."
    rewards = []
    for move in ("down", "down", "right", "right", "down", "right"):
        result = await env.step(move)
        rewards.append(result.reward)
    assert rewards == [0, 0, 0, 0, 0, 1] and result.terminated
    await env.close()


async def test_a_cliff_costs_and_is_no_end() -> None:
    env = make_env("gym:CliffWalking-v1", **CASES["CliffWalking-v1"], max_turns=3)
    await env.reset(Task("t", {"seed": 0}), seed=0)
    fall = await env.step("right")
    assert (fall.reward, fall.terminated, fall.observation[0].text) == (-100.0, False, "36")
    await env.close()
