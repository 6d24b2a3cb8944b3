"""Verdicts on programs, reached where the programs are not.

A program of the policy runs in the sandbox and is told the arguments of its calls, never what
they should return: its values leave the sandbox as plain data and are compared here. A test that
is code of its own (HumanEval's `check`) runs in a second sandbox run, in which the program's
functions are a table of the values that it gave.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import math
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from agentrl.core.errors import EnvError
from agentrl.sandbox import Limits, RunResult, RunStatus, Sandbox

from . import inside
from .problems import Case, Problem

_RESULT_CHARS = 4_000_000
_HASHED_ITEMS = 2_000
"""Sets and mappings of a program's values are no larger, since their hashes are the program's."""
_ROUNDS = 12
_PLAN_SECONDS = 1.0
_PLANS_KEPT = 4096
_plans: OrderedDict[str, list[object]] = OrderedDict()

_LIMIT_TEXTS = {
    RunStatus.WALL_LIMIT: "time limit",
    RunStatus.CPU_LIMIT: "time limit",
    RunStatus.MEMORY_LIMIT: "memory limit",
    RunStatus.OUTPUT_LIMIT: "output limit",
    RunStatus.KILLED: "the program was killed",
}


class Outcome(NamedTuple):
    """How a program did in one test: what it gave (as a person would write it), or what failed."""

    case: Case
    passed: bool
    got: str = ""
    error: str = ""


class _Reply(NamedTuple):
    """What was said out of the sandbox, and how the run ended."""

    said: list[Any]
    result: RunResult


@dataclass(slots=True)
class Grader:
    """Grades one attempt in `sandbox`; a run has `seconds` of CPU time, and `limits` otherwise.

    The wall time of a run is three times as long and two seconds more, for busy machines; that of
    all runs together is `left`, so that no attempt lasts until the deadline of its step, which
    would be a failure of the environment and no failure of the program.
    """

    sandbox: Sandbox
    limits: Limits
    seconds: float
    left: float

    async def grade(
        self, problem: Problem, code: str, cases: Sequence[Case], *, stop_early: bool = False
    ) -> list[Outcome]:
        """The outcomes in order; with `stop_early` none after the first failure, where that saves.

        Raises:
            EnvError: the sandbox failed, or a test of the problem cannot be run.
        """
        outcomes: list[Outcome] = []
        together = [case for case in cases if case.kind in ("call", "expression")]
        values = await self._values(problem, code, together)
        answered = {id(case): value for case, value in zip(together, values, strict=True)}
        for case in cases:
            if case.kind == "stdin":
                outcome = await self._stdin(problem, code, case)
            elif case.kind == "program":
                outcome = await self._test(problem, code, case)
            else:
                outcome = _compared(case, answered[id(case)], loose=problem.loose)
            outcomes.append(outcome)
            if stop_early and not outcome.passed:
                break
        return outcomes

    async def _values(
        self, problem: Problem, code: str, cases: Sequence[Case]
    ) -> list[Mapping[str, Any]]:
        calls = [
            case.source if case.kind == "expression" else [problem.entry, case.args, _NO_KEYWORDS]
            for case in cases
        ]
        return await self._answers(problem, code, calls) if calls else []

    async def _answers(
        self, problem: Problem, code: str, calls: Sequence[object]
    ) -> list[Mapping[str, Any]]:
        """What the program answers to each call; where it says none, why."""
        request = {
            "do": "calls",
            "prelude": problem.prelude,
            "setup": problem.setup,
            "code": code,
            "calls": calls,
        }
        reply = await self._ask(problem, request)
        failed = _why(reply.result)
        answers: dict[int, Mapping[str, Any]] = {}
        for one in reply.said:
            if not isinstance(one, list) or len(one) != 2 or not isinstance(one[1], dict):
                continue
            if one[0] == "failed":
                failed = str(one[1].get("told", ""))
            elif type(one[0]) is int:
                # A second answer is the program's own or a forked child's: neither counts.
                twice = {"failed": "two answers to one call"}
                answers[one[0]] = twice if one[0] in answers else one[1]
        return [answers.get(number, {"failed": failed}) for number in range(len(calls))]

    async def _test(self, problem: Problem, code: str, case: Case) -> Outcome:
        """Play a test in rounds: collect its calls, let the program answer, judge the values."""
        calls = await self._plan(problem, case)
        table: dict[str, Mapping[str, Any]] = {}
        for _ in range(_ROUNDS):
            if calls:
                answers = await self._answers(problem, code, calls)
                for call, answer in zip(calls, answers, strict=True):
                    if "failed" in answer:
                        return Outcome(case, False, error=str(answer["failed"]))
                    table[json.dumps(call)] = answer
            verdict = await self._judge(problem, case, table)
            if verdict is None:
                return Outcome(case, False, error="the test did not end with these values")
            if verdict["passed"] or not verdict["missing"]:
                return Outcome(case, bool(verdict["passed"]), error=str(verdict["told"]))
            calls = verdict["missing"]
        return Outcome(case, False, error=f"the test asked for values more than {_ROUNDS} times")

    async def _plan(self, problem: Problem, case: Case) -> list[object]:
        """The calls that a test makes, as far as they do not hang on the program's values."""
        key = f"{problem.prefix}\0{case.source}\0{case.names}"
        if key not in _plans:
            verdict = await self._judge(problem, case, {}, collect=True)
            # A test that does not end without real values is played call by call.
            found = [] if verdict is None else verdict["missing"]
            _plans[key] = list({json.dumps(call): call for call in found}.values())
            if len(_plans) > _PLANS_KEPT:
                _plans.popitem(last=False)
        return _plans[key]

    async def _judge(
        self,
        problem: Problem,
        case: Case,
        table: Mapping[str, Mapping[str, Any]],
        *,
        collect: bool = False,
    ) -> Mapping[str, Any] | None:
        """What the test says of these values; None where it did not come to an end."""
        prefix = f"{problem.prefix}\n    pass\n" if problem.prefix else ""
        request = {
            "do": "test",
            "prelude": prefix,
            "source": case.source,
            "names": case.names,
            "answers": table,
            "collect": collect,
        }
        reply = await self._ask(problem, request, most=_PLAN_SECONDS if collect else None)
        if not reply.said:
            # With a program's values in it, how a test ends is the program's doing.
            if not collect or reply.result.status in _LIMIT_TEXTS:
                return None
            raise EnvError(
                f"problem {problem.id!r}: its test does not run: {reply.result.stderr[-300:]}"
            )
        verdict = reply.said[0]
        assert isinstance(verdict, dict)
        if verdict["refused"]:
            raise EnvError(
                f"problem {problem.id!r}: its test cannot be kept apart from the program: "
                f"{verdict['refused']}"
            )
        return verdict

    async def _stdin(self, problem: Problem, code: str, case: Case) -> Outcome:
        result = await self._run(problem, code, case.source)
        got = result.stdout
        if result.status is not RunStatus.OK:
            return Outcome(
                case, False, got, _LIMIT_TEXTS.get(result.status) or _last(result.stderr)
            )
        passed = not result.cut and same_output(got, str(case.expected))
        return Outcome(case, passed, got)

    async def _ask(
        self, problem: Problem, request: dict[str, Any], *, most: float | None = None
    ) -> _Reply:
        mark = secrets.token_hex(16)
        try:
            stdin = json.dumps({**request, "mark": mark})
        except RecursionError:
            # A value that was just shallow enough to be read.
            return _Reply([], _NOT_RUN)
        result = await self._run(problem, _inside_source(), stdin, most)
        said = []
        for line in result.stdout.split("\n"):
            if line.startswith(mark):
                try:
                    said.append(json.loads(line.removeprefix(mark)))
                except (ValueError, RecursionError):
                    continue  # cut by a limit, or a forgery
        return _Reply(said, result)

    async def _run(
        self, problem: Problem, code: str, stdin: str, most: float | None = None
    ) -> RunResult:
        if self.left <= 0:
            return _NOT_RUN
        seconds = self.seconds if problem.seconds is None else problem.seconds
        seconds = seconds if most is None else min(seconds, most)
        limits = {
            "cpu_seconds": seconds,
            "wall_seconds": min(3 * seconds + 2.0, self.left),
            "output_chars": _RESULT_CHARS,
        }
        result = await self.sandbox.run_python(
            code, stdin=stdin, limits=self.limits.model_copy(update=limits)
        )
        self.left -= result.seconds
        return result


_NOT_RUN = RunResult(status=RunStatus.WALL_LIMIT, stdout="", stderr="")
_NO_KEYWORDS = inside.encode({})


@cache
def _inside_source() -> str:
    source = Path(inside.__file__).read_text(encoding="utf-8")
    # To compile it takes as long as all else in a short run: an interpreter like this one is
    # spared that, and another one gets the source.
    compiled = marshal.dumps(compile(source, "inside.py", "exec"))
    return (
        "import importlib.util, marshal\n"
        f"same = importlib.util.MAGIC_NUMBER == {importlib.util.MAGIC_NUMBER!r}\n"
        f"exec(marshal.loads({compiled!r}) if same else {source!r})\n"
        "main()\n"
    )


def _why(result: RunResult) -> str:
    """Why a run said nothing."""
    return _LIMIT_TEXTS.get(result.status, "the program ended without an answer")


def _last(stderr: str) -> str:
    return stderr.strip()[-1500:] or "the program ended with an exit code that is not 0"


def _compared(case: Case, answer: Mapping[str, Any], *, loose: bool) -> Outcome:
    if "value" not in answer:
        told = answer.get("told") or answer.get("failed") or "the program ended without an answer"
        return Outcome(case, False, error=str(told))
    try:
        got = inside.decode(answer["value"], hashed=_HASHED_ITEMS)
        passed = same_value(got, inside.decode(case.expected), loose=loose)
    except (ValueError, RecursionError) as error:
        return Outcome(case, False, error=f"the value cannot be compared: {error}")
    return Outcome(case, passed, "" if passed else _shown(got))


def _shown(value: object) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return "a value too large to show"


def same_value(got: object, expected: object, *, loose: bool) -> bool:
    """Python's equality; `loose`: tuples are lists, and floats agree to 1e-6 (relative or not)."""
    if not loose:
        return bool(got == expected)
    if isinstance(got, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(got) == len(expected) and all(
            same_value(one, other, loose=True) for one, other in zip(got, expected, strict=True)
        )
    if isinstance(got, dict) and isinstance(expected, dict):
        return got.keys() == expected.keys() and all(
            same_value(got[key], expected[key], loose=True) for key in got
        )
    if isinstance(expected, float) and isinstance(got, (int, float)):
        try:
            return math.isclose(got, expected, rel_tol=1e-6, abs_tol=1e-6)
        except OverflowError:
            return False
    return bool(got == expected)


def same_output(got: str, expected: str) -> bool:
    """Equal lines but for white space at their ends and blank ones at the end.

    Lines that differ may still be the same numbers, word by word (LiveCodeBench's rule).
    """
    mine, theirs = (
        [line.strip() for line in text.strip().splitlines()] for text in (got, expected)
    )
    if len(mine) != len(theirs):
        return False
    return all(a == b or _same_numbers(a, b) for a, b in zip(mine, theirs, strict=True))


def _same_numbers(got: str, expected: str) -> bool:
    try:
        return [Decimal(one) for one in got.split()] == [Decimal(one) for one in expected.split()]
    except (InvalidOperation, ValueError):
        return False
