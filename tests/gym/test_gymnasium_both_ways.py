from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

sys.path.append(str(Path(__file__).parent))

import toy_gyms

from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.registry import env_ids, make_env
from agentrl.core.types import Task
from agentrl.envs.demo import CalculatorEnv
from agentrl.gym import FromGymnasium, GymnasiumEnv, gymnasium_id, register_all
from agentrl.testing import check_env

DEMOS = [id_ for id_ in env_ids() if id_.startswith("demo/")]


@pytest.mark.parametrize("id_", DEMOS)
def test_gymnasiums_own_checker_has_nothing_to_say(id_):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(gymnasium_id(id_))
        gymnasium_check(env.unwrapped)
        env.close()
    assert env.spec.id == gymnasium_id(id_)


def test_all_ids_are_registered_once():
    assert {gymnasium_id(id_) for id_ in env_ids()} <= set(gymnasium.registry)
    assert register_all() == []
    assert gymnasium.make("agentrl.gym:agentrl/demo-guess", highest=5).unwrapped.env.highest == 5


def test_an_episode_in_gymnasium_is_the_episode_itself():
    env = gymnasium.make("agentrl/demo-calculator", render_mode="ansi")
    text, info = env.reset(seed=5, options={"task": "eval-2", "split": "eval"})
    task = CalculatorEnv().tasks("eval")[2]
    assert info["task"] == "eval-2" and info["seed"] == 5
    assert text == CalculatorEnv().prompt(task)
    for turn in range(3):
        last = env.step(CalculatorEnv().gold_action(task, turn))
    assert last[1:4] == (1.0, True, False)
    assert last[4]["rewards"] == {"correct": 1.0}
    assert text in env.render() and "<answer>" in env.render()
    env.close()


def test_a_task_is_drawn_from_the_generator_where_none_is_given():
    env = GymnasiumEnv("demo/calculator")
    drawn = [env.reset(seed=0)[1]["task"], *(env.reset()[1]["task"] for _ in range(5))]
    again = [env.reset(seed=0)[1]["task"], *(env.reset()[1]["task"] for _ in range(5))]
    assert drawn == again and len(set(drawn)) > 2
    own = env.reset(options={"task": Task("mine", {"terms": [1, 1, 1]})})
    assert own[0] == "What is 1 + 1 + 1?"
    env.close()
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tsk": "a"}, r"unknown reset option 'tsk'\. Did you mean 'task'\?"),
        ({"task": "train-99"}, r"no task 'train-99' in split 'train' of 32\. Did you mean"),
    ],
)
def test_wrong_options_are_refused(options, message):
    env = GymnasiumEnv(CalculatorEnv())
    with pytest.raises(RecipeError, match=message):
        env.reset(options=options)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("x")
    with pytest.raises(RecipeError, match="go with an id"):
        GymnasiumEnv(CalculatorEnv(), max_turns=3)


async def test_a_gymnasium_env_works_inside_of_a_running_event_loop():
    env = GymnasiumEnv("demo/guess")
    text, _ = env.reset(seed=0)
    assert text.startswith("Guess")
    env.close()


def corridor(**settings):
    return make_env(
        "gym:toy/Corridor-v0",
        actions=["left", "right"],
        formatter="toy_gyms:describe",
        **settings,
    )


async def test_a_foreign_env_keeps_our_contract():
    scripts = [["right"] * 8, ["left", "right", "jump"]]
    report = await check_env(
        lambda: corridor(kwargs={"slippery": True}, max_turns=12), scripts=scripts
    )
    assert "leak" in report.checked
    parrot = await check_env(lambda: make_env("gym:toy/Parrot-v0", max_turns=6), scripts=[["bye"]])
    assert "fork" in parrot.checked


async def test_named_actions_are_played_and_others_are_told():
    env = corridor(prompt="Reach room 5.", action_tag="answer")
    assert env.stop == ("</answer>",)
    task = env.tasks("train")[0]
    (message,) = await env.reset(task, seed=0)
    start = int(message.text.split("room ")[2][0])
    assert message.text == f"Reach room 5.\nYou are in room {start}.\nActions: left, right."
    wrong = await env.step("<answer>jump</answer>")
    assert wrong.observation[0].text == "error: 'jump' is no action. Actions: left, right."
    assert wrong.info.malformed_calls == 1 and not wrong.truncated
    untagged = await env.step("right")
    assert "between <answer> and </answer>" in untagged.observation[0].text
    moved = await env.step("I <answer>left</answer></think>so <answer> Right </answer>")
    assert moved.observation[0].text == f"You are in room {start + 1}."
    while not moved.terminated:
        moved = await env.step("<answer>right</answer>")
    assert (moved.reward, dict(moved.info.rewards)) == (1.0, {"reward": 1.0})
    with pytest.raises(EnvError, match="after the end"):
        await env.step("right")
    await env.close()


async def test_tasks_are_seeds_and_their_episodes_begin_alike():
    env = corridor(seeds=20)
    train, held_out = env.tasks("train"), env.tasks("eval")
    assert len({task.data["seed"] for task in (*train, *held_out)}) == 40
    firsts = [(await env.reset(task, seed=0), await env.reset(task, seed=1)) for task in train]
    assert all(one == other for one, other in firsts)
    assert len({one for one, _ in firsts}) == 3
    free = {await env.reset(Task("free"), seed=seed) for seed in range(20)}
    assert len(free) == 3
    await env.close()


async def test_the_turn_limit_truncates_and_an_end_is_one_of_two():
    env = corridor(max_turns=2)
    await env.reset(env.tasks("train")[0], seed=0)
    assert not (await env.step("nonsense")).truncated
    assert (await env.step("nonsense")).truncated
    await env.close()
    parrot = FromGymnasium("toy/Parrot-v0")
    await parrot.reset(parrot.tasks("train")[0], seed=0)
    said = await parrot.step(" bye ")
    assert (said.terminated, said.truncated) == (True, False)
    await parrot.close()


async def test_blocking_steps_stay_on_one_thread_and_off_the_event_loop():
    toy_gyms.Corridor.threads.clear()
    env = corridor()
    await env.reset(env.tasks("train")[0], seed=0)
    await env.step("left")
    await env.step("left")
    assert len(toy_gyms.Corridor.threads) == 1
    ticks = 0
    sleeping = asyncio.ensure_future(env._thread.call(lambda: time.sleep(0.2)))
    while not sleeping.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert ticks > 3
    await env.close()
    await env.close()


@pytest.mark.parametrize(
    ("id_", "settings", "error", "message"),
    [
        ("toy/Parot-v0", {}, RecipeError, "has no environment 'toy/Parot-v0'. Did you mean 'toy/"),
        ("toy/Box-v0", {}, RecipeError, "only Text and Discrete can be played"),
        ("toy/Corridor-v0", {}, EnvError, "observes int, not text: give `formatter`"),
        ("toy/Corridor-v0", {"actions": ["left"]}, RecipeError, "has 2 actions: `actions` must"),
        ("toy/Parrot-v0", {"actions": ["a"]}, RecipeError, "`actions` would have no effect"),
        ("toy/Corridor-v0", {"formatter": "no:no"}, RecipeError, "is no 'module:function'"),
        ("toy/Corridor-v0", {"kwargs": {"x": 1}}, EnvError, "unexpected keyword argument"),
    ],
)
async def test_what_cannot_be_played_is_refused_with_the_reason(id_, settings, error, message):
    env = FromGymnasium(id_, **settings)
    with pytest.raises(error) as caught:
        await env.reset(env.tasks("train")[0], seed=0)
    assert message in str(caught.value)
    await env.close()


async def test_an_exception_of_the_env_is_an_env_error():
    env = FromGymnasium("toy/Parrot-v0")
    await env.reset(env.tasks("train")[0], seed=0)
    with pytest.raises(EnvError, match=r"toy/Parrot-v0 failed: RuntimeError: the parrot fell off"):
        await env.step("crash")
    await env.close()


async def test_a_hanging_env_can_be_closed_and_reset_afresh():
    env = corridor()
    task = env.tasks("train")[0]
    first = await env.reset(task, seed=0)
    release = threading.Event()
    env._env.unwrapped.step = lambda action: release.wait(10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(env.step("left"), 0.05)
    await asyncio.wait_for(env.close(), 1)
    assert await asyncio.wait_for(env.reset(task, seed=0), 1) == first
    assert (await env.step("left")).observation
    release.set()
    await env.close()
