from __future__ import annotations

import asyncio
import time

import pytest

from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.tool_env import ToolEnv
from agentrl.core.types import Message, Task

TASK = Task("t", {"gold": "2"})


def add(a: int, b: int = 1) -> str:
    """Add."""
    return str(a + b)


class SumEnv(ToolEnv):
    tools = (add,)

    def prompt(self, task):
        return "1 + 1?"

    def score(self, task, answer):
        return {"em": float(answer == task.data["gold"]), "format": -0.1 * self.malformed_calls}


class NotesEnv(ToolEnv):
    """Keeps a list that is changed in place, with a method as a tool."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.notes: list[str] = []

    @property
    def tools(self):
        return (self.note,)

    def note(self, text: str) -> str:
        """Note something down."""
        self.notes.append(text)
        return " ".join(self.notes)

    async def begin(self, task, *, seed):
        self.notes = [f"seed{seed}"]

    def prompt(self, task):
        return (Message.of("system", "s"), Message.of("user", "u"))

    async def score(self, task, answer):
        return {"notes": float(len(self.notes))}

    def copy_state(self, twin):
        twin.notes = list(self.notes)


def texts(result):
    return [(one.role, one.text) for one in result.observation]


async def test_an_episode_of_calls_and_an_answer():
    env = SumEnv()
    assert [one.text for one in await env.reset(TASK, seed=0)] == ["1 + 1?"]
    called = await env.step("<add>1</add>")
    assert texts(called) == [("inline", "<result>2</result>")]
    (record,) = called.info.tool_calls
    assert (record.name, dict(record.arguments), record.ok) == ("add", {"a": "1"}, True)
    assert (called.reward, called.terminated, called.truncated) == (0.0, False, False)
    answered = await env.step("<answer>2</answer>")
    assert (answered.reward, answered.terminated, answered.truncated) == (1.0, True, False)
    assert answered.info.rewards == {"em": 1.0, "format": 0.0}
    assert answered.observation == ()


async def test_a_malformed_call_is_told_counted_and_visible_to_the_score():
    env = SumEnv()
    await env.reset(TASK, seed=0)
    wrong = await env.step("<add>x</add>")
    assert wrong.info.malformed_calls == 1 and wrong.info.tool_calls == ()
    ((role, text),) = texts(wrong)
    assert role == "inline" and text.startswith("<result>error: add: a: input should be")
    answered = await env.step("<answer>2</answer>")
    assert answered.info.rewards == {"em": 1.0, "format": -0.1}
    assert answered.reward == pytest.approx(0.9)


async def test_turns_used_up_truncate_and_score_no_answer():
    env = SumEnv(max_turns=2)
    await env.reset(TASK, seed=0)
    assert not (await env.step("<add>1</add>")).truncated
    last = await env.step("<add>1</add>")
    assert (last.terminated, last.truncated, last.reward) == (False, True, 0.0)
    assert last.info.tool_calls == () and last.observation == ()
    with pytest.raises(EnvError, match="after the end"):
        await env.step("x")


async def test_an_answer_in_the_last_turn_terminates():
    env = SumEnv(max_turns=1)
    await env.reset(TASK, seed=0)
    last = await env.step("<answer>2</answer>")
    assert (last.terminated, last.truncated, last.reward) == (True, False, 1.0)


async def test_calls_beyond_the_limit_are_not_run_and_say_so():
    env = SumEnv(format="json", max_tool_calls=3)
    await env.reset(TASK, seed=0)
    one = env.call_format.call("add", {"a": 1})
    first = await env.step(one + one)
    assert texts(first) == [("tool", "2"), ("tool", "2")]
    second = await env.step(one + one)
    assert texts(second) == [
        ("tool", "2"),
        ("tool", "error: no tool calls are left (limit 3); give your answer now."),
    ]
    assert len(second.info.tool_calls) == 1 and env.tool_calls == 3
    assert second.info.malformed_calls == 0


async def test_calls_of_one_action_run_at_the_same_time_and_answer_in_order():
    class Slow(SumEnv):
        @property
        def tools(self):
            return (self.wait,)

        async def wait(self, seconds: float) -> str:
            """Wait."""
            await asyncio.sleep(seconds)
            return str(seconds)

    env = Slow(format="json")
    await env.reset(TASK, seed=0)
    action = "".join(env.call_format.call("wait", {"seconds": s}) for s in (0.3, 0.2, 0.25))
    started = time.perf_counter()
    result = await env.step(action)
    assert time.perf_counter() - started < 0.6
    assert [text for _, text in texts(result)] == ["0.3", "0.2", "0.25"]


async def test_a_refusing_tool_is_an_observation_and_a_failing_one_an_env_error():
    def half(n: int) -> str:
        """Halve."""
        if n % 2:
            raise ValueError(f"{n} is odd")
        if n == 0:
            raise OSError("disk on fire")
        return str(n // 2)

    class Halves(SumEnv):
        tools = (half,)

    env = Halves(format="json")
    await env.reset(TASK, seed=0)
    refused = await env.step("".join(env.call_format.call("half", {"n": n}) for n in (3, 4)))
    assert texts(refused) == [("tool", "error: half: ValueError: 3 is odd"), ("tool", "2")]
    assert [one.ok for one in refused.info.tool_calls] == [False, True]
    with pytest.raises(EnvError, match="tool half failed: OSError: disk on fire"):
        await env.step(env.call_format.call("half", {"n": 0}))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda self, task, answer: {}[answer], "score of task 't' failed: KeyError"),
        (lambda self, task, answer: {"em": float("nan")}, "component 'em' is nan"),
        (lambda self, task, answer: {"em": "x"}, "failed: ValueError"),
        (lambda self, task, answer: 1.0, "failed: AttributeError"),
    ],
)
async def test_a_score_that_fails_is_never_a_reward_of_zero(score, message):
    env = type("Broken", (SumEnv,), {"score": score})()
    await env.reset(TASK, seed=0)
    with pytest.raises(EnvError, match=message):
        await env.step("<answer>2</answer>")


async def test_steps_outside_of_an_episode_raise():
    env = SumEnv()
    with pytest.raises(EnvError, match="before reset"):
        await env.step("x")


async def test_a_fork_has_its_own_tools_and_its_own_copied_state():
    env = NotesEnv()
    await env.reset(TASK, seed=7)
    await env.step("<note>a</note>")
    twin = await env.fork()
    assert texts(await twin.step("<note>b</note>")) == [("inline", "<result>seed7 a b</result>")]
    assert texts(await env.step("<note>c</note>")) == [("inline", "<result>seed7 a c</result>")]
    assert (await twin.step("<answer>x</answer>")).reward == 3.0


async def test_tools_kept_on_the_instance_are_bound_to_the_fork():
    class Kept(NotesEnv):
        tools = ()

        def __init__(self):
            super().__init__()
            self.tools = (self.note,)

    env = Kept()
    await env.reset(TASK, seed=7)
    twin = await env.fork()
    await twin.step("<note>b</note>")
    assert (env.notes, twin.notes) == (["seed7"], ["seed7", "b"])


async def test_the_state_key_names_the_task_and_all_that_was_said():
    env, same, other = SumEnv(), SumEnv(), SumEnv()
    for one, task in ((env, TASK), (same, TASK), (other, Task("u"))):
        await one.reset(task, seed=0)
    assert env.state_key == same.state_key != other.state_key
    first, second = await env.step("<add>1</add>"), await same.step("<add>1</add>")
    assert first.info.state_key == second.info.state_key == env.state_key
    assert (await env.step("<add>1</add>")).info.state_key != first.info.state_key
    assert (await same.step("<add>2</add>")).info.state_key != env.state_key


async def test_instructions_come_before_a_prompt_of_text_only_when_asked_for():
    plain, told = SumEnv(), SumEnv(instructions=True)
    assert [one.role for one in await plain.reset(TASK, seed=0)] == ["user"]
    first, second = await told.reset(TASK, seed=0)
    assert (first.role, second.role) == ("system", "user")
    assert "<add> a </add>" in first.text


def test_schemas_are_for_chat_templates_of_the_json_format():
    assert SumEnv().tool_schemas == ()
    (schema,) = SumEnv(format="json").tool_schemas
    assert schema["function"]["name"] == "add"


def test_impossible_limits_are_refused():
    with pytest.raises(RecipeError, match="max_turns >= 1"):
        SumEnv(max_turns=0)
