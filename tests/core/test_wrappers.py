from __future__ import annotations

import pytest

from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.types import Task
from agentrl.core.wrappers import FormatReminder, TurnLimit, Wrapper
from agentrl.envs.demo import CalculatorEnv, GuessEnv
from agentrl.testing import check_env

TASK = Task("t", {"terms": [1, 2, 3]})


def stacked():
    return TurnLimit(FormatReminder(CalculatorEnv(), reminder="Use the tags."), max_turns=3)


async def test_a_wrapped_env_keeps_the_contract():
    assert "fork" in (await check_env(stacked)).checked
    replayed = await check_env(lambda: TurnLimit(GuessEnv(), max_turns=2))
    assert "leak" in replayed.checked


async def test_everything_is_delegated_live():
    env = Wrapper(CalculatorEnv())
    assert env.stop == ("</add>", "</answer>") and env.tool_schemas == ()
    env.env = CalculatorEnv(format="json")
    assert env.stop == () and len(env.tool_schemas) == 1
    assert env.gold_action(TASK, 2) == "<answer>6</answer>"
    assert len(env.tasks("eval")) == 16 and env.forkable == "copy"
    await env.reset(TASK, seed=0)
    await env.step("...")
    assert env.turn == 1 and env.unwrapped is env.env
    env.env = GuessEnv()
    assert env.forkable == "replay"
    with pytest.raises(AttributeError):
        _ = env.turn


def test_repr_shows_the_stack():
    assert repr(stacked()) == "<TurnLimit<FormatReminder<CalculatorEnv>>>"


async def test_a_turn_limit_truncates_but_not_an_answer():
    env = stacked()
    await env.reset(TASK, seed=0)
    await env.step("<add>1 + 2</add>")
    await env.step("<add>1 + 2</add>")
    twin = await env.fork()
    last = await env.step("<add>1 + 2</add>")
    assert (last.terminated, last.truncated) == (False, True)
    with pytest.raises(EnvError, match="after the end"):
        await env.step("x")
    answered = await twin.step("<answer>6</answer>")
    assert (answered.terminated, answered.truncated, answered.reward) == (True, False, 1.0)
    with pytest.raises(RecipeError, match="max_turns >= 1"):
        TurnLimit(env, max_turns=0)


async def test_a_reminder_follows_a_malformed_call_only():
    env = stacked()
    await env.reset(TASK, seed=0)
    good = await env.step("<add>1 + 2</add>")
    assert good.observation[0].text == "<result>3</result>"
    bad = await env.step("three")
    (message,) = bad.observation
    assert message.role == "inline" and message.text.endswith("</result>Use the tags.")
