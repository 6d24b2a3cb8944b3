"""FrozenLake: Gymnasium's maps and dynamics, rewards, forks, optimal plans, files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.env import ROOT_STATE
from agentrl.core.errors import DataError, EnvError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.games.base import read_action
from agentrl.envs.games.frozenlake_map import (
    ACTIONS,
    Cell,
    generate_map,
    optimal_plan,
    read_maps,
    shortest_path,
    slipped,
)
from agentrl.testing import check_env

MAPS = Path(__file__).resolve().parents[3] / "shared" / "data" / "frozenlake_maps" / "maps.jsonl"
KNOWN = ("SFFF", "FHFH", "FFFH", "HFFG")


def task(lake=KNOWN) -> Task:
    return Task("one", {"map": list(lake)})


async def test_a_walk_to_the_goal_earns_one_and_a_hole_nothing() -> None:
    env = make_env("games/frozenlake")
    (first,) = await env.reset(task(), seed=0)
    assert first.text.endswith("State:\nPFFF\nFHFH\nFFFH\nHFFG")
    results = [
        await env.step(f"<answer>{one}</answer>")
        for one in ("down", "Down", "Right", "Right", "Down", "Right")
    ]
    assert results[0].observation[0].text == "State:\nSFFF\nPHFH\nFFFH\nHFFG"
    assert [one.reward for one in results] == [0.0] * 5 + [1.0]
    assert (results[-1].terminated, results[-1].info.rewards) == (True, {"goal": 1.0})
    assert results[-1].observation[0].text.endswith("You are at the goal.")
    await env.reset(task(), seed=0)
    await env.step("<answer>Down</answer>")
    fell = await env.step("<answer>Right</answer>")
    assert (fell.reward, fell.terminated, fell.info.metrics["goal"]) == (0.0, True, 0.0)
    with pytest.raises(EnvError, match="after the end"):
        await env.step("<answer>Up</answer>")


async def test_the_symbols_of_ragen_are_drawn_and_read_back() -> None:
    env = make_env("games/frozenlake", symbols="ragen", actions_per_turn=3)
    (first,) = await env.reset(task(), seed=0)
    assert first.text.endswith("State:\nP___\n_O_O\n___O\nO__G")
    assert env.expert_action(task(), [first.text]) == "<answer>Down || Down || Right</answer>"
    behind = first.text + "<|im_end|>\nassistant\n"
    assert env.expert_action(task(), [behind]) == "<answer>Down || Down || Right</answer>"


@settings(max_examples=50, deadline=None)
@given(size=st.integers(2, 9), p=st.floats(0.5, 1.0), seed=st.integers(0, 2**32))
def test_the_generator_gives_gymnasiums_maps(size, p, seed) -> None:
    assert list(generate_map(size, p, seed)) == generate_random_map(size, p, seed)


@settings(max_examples=30, deadline=None)
@given(
    map_seed=st.integers(0, 1000),
    seed=st.integers(0, 2**31),
    rate=st.sampled_from([1.0 / 3.0, 0.8, 0.0, 1.0]),
)
def test_slippery_ice_turns_moves_as_gymnasiums_does(map_seed, seed, rate) -> None:
    lake = generate_map(5, 0.9, map_seed)
    theirs = gymnasium.make(
        "FrozenLake-v1", desc=list(lake), is_slippery=True, success_rate=rate
    ).unwrapped
    ours = make_env("games/frozenlake", slippery=True, success_rate=rate, max_turns=50)
    theirs.reset(seed=seed)
    ours._reset(task(lake), seed)
    rng = random.Random(seed)
    for _ in range(50):
        action = rng.randrange(4)
        place, reward, ended, _, _ = theirs.step(action)
        result = ours._step(f"<answer>{ACTIONS[action]}</answer>")
        assert tuple(ours._cell) == divmod(place, 5)
        assert (result.reward, result.terminated) == (reward, ended)
        if ended:
            break


def test_a_move_turns_by_the_cumulated_chances() -> None:
    down = 1
    turned = [slipped(down, draw, 0.5) for draw in (0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999)]
    assert turned == [0, 0, 1, 1, 2, 2]
    assert [slipped(0, draw, 1 / 3) for draw in (0.1, 0.9)] == [3, 1]


async def test_a_fork_slips_as_its_original_and_a_seed_fixes_it() -> None:
    env = make_env("games/frozenlake", slippery=True, max_turns=40)
    one = task(("SFFFFF", *["FFFFFF"] * 4, "FFFFFG"))
    await env.reset(one, seed=5)
    for _ in range(3):
        await env.step("<answer>Right</answer>")
    twin = await env.fork()

    async def walk(player):
        return [(await player.step("<answer>Up</answer>")).observation for _ in range(10)]

    first = await walk(env)
    assert first == await walk(twin)


async def test_state_keys_name_the_place_and_not_the_way_to_it() -> None:
    env = make_env("games/frozenlake", p=1.0, train_tasks=1, eval_tasks=0)
    lake = task(("SFF", "FFF", "FFG"))
    keys = []
    for way in (("Down", "Right"), ("Right", "Down"), ("Right", "Left"), ("Up",)):
        await env.reset(lake, seed=0)
        keys.append([(await env.step(f"<answer>{one}</answer>")).info.state_key for one in way][-1])
    assert keys[0] == keys[1] != ROOT_STATE
    assert keys[2] == keys[3] == ROOT_STATE


def test_the_value_of_gymnasiums_standard_map_is_fourteen_seventeenths() -> None:
    plan = optimal_plan(KNOWN, 1.0 / 3.0, discount=1.0)
    assert plan.values[Cell(0, 0)] == pytest.approx(14 / 17, abs=1e-6)
    assert Cell(1, 1) not in plan.actions  # a hole


def test_the_plan_on_firm_ice_is_a_shortest_way() -> None:
    for seed in range(20):
        lake = generate_map(6, 0.8, seed)
        actions = optimal_plan(lake, 1.0).actions
        cell, steps = Cell(0, 0), 0
        while lake[cell.row][cell.column] != "G":
            action = actions[cell]
            row, column = ((0, -1), (1, 0), (0, 1), (-1, 0))[action]
            cell, steps = Cell(cell.row + row, cell.column + column), steps + 1
        assert steps == len(shortest_path(lake, Cell(0, 0)))


async def test_the_best_action_on_slippery_ice_arrives_as_often_as_its_value_says() -> None:
    env = make_env("games/frozenlake", slippery=True, max_turns=200)
    wins = 0
    for seed in range(300):
        seen = [env._reset(task(), seed)[0].text]
        while not env._over:
            result = env._step(env.best_action(task(), seen))
            seen = [result.observation[0].text]
        wins += result.reward
    assert wins / 300 == pytest.approx(14 / 17, abs=0.07)  # three standard errors
    assert env.expert_action(task(), [env._reset(task(), 0)[0].text]) is None


async def test_both_kinds_of_ice_keep_the_contract() -> None:
    firm = await check_env(lambda: make_env("games/frozenlake", train_tasks=4, eval_tasks=2))
    assert "gold" in firm.checked
    wet = await check_env(lambda: make_env("games/frozenlake", slippery=True, actions_per_turn=3))
    assert dict(wet.skipped) == {"gold": "the env has no gold actions"}


def test_no_map_is_in_both_splits_or_twice() -> None:
    env = make_env("games/frozenlake")
    train, other = ([tuple(one.data["map"]) for one in env.tasks(s)] for s in ("train", "eval"))
    assert (len(set(train)), len(set(other))) == (256, 64)
    assert not set(train) & set(other)


def test_demonstrations_reach_the_goal_and_slippery_ice_has_none() -> None:
    env = make_env("games/frozenlake", train_tasks=1)
    shown = next(env.demonstrations(seed=0))
    env._reset(env.tasks("train")[0], 0)
    assert [env._step(action).reward for action, _ in shown.turns][-1] == 1.0
    assert next(make_env("games/frozenlake", slippery=True).demonstrations(seed=0), None) is None


@pytest.mark.parametrize(
    ("lake", "said"),
    [
        (["SF", "FGF"], "rows of equal length"),
        (["SX", "FG"], "made of S, F, H and G"),
        (["SF", "SG"], "one S and a G"),
        (["SH", "HG"], "no way leads"),
        ("SFFG", "list of texts"),
    ],
)
def test_a_map_that_cannot_be_played_is_refused_with_its_place(tmp_path, lake, said) -> None:
    path = tmp_path / "maps.jsonl"
    path.write_text(json.dumps({"map": ["SF", "FG"]}) + "\n" + json.dumps({"map": lake}))
    with pytest.raises(DataError, match=said) as caught:
        read_maps(str(path))
    assert "maps.jsonl:2" in str(caught.value)


def test_mistakes_in_settings_are_named() -> None:
    for settings_ in ({"size": 1}, {"p": 0.0}, {"success_rate": 2.0}, {"invalid_reward": 1.0}):
        with pytest.raises(RecipeError):
            make_env("games/frozenlake", **settings_)
    with pytest.raises(DataError, match="more turns"):
        make_env("games/frozenlake", max_turns=5, train_tasks=1).tasks("train")
    with pytest.raises(DataError, match="ask for fewer"):
        make_env("games/frozenlake", size=2, train_tasks=5).tasks("train")


def test_an_action_is_read_from_its_one_tag_after_the_thoughts() -> None:
    def command(text, tag="answer"):
        return read_action(text, tag).command

    assert command("<think>a <answer>Up</answer></think> so <answer> Down </answer>") == "Down"
    assert command("a thought</think><answer>Up</answer>") == "Up"
    assert command("Up", "none") == command("<think>x</think>\nUp\n", "none") == "Up"
    for text in (
        "Up",
        "<answer>Up",
        "Up</answer>",
        "<answer></answer>",
        "<answer>Up</answer><answer>Down</answer>",
        "<answer>Up</answer> and on",
        "<think><answer>Up</answer>",
        "</answer><answer>Up</answer>",
        "<action>Up</action>",
    ):
        assert command(text) == ""
        assert read_action(text, "answer").mistake


@pytest.mark.skipif(not MAPS.is_file(), reason=f"the maps are not at {MAPS}")
def test_all_recorded_maps_and_shortest_paths_come_out_again() -> None:
    rows = [json.loads(line) for line in MAPS.read_text().splitlines()]
    assert len(rows) == 300
    for row in rows:
        lake = generate_map(row["size"], row["p"], row["seed"])
        assert list(lake) == row["map"] == generate_random_map(row["size"], row["p"], row["seed"])
        assert len(shortest_path(lake, Cell(0, 0))) == row["shortest_path"]
