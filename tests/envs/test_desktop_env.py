"""The desktop environment with real applications: the contract, mistakes, pictures and crashes."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from desktop_processes import descendants, needs_desktop

from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Image, Task
from agentrl.envs.desktop import DesktopEnv


def real(test):
    """Marks of a test that starts desktops."""
    for mark in (pytest.mark.slow, pytest.mark.desktop, pytest.mark.bubblewrap, needs_desktop):
        test = mark(test)
    return test


PLAIN = Task(
    "plain",
    {
        "instruction": "Make a file.",
        "config": [],
        "evaluator": {"func": "no_file", "result": {"type": "vm_file", "path": "x"}},
    },
)


def built_in(name):
    env = make_env("desktop/tasks")
    return next(one for one in (*env.tasks("train"), *env.tasks("eval")) if one.id == name)


def test_the_suite_has_its_tasks_and_all_of_them_have_solutions():
    env = make_env("desktop/tasks")
    train, held_out = env.tasks("train"), env.tasks("eval")
    assert (len(train), len(held_out)) == (16, 10)
    assert len({one.id for one in (*train, *held_out)}) == 26
    assert all(one.data["solution"] for one in (*train, *held_out))
    assert not env.refused("train") and not env.refused("eval")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"observe": []}, "something to observe"),
        ({"observe": ["sound"]}, "observe"),
        ({"max_turns": 0}, "max_turns >= 1"),
        ({"desktops": 2, "prepared": 3}, "prepared <= desktops"),
        ({"desktop": {"width": 10}}, "equal to 320"),
        ({"actions": "mouse"}, "actions"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_before_anything_starts(settings, said):
    with pytest.raises(RecipeError, match=said):
        make_env("desktop/tasks", **settings)


async def played(name, **settings):
    """An episode of a task's own solution: the result and the texts that were seen."""
    env = DesktopEnv(**settings)
    task = built_in(name)
    try:
        seen = [(await env.reset(task, seed=0))[0].text]
        while True:
            action = env.expert_action(task, seen)
            assert action is not None
            result = await env.step(action)
            if result.terminated or result.truncated:
                return result, seen
            seen.append("\n".join(one.text for one in result.observation))
    finally:
        await env.close()


@pytest.mark.parametrize("actions", ["computer_13", "pyautogui", "tools"])
@real
async def test_the_same_solution_works_in_every_way_to_write_it(actions):
    result, seen = await played("calc-buttons", actions=actions)
    assert result.reward == 1.0 and result.terminated
    assert dict(result.info.rewards) == {"success": 1.0}
    assert 'text (639, 254): "5"' in seen[-1]


@real
async def test_mistakes_are_told_and_counted_and_a_picture_is_a_picture():
    env = DesktopEnv(observe=("screenshot", "accessibility"), max_turns=7)
    try:
        (first,) = await env.reset(built_in("calc-product"), seed=0)
        picture = first.parts[1]
        assert isinstance(picture, Image) and picture.media_type == "image/png"
        assert picture.data.startswith(b"\x89PNG") and picture.data[16:24] == (
            (1280).to_bytes(4, "big") + (720).to_bytes(4, "big")
        )
        told = []
        for action in (
            'CLICK {"element": 400}',
            'CLICK {"x": 1280, "y": 0}',
            'PRESS {"key": "anykey"}',
            'TYPING {"text": "7"}\nCLICK {"element": 999}',
        ):
            result = await env.step(action)
            assert result.info.malformed_calls == 1 and not result.terminated
            told.append(result.observation[0].text)
        assert "there is no element 400" in told[0]
        assert "outside of the screen of 1280 by 720" in told[1]
        assert "no key is named 'anykey'" in told[2]
        # What was done before the mistake is seen beside it.
        assert told[3].startswith("error: CLICK: there is no element 999") and '"7"' in told[3]
        assert [call.ok for call in result.info.tool_calls] == [True, False]
        fail = await env.step("FAIL")
        assert fail.terminated and fail.reward == 0.0
        with pytest.raises(EnvError, match="after the end"):
            await env.step("DONE")
    finally:
        await env.close()


@real
async def test_a_crash_is_a_failure_of_its_own_episode_only():
    one, other = DesktopEnv(prepared=1), DesktopEnv(prepared=1)
    try:
        await asyncio.gather(one.reset(PLAIN, seed=0), other.reset(PLAIN, seed=0))
        assert one._desktop is not None
        (display,) = [p for p, name in descendants(one._desktop.pid).items() if name == "Xvfb"]
        os.kill(display, signal.SIGKILL)
        await asyncio.sleep(0.2)
        with pytest.raises(EnvError, match="the desktop is gone"):
            await one.step('MOVE_TO {"x": 3, "y": 4}')
        alive = await other.step('MOVE_TO {"x": 3, "y": 4}')
        assert not alive.terminated and "Windows:" in alive.observation[0].text
        # The environment that lost its desktop has a new one after its next reset.
        await one.reset(PLAIN, seed=0)
        assert (await one.step("DONE")).reward == 1.0
    finally:
        await one.close()
        await other.close()
        if one._pool is not None:
            await one._pool.close()


@real
async def test_a_task_whose_program_shows_no_window_is_a_failure_and_no_zero(monkeypatch):
    monkeypatch.setattr("agentrl.envs.desktop.steps.WINDOW_SECONDS", 0.5)
    step = {"type": "activate_window", "parameters": {"window_name": "Nothing"}}
    task = Task("t", {**PLAIN.data, "config": [step]})
    env = DesktopEnv()
    with pytest.raises(EnvError, match="no window named 'Nothing' appeared"):
        await env.reset(task, seed=0)
    await env.close()
