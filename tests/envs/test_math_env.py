"""Problems of mathematics as an environment: prompts, answers, failures and the Python tool."""

from __future__ import annotations

import shutil

import pytest

from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.math import MathEnv
from agentrl.envs.math import env as module
from agentrl.graders.math import Grade, Outcome
from agentrl.sandbox import RunResult, RunStatus
from agentrl.testing.conformance import check_env
from agentrl.tools import python as python_module

TASK = Task("t", {"text": "What is 3 + 4?", "answer": "7"})


async def played(env, *actions, task=TASK):
    await env.reset(task, seed=0)
    return [await env.step(action) for action in actions]


@pytest.mark.parametrize("prompt", ["boxed", "hash", "tag", "plain"])
async def test_every_style_keeps_the_contract_and_its_gold_answers_score(prompt) -> None:
    report = await check_env(lambda: MathEnv(prompt=prompt))
    assert report.skipped == ()
    env = MathEnv(prompt=prompt)
    for task in env.tasks("eval"):
        (result,) = await played(env, env.gold_action(task, 0), task=task)
        assert (result.reward, result.terminated) == (1.0, True), task


@pytest.mark.parametrize(
    ("prompt", "right", "elsewhere"),
    [
        ("boxed", r"so \boxed{7}", "#### 7"),
        ("hash", "so\n#### 7", r"\boxed{7}"),
        ("tag", "so <answer>7</answer>", r"\boxed{7}"),
        ("plain", "The answer is 7.", "I do not know."),
    ],
)
async def test_only_what_the_prompt_asks_for_counts_by_default(prompt, right, elsewhere) -> None:
    env = MathEnv(prompt=prompt)
    (result,) = await played(env, right)
    assert (result.reward, result.terminated, result.truncated) == (1.0, True, False)
    assert result.info.metrics == {"correct": 1.0, "answered": 1.0, "refused": 0.0}
    (result,) = await played(env, elsewhere)
    assert (result.reward, result.terminated, result.truncated) == (0.0, False, True)
    assert result.info.metrics["answered"] == 0.0
    if prompt != "plain":
        lenient = MathEnv(prompt=prompt, accept=("boxed", "hash", "tag"))
        (result,) = await played(lenient, elsewhere)
        assert result.reward == 1.0


async def test_an_answer_in_a_thought_or_an_unclosed_box_is_none() -> None:
    for action in (r"<think>\boxed{7}</think>", r"\boxed{7", ""):
        (result,) = await played(MathEnv(), action)
        assert (result.reward, result.truncated) == (0.0, True)


async def test_a_second_turn_says_what_was_missing() -> None:
    first, second = await played(MathEnv(max_turns=2), "hm", r"\boxed{7}")
    assert first.observation[0].role == "user"
    assert first.observation[0].text.startswith("error: no final answer was found.")
    assert (second.reward, second.terminated) == (1.0, True)


async def test_an_ungraded_answer_is_a_failure_that_names_it_and_no_reward(monkeypatch) -> None:
    async def ungraded(*_, **__):
        return Grade(Outcome.UNGRADED, "no verdict within 1 s", "x")

    monkeypatch.setattr(module, "grade_text_async", ungraded)
    with pytest.raises(EnvError, match="ungraded: no verdict within 1 s"):
        await played(MathEnv(), r"\boxed{x}")


def test_the_splits_are_disjoint_and_of_several_kinds() -> None:
    env = MathEnv()
    train, held_out = (
        {task.data["text"] for task in env.tasks(split)} for split in ("train", "eval")
    )
    assert (len(env.tasks("train")), len(env.tasks("eval"))) == (600, 120)
    assert not train & held_out
    assert len({task.id.split("-")[1] for task in env.tasks("eval")}) == 12
    assert env.tasks("test") == ()


@pytest.mark.parametrize(
    "settings",
    [{"grade_seconds": 0.0}, {"accept": ()}, {"dataset": "gsm8k"}, {"max_turns": 0}],
)
def test_settings_that_cannot_work_are_refused(settings) -> None:
    with pytest.raises(RecipeError):
        MathEnv(**settings)
    with pytest.raises(RecipeError):
        make_env("math/problems", tools=["ruby"])


# With a Python tool


class FakeSession:
    def __init__(self, names=None) -> None:
        self.names, self.closed = dict(names or {}), False

    async def execute(self, code):
        assert not self.closed
        return run(code, self.names)

    async def fork(self):
        return FakeSession(self.names)

    async def close(self):
        self.closed = True


class FakeSandbox:
    """Runs the tests' own programs in process."""

    forkable = "copy"

    def __init__(self) -> None:
        self.opened: list[FakeSession] = []

    async def open(self, files=None):
        self.opened.append(FakeSession())
        return self.opened[-1]

    async def run_python(self, code, *, limits):
        return run(code, {})


def run(code, names):
    said: list[str] = []
    try:
        exec(code, {**names, "print": lambda *parts: said.append(" ".join(map(str, parts)))}, names)
    except Exception as error:
        trace = f"Traceback\n  line 1\n{type(error).__name__}: {error}\n"
        return RunResult(status=RunStatus.ERROR, stdout="\n".join(said), stderr=trace)
    return RunResult(status=RunStatus.OK, stdout="\n".join(said) + "\n", stderr="")


@pytest.fixture
def sandbox(monkeypatch):
    made = FakeSandbox()
    monkeypatch.setattr(python_module, "shared", lambda settings: made)
    monkeypatch.setattr(MathEnv, "_session_forkable", "copy")
    return made


def python(code: str) -> str:
    return f"<python>{code}</python>"


async def test_a_session_keeps_what_programs_define_and_stateless_does_not(sandbox) -> None:
    env = MathEnv(tools=["python"])
    assert env.stop == ("</python>", "</answer>")
    one, two, three = await played(env, python("x = 3 + 4"), python("print(x)"), r"\boxed{7}")
    assert one.observation[0].text == "<result>(no output)</result>"
    assert two.observation[0].text == "<result>7</result>"
    assert (three.reward, three.terminated) == (1.0, True)
    await env.close()
    assert [session.closed for session in sandbox.opened] == [True]
    env = MathEnv(tools=["python"], python="stateless")
    _, two = await played(env, python("x = 3 + 4"), python("print(x)"))
    assert two.observation[0].text.endswith("NameError: name 'x' is not defined</result>")


async def test_a_fork_takes_the_session_along(sandbox) -> None:
    env = MathEnv(tools=["python"])
    await played(env, python("x = [1]"))
    twin = await env.fork()
    await env.step(python("x = 'of the first'"))
    seen = await twin.step(python("print(x)"))
    assert seen.observation[0].text == "<result>[1]</result>"
    await env.close()
    assert (await twin.step(python("print(x)"))).observation == seen.observation
    await twin.close()


async def test_a_program_is_run_before_an_answer_beside_it_counts(sandbox) -> None:
    env = MathEnv(tools=["python"])
    first, second = await played(env, r"\boxed{8} or " + python("print(7)"), r"\boxed{7}")
    assert not first.terminated and first.observation[0].text == "<result>7</result>"
    assert second.reward == 1.0


async def test_an_action_with_neither_is_told_so(sandbox) -> None:
    (result,) = await played(MathEnv(tools=["python"]), "let me think")
    assert "no final answer was found" in result.observation[0].text
    (result,) = await played(MathEnv(tools=["python"]), "<python>print(1)")
    assert "<python> is not closed" in result.observation[0].text


@pytest.mark.parametrize("format", ["xml", "json"])
async def test_gold_runs_the_tasks_program_first(sandbox, format) -> None:
    env = MathEnv(tools=["python"], format=format)
    for task in env.tasks("eval")[:24]:
        one, two = await played(env, env.gold_action(task, 0), env.gold_action(task, 1), task=task)
        assert [call.ok for call in one.info.tool_calls] == [True]
        assert two.reward == 1.0
    report = await check_env(lambda: MathEnv(tools=["python"], format=format))
    assert report.skipped == ()


@pytest.mark.bubblewrap
@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bwrap: apt-get install bubblewrap")
@pytest.mark.parametrize("state", ["session", "stateless"])
async def test_programs_run_isolated_and_sessions_fork(state) -> None:
    env = MathEnv(tools=["python"], python=state)
    for task in env.tasks("eval")[:12]:
        _, last = await played(env, env.gold_action(task, 0), env.gold_action(task, 1), task=task)
        assert last.reward == 1.0
    if state == "session":
        await played(env, python("x = [1]"))
        twin = await env.fork()
        await env.step(python("x.append(2)"))
        assert (await twin.step(python("print(x)"))).observation[0].text == "<result>[1]</result>"
        await twin.close()
    await env.close()
