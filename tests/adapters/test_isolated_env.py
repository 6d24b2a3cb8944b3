"""`isolated:`: an environment in a process of another interpreter."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from agentrl.core.errors import EnvError, RecipeError, SetupError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.testing import check_env_sync

HERE = str(Path(__file__).parent)
TASK = Task("t", {})


def isolated(name: str, **settings: object):
    given = {"pythonpath": [HERE], **settings}
    return make_env(f"isolated:{sys.executable}:{name}", **given)


@pytest.mark.slow
def test_it_keeps_the_contract_and_forks_where_it_lives():
    report = check_env_sync(lambda: isolated("demo/calculator"))
    assert {"fork", "leak", "gold"} <= set(report.checked)


@pytest.mark.slow
async def test_it_lives_in_another_process_that_all_of_its_kind_share(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    one, two = isolated("host_envs:Where"), isolated("host_envs:Where")
    said = [(await env.reset(TASK, seed=0))[0].text for env in (one, two)]
    pid, path = said[0].split(" ", 1)
    assert said[0] == said[1] and int(pid) != os.getpid()
    assert "/nowhere" not in path and HERE in path
    await one.close()
    await two.close()


@pytest.mark.slow
async def test_a_process_that_dies_is_told_and_started_again():
    env = isolated("host_envs:Where", memory_mb=4000)
    pid = int((await env.reset(TASK, seed=0))[0].text.split(" ")[0])
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EnvError, match="step was lost"):
        await env.step("x")
    again = int((await env.reset(TASK, seed=0))[0].text.split(" ")[0])
    assert again != pid
    await env.close()


@pytest.mark.slow
async def test_settings_reach_the_environment_and_mistakes_come_back():
    env = isolated("host_envs:Counter", settings={"goal": 1})
    await env.reset(TASK, seed=0)
    assert (await env.step("go")).terminated
    await env.close()
    wrong = isolated("host_envs:Counter", settings={"gaol": 1})
    with pytest.raises(RecipeError, match="Did you mean 'goal'"):
        await wrong.reset(TASK, seed=0)
    await wrong.close()


def test_an_interpreter_that_cannot_do_it_is_a_mistake_of_the_setup():
    with pytest.raises(SetupError, match="'/no/python' is no interpreter"):
        make_env("isolated:/no/python:demo/guess").tasks("train")
    with pytest.raises(SetupError, match=r"ended with code .*needs agentrl"):
        make_env("isolated:/bin/false:demo/guess").tasks("train")


@pytest.mark.parametrize("id_", ["isolated:", "isolated:python", "isolated::demo/guess"])
def test_an_id_without_both_parts_is_refused(id_):
    with pytest.raises(RecipeError, match="an interpreter and an environment are needed"):
        make_env(id_)
