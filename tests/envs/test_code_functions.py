"""Attempts at a problem: verdicts from outside, feedback on visible tests, limits, failures."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from agentrl.core.env import StepResult
from agentrl.core.errors import EnvError
from agentrl.core.types import Task
from agentrl.envs.code import FunctionsEnv
from agentrl.envs.code.inside import encode
from agentrl.envs.code.problems import Case, Problem
from agentrl.sandbox import BubblewrapSettings, Limits, Sandbox, SubprocessSettings

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.bubblewrap,
    pytest.mark.skipif(
        shutil.which("bwrap") is None, reason="needs bwrap: apt-get install bubblewrap"
    ),
]


def call(*args: object, expected: object) -> Case:
    shown = f"double({', '.join(map(repr, args))}) == {expected!r}"
    wire = [encode(one) for one in args]
    return Case(kind="call", args=wire, expected=encode(expected), shown=shown)


DOUBLE = Problem(
    id="double",
    text="Double it.",
    entry="double",
    visible=[call(1, expected=2), call("a", expected="aa")],
    hidden=[call(4, expected=8), call([1], expected=[1, 1]), call(0.5, expected=1.0)],
    solution="def double(n): return 2 * n",
)


def fenced(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\n"


async def play(
    problem: Problem, codes: Sequence[str], **settings: Any
) -> tuple[FunctionsEnv, list[StepResult]]:
    env = FunctionsEnv(**settings)
    await env.reset(Task(problem.id, problem.data()), seed=0)
    return env, [await env.step(code) for code in codes]


async def test_a_failed_attempt_is_told_and_the_next_one_counts() -> None:
    codes = [fenced("def double(n):\n    return n + 1"), fenced("def double(n): return 2 * n")]
    _, (first, second) = await play(DOUBLE, codes)
    assert (first.reward, first.terminated, first.truncated) == (0.0, False, False)
    assert first.observation[0].role == "user"
    assert first.observation[0].text == (
        "1 of 2 visible tests failed.\n\n"
        "Test: double('a') == 'aa'\n"
        "Traceback (most recent call last):\n"
        '  File "solution.py", line 2, in double\n'
        "    return n + 1\n"
        "           ~~^~~\n"
        'TypeError: can only concatenate str (not "int") to str\n\n'
        "Attempts left: 2."
    )
    assert (second.reward, second.terminated, second.observation) == (1.0, True, ())
    assert dict(second.info.rewards) == {"hidden": 1.0}
    assert dict(second.info.metrics) == {"attempts": 2.0}


async def test_what_passes_the_visible_tests_may_still_fail_the_hidden_ones() -> None:
    special = fenced("def double(n): return {1: 2, 'a': 'aa', 4: 8}.get(n) if n != [1] else n")
    _, (result,) = await play(DOUBLE, [special])
    assert (result.reward, result.terminated) == (0.0, True)
    _, (result,) = await play(DOUBLE, [special], score="fraction")
    assert result.reward == pytest.approx(1 / 3)
    _, (result,) = await play(DOUBLE, [fenced("def double(n): return 2 * n")], score="fraction")
    assert result.reward == 1.0


async def test_the_last_attempt_counts_whatever_the_visible_tests_say() -> None:
    wrong_example = Problem(
        **{**vars_of(DOUBLE), "visible": [call(1, expected=3)]},
    )
    right = fenced("def double(n): return 2 * n")
    _, results = await play(wrong_example, [right, right], max_turns=2)
    assert [(one.reward, one.terminated) for one in results] == [(0.0, False), (1.0, True)]
    assert "double(1) == 3\nGot:\n2\n" in results[0].observation[0].text


def vars_of(problem: Problem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in Problem.__slots__}


async def test_an_action_without_code_is_told_so() -> None:
    env, (first, last) = await play(DOUBLE, ["```python\nnot closed", ""], max_turns=2)
    assert "No code was found" in first.observation[0].text
    assert first.info.malformed_calls == 1
    assert (last.truncated, last.terminated, last.reward) == (True, False, 0.0)
    with pytest.raises(EnvError, match="before reset or after the end"):
        await env.step("x")


async def test_without_visible_tests_the_first_attempt_counts() -> None:
    _, (result,) = await play(DOUBLE, [fenced("def double(n): return n")], visible="none")
    assert (result.reward, result.terminated) == (0.0, True)


async def test_a_method_of_a_class_is_found() -> None:
    code = "class Solution:\n    def double(self, n):\n        return 2 * n"
    _, (result,) = await play(DOUBLE, [fenced(code)])
    assert result.reward == 1.0


async def test_what_a_program_prints_is_no_answer() -> None:
    code = "print('hello')\ndef double(n):\n    print('[0, {\"value\": 1}]')\n    return 2 * n"
    _, (result,) = await play(DOUBLE, [fenced(code)])
    assert result.reward == 1.0


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def double(n):\n    while True: pass", "time limit"),
        ("def double(n):\n    return bytearray(10**12)", "MemoryError"),
        ("import os\ndef double(n):\n    os._exit(0)", "the program ended without an answer"),
        ("raise SystemExit", "SystemExit"),
        ("def other(n): return n", "NameError: name 'double' is not defined"),
        ("def double(n) return n", "SyntaxError: expected ':'"),
        ("def double(n): return double(n)", "RecursionError: maximum recursion depth exceeded"),
        ("def double(n): return (i for i in [n])", "Got:\n<list_iterator object"),
        ("def double(n): return object()", "Got:\n<object object>"),
    ],
)
async def test_a_failure_of_the_program_is_told(code: str, told: str) -> None:
    _, (result,) = await play(DOUBLE, [fenced(code)], seconds=0.5)
    assert told in result.observation[0].text
    assert "\n    exec(" not in result.observation[0].text, "no frame of the harness"


async def test_a_limit_of_a_problem_goes_before_that_of_the_environment() -> None:
    slow = "def double(n):\n    for _ in range(10**7): pass\n    return 2 * n"
    patient = Problem(**{**vars_of(DOUBLE), "seconds": 20.0, "visible": ()})
    _, (result,) = await play(patient, [fenced(slow)], seconds=0.05)
    assert result.reward == 1.0
    hasty = Problem(**{**vars_of(DOUBLE), "seconds": 0.05, "visible": ()})
    _, (result,) = await play(hasty, [fenced(slow)], seconds=20.0)
    assert result.reward == 0.0


async def test_memory_of_the_sandboxs_settings_holds() -> None:
    code = fenced("def double(n):\n    x = bytearray(200_000_000)\n    return 2 * n")
    small = BubblewrapSettings(limits=Limits(memory_mb=128))
    _, (result,) = await play(DOUBLE, [code], sandbox=small, visible="none")
    assert result.reward == 0.0
    _, (result,) = await play(DOUBLE, [code], visible="none")
    assert result.reward == 1.0


async def test_a_failing_sandbox_is_an_error_and_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Sandbox):
        forkable = "replay"

        async def run_python(self, *args: Any, **kwargs: Any) -> NoReturn:
            raise EnvError("the sandbox is gone")

        run = open = close = run_python

    monkeypatch.setattr("agentrl.envs.code.functions.shared", lambda settings: Failing())
    env = FunctionsEnv()
    await env.reset(Task("double", DOUBLE.data()), seed=0)
    with pytest.raises(EnvError, match="the sandbox is gone"):
        await env.step(fenced("def double(n): return 2 * n"))


async def test_damaged_private_tests_are_an_error_and_no_reward() -> None:
    broken = Problem(**{**vars_of(DOUBLE), "private": "!!!", "visible": ()})
    with pytest.raises(EnvError, match="private_test_cases: no tests of LiveCodeBench"):
        await play(broken, [fenced("def double(n): return 2 * n")])


CHECK = Problem(
    id="check",
    text="",
    entry="half",
    prefix='def half(n):\n    """Half."""\n\ndef helper(n):\n    return 2 * n\n\n',
    hidden=[Case(kind="program", names=["half"], source="{}\ncheck(half)\n")],
)


@pytest.mark.parametrize(
    ("body", "right"),
    [
        ("assert candidate(4) == 2", True),
        ("assert candidate(4) == 3", False),
        ("for n in range(50):\n        assert abs(candidate(n) - n / 2) < 1e-9", True),
        ("x = candidate(8)\n    assert candidate(x) == 2\n    assert candidate(2 * x) == x", True),
        ("x = candidate(8)\n    assert candidate(x) == 4", False),
        ("assert candidate(n=4) == 2 and candidate(helper(4)) == 4", True),
        ("import random\n    n = random.random()\n    assert candidate(n) == n / 2", True),
        ("n = 64.0\n    while n > 1: n = candidate(n)\n    assert n == 1", True),
        (
            "try:\n        candidate('x')\n    except TypeError: pass\n"
            "    else:\n        assert False, 'no error'",
            True,
        ),
        ("assert isinstance(candidate(1), float)", True),
        ("assert candidate(10**400 * 2) == 1", False),
        ("x = [candidate(n) for n in (1, 2)]\n    assert max(x) == 1.0 and not x[5:]", True),
    ],
)
async def test_a_test_that_is_code_is_judged_on_values_alone(body: str, right: bool) -> None:
    source = f"def check(candidate):\n    {body}\n\ncheck(half)\n"
    case = Case(kind="program", names=["half"], source=source)
    problem = Problem(**{**vars_of(CHECK), "hidden": [case]})
    _, (result,) = await play(problem, [fenced("def half(n):\n    return n / 2")])
    assert result.reward == float(right)


HOSTILE = {
    "an object of its own": "return object()",
    "too deep": "x = []\n    for _ in range(900): x = [x]\n    return x",
    "barely readable": "x = 1\n    for _ in range(320): x = (x,)\n    return x",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_no_value_makes_a_test_fail_as_the_environments_fault(body: str) -> None:
    source = "def check(candidate):\n    assert candidate(candidate(4)) == 1\n\ncheck(half)\n"
    case = Case(kind="program", names=["half"], source=source)
    problem = Problem(**{**vars_of(CHECK), "hidden": [case]})
    _, (result,) = await play(problem, [fenced(f"def half(n):\n    {body}")])
    assert (result.reward, result.terminated) == (0.0, True)


async def test_all_runs_of_an_attempt_have_a_time_together() -> None:
    cases = [Case(kind="stdin", source=str(n), expected=str(n)) for n in range(50)]
    problem = Problem(id="p", text="Echo.", style="stdin", hidden=cases)
    slow = "import time\ntime.sleep(0.2)\nprint(input())"
    settings = {"score": "fraction", "attempt_seconds": 0.5}
    _, (result,) = await play(problem, [fenced(slow)], **settings)
    assert 0.0 < result.reward < 0.1
    _, (result,) = await play(problem, [fenced("print(input())")], score="fraction")
    assert result.reward == 1.0


async def test_a_test_that_needs_more_than_plain_data_is_an_error() -> None:
    case = Case(kind="program", names=["half"], source="half(lambda: 3)\n")
    problem = Problem(**{**vars_of(CHECK), "hidden": [case]})
    with pytest.raises(EnvError, match="cannot be kept apart from the program"):
        await play(problem, [fenced("def half(n):\n    return n / 2")])


async def test_standard_input_and_output() -> None:
    problem = Problem(
        id="p",
        text="Double it.",
        style="stdin",
        visible=[Case(kind="stdin", source="1\n", expected="2\n")],
        hidden=[Case(kind="stdin", source="4\n", expected="8")],
    )
    wrong, right = "print(input())", "if __name__ == '__main__': print(2 * int(input()))"
    _, (first, second) = await play(problem, [fenced(wrong), fenced(right)])
    assert first.observation[0].text == (
        "1 of 1 visible tests failed.\n\nInput:\n1\nExpected:\n2\nGot:\n1\n\nAttempts left: 2."
    )
    assert second.reward == 1.0
    _, (result,) = await play(problem, [fenced("x = input()\nraise ValueError(x)")])
    assert "ValueError: 1" in result.observation[0].text


async def test_a_livecodebench_problem_is_graded_by_its_packed_tests(tmp_path: Path) -> None:
    tests = [{"input": "[3, 1]\n1", "output": "[1, 3]", "testtype": "functional"}]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()
    row = {
        "question_id": "1",
        "question_content": "Sort.",
        "starter_code": "class Solution:\n    def order(self, xs: List[int], n: int):\n",
        "public_test_cases": json.dumps(
            [{"input": "[2,1]\n0", "output": "[1, 2]", "testtype": "functional"}]
        ),
        "private_test_cases": packed,
        "metadata": '{"func_name": "order"}',
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    env = FunctionsEnv(eval=str(tmp_path / "rows.jsonl"))
    (task,) = env.tasks("eval")
    code = row["starter_code"] + "        return tuple(sorted(xs)) if isqrt(n) == n else "
    for tail, reward in (("[]", 1.0), ("0", 1.0)):
        await env.reset(task, seed=0)
        assert (await env.step(fenced(code + tail))).reward == reward
    await env.reset(task, seed=0)
    special = row["starter_code"] + "        return [1, 2]"
    assert (await env.step(fenced(special))).reward == 0.0


async def test_a_plain_process_serves_where_it_is_asked_for() -> None:
    _, (result,) = await play(
        DOUBLE, [fenced("def double(n): return 2 * n")], sandbox=SubprocessSettings()
    )
    assert result.reward == 1.0
