"""The Python tool: what a policy is shown, and a session that forks with its environment."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

import pytest

from agentrl.core.errors import EnvError
from agentrl.core.tool import Tool
from agentrl.core.types import Task
from agentrl.sandbox import BubblewrapSettings, Limits, RunResult, RunStatus, shared
from agentrl.tools.python import PythonSessionEnv, python_tool, told

LIMITS = Limits(wall_seconds=5.0, memory_mb=256)
SANDBOX = BubblewrapSettings(limits=LIMITS)
needs_bubblewrap = [
    pytest.mark.bubblewrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap"),
]


def result(status: RunStatus = RunStatus.OK, out: str = "", err: str = "", **more) -> RunResult:
    return RunResult(status=status, stdout=out, stderr=err, **more)


def test_output_is_shown_as_it_is_and_nothing_says_so():
    assert told(result(out="4\n"), LIMITS) == "4"
    assert told(result(), LIMITS) == "(no output)"


def test_a_traceback_names_no_folder_of_the_machine_and_no_address():
    error = (
        "Traceback (most recent call last):\n"
        '  File "<run 1>", line 1, in <module>\n'
        '  File "/opt/x/lib/python3.11/json/__init__.py", line 346, in loads\n'
        '  File "/opt/x/lib/python3.11/site-packages/numpy/core.py", line 1, in f\n'
        "ValueError: <object object at 0x7f0011223344>\n"
    )
    shown = told(result(RunStatus.ERROR, err=error), LIMITS)
    assert "/opt" not in shown and "0x7f" not in shown
    assert 'File "python3.11/json/__init__.py", line 346' in shown
    assert 'File "site-packages/numpy/core.py"' in shown


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (RunStatus.WALL_LIMIT, "[ended: it ran longer than 5 s]"),
        (RunStatus.CPU_LIMIT, "[ended: it used more than 10 s of processor time]"),
        (RunStatus.MEMORY_LIMIT, "[ended: it needed more than 256 MB of memory]"),
        (RunStatus.OUTPUT_LIMIT, "[ended: it would not stop writing]"),
        (RunStatus.KILLED, "[ended: it was ended by a signal]"),
    ],
)
def test_every_limit_has_its_words(status, words):
    assert told(result(status, out="before"), LIMITS) == f"before\n{words}"


def test_a_restart_and_an_exit_code_are_told():
    assert "started anew" in told(result(restarted=True), LIMITS)
    assert told(result(RunStatus.ERROR, exit_code=3), LIMITS) == "[exit code 3]"


def test_a_long_result_keeps_the_beginning_of_the_output_and_the_end_of_the_error():
    shown = told(result(RunStatus.ERROR, "a" * 999, "b" * 999 + "KeyError"), LIMITS, max_chars=400)
    assert len(shown) <= 400
    assert shown.startswith("aaa") and shown.endswith("bKeyError")
    assert shown.count("[cut: ") == 2


class Bench(PythonSessionEnv):
    """One number, counted up in a session."""

    sandbox = SANDBOX

    @property
    def tools(self) -> Sequence[Tool]:  # type: ignore[override]
        return [self.python_tool()]

    async def begin(self, task: Task, *, seed: int) -> None:
        await self.open_session({"n.txt": b"1"})

    def prompt(self, task: Task) -> str:
        return "Count."

    def score(self, task: Task, answer: str | None) -> Mapping[str, float]:
        return {"right": float(answer == "3")}


class TestWithBubblewrap:
    pytestmark = needs_bubblewrap

    @pytest.fixture(autouse=True)
    async def _end(self):
        yield
        await shared(SANDBOX).close()

    async def test_a_stateless_call_sees_nothing_of_the_last(self):
        tool = python_tool(SANDBOX)
        assert await tool.call({"code": "x = 2\nprint(x + 2)"}) == "4"
        assert "NameError: name 'x' is not defined" in await tool.call({"code": "print(x)"})

    async def test_a_fork_of_an_environment_takes_its_session_along(self):
        env = Bench()
        await env.reset(Task(id="t"), seed=0)
        first = await env.step("<python>n = int(open('n.txt').read()) + 1\nn</python>")
        assert "2" in first.observation[0].text
        twin = await env.fork()
        await env.step("<python>n += 100</python>")
        await env.close()
        there = await twin.step("<python>n += 1; n</python>")
        assert "3" in there.observation[0].text
        assert (await twin.step("<answer>3</answer>")).reward == 1.0
        await twin.close()
        with pytest.raises(EnvError, match="no session"):
            _ = twin.session
