"""`verifiers:` in the virtual environment of verifiers, reached from this one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from peers import HERE, peer

from agentrl.core.env import Env
from agentrl.core.errors import DataError, EnvError, RecipeError, SetupError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.testing import check_env


def there(name: str, **settings: object) -> Env:
    """The environment in the interpreter that has verifiers."""
    id_ = f"isolated:{peer('verifiers')}:verifiers:{name}"
    return make_env(id_, settings=settings, pythonpath=[str(HERE)])


@pytest.mark.slow
@pytest.mark.peers
async def test_a_taskset_becomes_tasks_and_its_rewards_keep_their_weights():
    env = there("vf_sums", taskset={"count": 6}, eval_tasks=2)
    assert [len(env.tasks(split)) for split in ("train", "eval")] == [4, 2]
    task = env.tasks("train")[1]
    assert task.data["data"]["answer"] == "3" and env.tasks("eval")[0].id == "eval-4"
    first = await env.reset(task, seed=0)
    assert [(one.role, one.text) for one in first] == [
        ("system", "Answer."),
        ("user", "What is 1 + 2?"),
    ]
    right = await env.step("3")
    assert (right.reward, right.terminated, right.observation) == (2.25, True, ())
    assert right.info.rewards == {"right": 2.0, "short": 0.25, "vowels": 0.0}
    assert right.info.metrics == {"length": 1.0}
    await env.reset(task, seed=0)
    wrong = await env.step("it is four")
    assert wrong.reward == pytest.approx(0.1 * 4 / 10)
    with pytest.raises(EnvError, match="after the end"):
        await env.step("3")
    with pytest.raises(DataError, match="no task of this taskset"):
        await env.reset(Task("x", {"split": "train", "index": 99}), seed=0)
    await env.close()


@pytest.mark.slow
@pytest.mark.peers
async def test_an_environment_of_several_turns_keeps_our_contract():
    env = there("vf_guess", max_turns=3)
    task, other = env.tasks("train")[:2]
    report = await check_env(lambda: there("vf_guess", max_turns=3), tasks=[task, other])
    assert {"fork", "leak", "repeat", "alone", "ends"} <= set(report.checked)
    assert len(env.tasks("train")) + len(env.tasks("eval")) == 256
    await env.reset(task, seed=0)
    assert (await env.step("3")).observation[0].text == "higher"
    found = await env.step("7")
    assert (found.reward, found.terminated) == (1.0, True)
    await env.reset(task, seed=0)
    last = [await env.step(guess) for guess in ("3", "4", "5")][-1]
    assert (last.reward, last.terminated, last.truncated) == (0.0, False, True)
    await env.reset(task, seed=0)
    with pytest.raises(EnvError, match=r"rollout failed.*the table fell over"):
        await env.step("crash")
    await env.close()


@pytest.mark.slow
@pytest.mark.peers
async def test_tools_of_a_task_are_described_called_and_told():
    env = there("vf_lookup")
    task = env.tasks("train")[0]
    system, user = await env.reset(task, seed=0)
    assert system.text.startswith("Look.\n\nYou may call") and "shelf_find" in system.text
    assert user.text == "Where is the key? (0)"
    wrong = await env.step('<tool_call>{"name": "shelf_fnd"}</tool_call>')
    assert "Did you mean 'shelf_find'?" in wrong.observation[0].text
    assert wrong.info.malformed_calls == 1
    call = '<tool_call>{"name": "shelf_find", "arguments": {"name": "key"}}</tool_call>'
    told = await env.step(call)
    assert [(one.role, one.text) for one in told.observation] == [("tool", "under the mat")]
    found = await env.step("<answer>It is under the mat.</answer>")
    assert (found.reward, found.terminated) == (1.0, True)
    await env.close()


@pytest.mark.slow
@pytest.mark.peers
async def test_a_taskset_that_cannot_be_loaded_says_why():
    env = there("vf_nothing")
    with pytest.raises(DataError, match="verifiers:vf_nothing: the taskset cannot be loaded"):
        env.tasks("train")
    with pytest.raises(DataError, match="count"):
        there("vf_sums", taskset={"count": "many"}).tasks("train")
    await env.close()


def test_without_verifiers_it_says_how_to_get_it():
    with pytest.raises(SetupError, match="virtual environment of their own"):
        make_env("verifiers:gsm8k").tasks("train")


@pytest.mark.parametrize("settings", [{"max_turns": 0}, {"eval_tasks": -1}, {"fork": "copy"}])
def test_wrong_settings_are_mistakes_of_the_recipe(settings):
    with pytest.raises(RecipeError):
        make_env("verifiers:gsm8k", **settings)
