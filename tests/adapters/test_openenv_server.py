"""`openenv:` against a real OpenEnv server, run from its own package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from peers import openenv_server

from agentrl.core.errors import EnvError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.testing import check_env

pytestmark = [pytest.mark.slow, pytest.mark.peers]


@pytest.fixture(scope="module")
def server():
    with openenv_server() as url:
        yield url


async def test_it_keeps_our_contract_and_branches_by_replay(server):
    report = await check_env(
        lambda: make_env(f"openenv:{server}", action_field="word", max_turns=4),
        scripts=[["one", "two", "zero"]],
    )
    assert {"fork", "leak", "repeat", "alone"} <= set(report.checked)


async def test_an_episode_in_json_and_one_in_text(server):
    env = make_env(f"openenv:{server}", max_turns=5, prompt="Say the number.")
    task = Task("three", {"seed": 3})
    first = await env.reset(task, seed=0)
    assert first[0].text == 'Say the number.\n{"number": 3, "said": "hello"}'
    assert (await env.step("three")).observation[0].text == "error: the action is no JSON."
    refused = await env.step('{"word": 3, "loud": true}')
    assert refused.observation[0].text.startswith("error: the action was refused: word: ")
    assert (refused.info.malformed_calls, refused.truncated) == (1, False)
    wrong = await env.step('so</think>{"word": "ai", "volume": 2}')
    assert wrong.observation[0].text == '{"number": 3, "said": "ai!ai!"}'
    assert wrong.reward == pytest.approx(0.1) and not wrong.terminated
    right = await env.step('{"word": "three"}')
    assert (right.reward, right.terminated, dict(right.info.rewards)) == (1.0, True, {"reward": 1})
    with pytest.raises(EnvError, match="after the end"):
        await env.step("{}")
    await env.close()
    await env.close()
    env = make_env(
        f"openenv:{server}",
        action_field="word",
        action_fields={"volume": 3},
        action_tag="say",
        observation_field="said",
        reset={"greeting": "good day"},
        max_turns=2,
    )
    assert (await env.reset(task, seed=0))[0].text == "good day"
    assert "between <say> and </say>" in (await env.step("ha")).observation[0].text
    last = await env.step("<say> ha </say>")
    assert (last.observation[0].text, last.truncated) == ("ha!ha!ha!", True)
    await env.close()


async def test_failures_of_the_server_are_failures_and_no_rewards(server):
    env = make_env(f"openenv:{server}", action_field="word")
    await env.reset(Task("x", {"seed": 1}), seed=0)
    with pytest.raises(EnvError, match=r"step failed .*EXECUTION_ERROR.*the parrot flew away"):
        await env.step("crash")
    await env.reset(Task("x", {"seed": 1}), seed=0)
    assert (await env.step("one")).reward == 1.0
    await env.close()
    wrong = make_env(f"openenv:{server}", observation_field="sad")
    with pytest.raises(EnvError, match=r"no field .sad.\. Its fields: number, said"):
        await wrong.reset(Task("x", {"seed": 1}), seed=0)
    await wrong.close()


async def test_a_server_that_is_full_or_gone_says_so():
    with openenv_server(sessions=1) as url:
        one, two = make_env(f"openenv:{url}"), make_env(f"openenv:{url}")
        task = one.tasks("train")[0]
        await one.reset(task, seed=0)
        with pytest.raises(EnvError, match=r"CAPACITY_REACHED.*max_concurrent_envs"):
            await two.reset(task, seed=0)
        await one.close()
        await two.reset(task, seed=0)
    with pytest.raises(EnvError, match="step was lost"):
        await two.step("{}")
    with pytest.raises(EnvError, match="cannot be reached"):
        await two.reset(task, seed=0)
    await two.close()
