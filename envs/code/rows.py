"""Rows of data sets of programming problems -> problems, in five layouts.

HumanEval, and HumanEval+ on the hub: `task_id`, `prompt`, `entry_point`, `canonical_solution`,
`test` (arXiv:2107.03374). HumanEval+ of EvalPlus's releases: see `evalplus`. MBPP: `task_id`,
`text` (or `prompt`), `code`, `test_list`, `test_setup_code` (or `test_imports`),
`challenge_test_list` (arXiv:2108.07732), and in MBPP+ a `test` with many inputs. LiveCodeBench:
`question_id`, `question_content`, `starter_code`, `public_test_cases`, `private_test_cases`,
`metadata` (arXiv:2403.07974). Plain: `id`, `text`, and `entry` with tests `{"args": [...],
"expected": ...}`, or no `entry` with tests `{"stdin": "...", "stdout": "..."}`, under `visible` and
`hidden`; `solution`, `starter` and `seconds` if wanted. Other keys are ignored; LiveCodeBench rows
may have a `solution`, too.
"""

from __future__ import annotations

import ast
import builtins
import doctest
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias, TypeGuard

from agentrl.core.datasets import Row, read_rows, shown
from agentrl.core.errors import DataError

from .evalplus import evalplus_problem
from .inside import encode
from .livecodebench import read_tests
from .problems import Case, Problem

Layout: TypeAlias = Literal["auto", "evalplus", "humaneval", "mbpp", "livecodebench", "plain"]

_IMPORTS = """\
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
"""
"""What answers to LiveCodeBench's functional problems may use without importing it."""


def read_problems(source: str, layout: Layout = "auto") -> list[Problem]:
    """The problems of a file or of a hub's data set, in order.

    Raises:
        DataError: naming the row and what was found there.
    """
    problems: list[Problem] = []
    places: dict[str, str] = {}
    for row in read_rows(source, name="file of problems"):
        if layout == "auto":
            layout = _layout(row)
        problem = _READERS[layout](row)
        if problem.id in places:
            raise DataError(
                f"{row.place}: id {problem.id!r} is already that of {places[problem.id]}"
            )
        places[problem.id] = row.place
        problems.append(problem)
    if not problems:
        raise DataError(f"{source}: the file of problems is empty")
    return problems


def plain_problem(row: Row) -> Problem:
    """A problem in our own layout."""
    entry = row.text("entry") if "entry" in row.data else ""
    seconds = row.data.get("seconds")
    if seconds is not None and not (type(seconds) in (int, float) and seconds > 0):  # type: ignore[operator]
        raise DataError(f"{row.place}: 'seconds' must be a positive number, got {shown(seconds)}")
    hidden = _plain_cases(row, "hidden", entry)
    if not hidden:
        raise DataError(f"{row.place}: 'hidden' has no test")
    return Problem(
        id=row.id(),
        text=row.text("text"),
        style="function" if entry else "stdin",
        entry=entry,
        starter=_optional(row, "starter"),
        visible=_plain_cases(row, "visible", entry) if "visible" in row.data else (),
        hidden=hidden,
        loose=True,
        seconds=None if seconds is None else float(seconds),  # type: ignore[arg-type]
        solution=_optional(row, "solution"),
    )


def _plain_cases(row: Row, key: str, entry: str) -> list[Case]:
    tests = row.value(key)
    if not isinstance(tests, list):
        raise DataError(f"{row.place}: {key!r} must be a list of tests, got {shown(tests)}")
    return [_plain_case(test, f"{row.place}: {key}[{n}]", entry) for n, test in enumerate(tests)]


def _plain_case(test: object, place: str, entry: str) -> Case:
    if isinstance(test, dict) and entry and isinstance(test.get("args"), list):
        if "expected" in test:
            args, expected = test["args"], test["expected"]
            said = f"{entry}({', '.join(map(repr, args))}) == {expected!r}"
            wire = [encode(one) for one in args]
            return Case(kind="call", args=wire, expected=encode(expected), shown=said)
    elif isinstance(test, dict) and not entry:
        texts = test.get("stdin"), test.get("stdout")
        if all(isinstance(text, str) for text in texts):
            return Case(kind="stdin", source=test["stdin"], expected=test["stdout"])
    form = '{"args": [...], "expected": ...}' if entry else '{"stdin": "...", "stdout": "..."}'
    raise DataError(f"{place}: a test must be {form}, got {shown(test)}")


def _humaneval(row: Row) -> Problem:
    prompt, entry = row.text("prompt"), row.text("entry_point")
    solution = _optional(row, "canonical_solution")
    test = f"{row.text('test')}\n\ncheck({entry})\n"
    _parsed(test, row, "test")
    return Problem(
        id=row.id("task_id"),
        text=prompt,
        entry=entry,
        prefix=prompt,
        visible=_examples(prompt, entry),
        hidden=[Case(kind="program", source=test, names=[entry], shown=f"check({entry})")],
        solution=prompt + solution if solution.strip() else "",
    )


def _examples(prompt: str, entry: str) -> list[Case]:
    """The examples of the docstring whose wanted result is a literal; some rows have none."""
    try:
        body = ast.parse(f"{prompt}\n    pass\n").body
        functions = [node for node in body if isinstance(node, ast.FunctionDef)]
        texts = [ast.get_docstring(node) or "" for node in functions if node.name == entry]
        found = doctest.DocTestParser().get_examples(texts[-1]) if texts else []
    except (SyntaxError, ValueError):
        return []
    cases = []
    for example in found:
        source = example.source.strip()
        try:
            expected = ast.literal_eval(example.want.strip())
            ast.parse(source, mode="eval")
        except (ValueError, SyntaxError):
            continue
        if entry in source:
            said = f"{source} == {expected!r}"
            cases.append(
                Case(kind="expression", source=source, expected=encode(expected), shown=said)
            )
    return cases


def _mbpp(row: Row) -> Problem:
    texts = [*row.texts("test_list")]
    if "challenge_test_list" in row.data:
        texts += row.texts("challenge_test_list")
    if not texts:
        raise DataError(f"{row.place}: 'test_list' has no test")
    setup = _optional(row, "test_setup_code")
    if "test_imports" in row.data:
        setup = "\n".join((*row.texts("test_imports"), setup))
    cases = [_assertion(text, row, setup) for text in texts]
    entry, hidden = _called(texts[0], row), list(cases)
    if "test" in row.data:
        more = row.text("test")
        _parsed(more, row, "test")
        source = f"{setup}\n{more}"
        hidden.append(Case(kind="program", source=source, names=[entry], shown="# more inputs"))
    return Problem(
        id=row.id("task_id"),
        text=row.text("text" if "text" in row.data else "prompt"),
        entry=entry,
        setup=setup,
        visible=cases[:1],
        hidden=hidden,
        solution=_optional(row, "code"),
    )


def _assertion(text: str, row: Row, setup: str) -> Case:
    """`assert call == literal` is an expression; what is more than that, a program."""
    body = _parsed(text, row, "test_list").body
    first = body[0] if len(body) == 1 else None
    if isinstance(first, ast.Assert) and isinstance(first.test, ast.Compare):
        sides = [first.test.left, *first.test.comparators]
        if len(sides) == 2 and isinstance(first.test.ops[0], ast.Eq):
            for call, literal in (sides, sides[::-1]):
                try:
                    expected = ast.literal_eval(literal)
                except (ValueError, TypeError):
                    continue
                source = ast.unparse(call)
                wire = encode(expected)
                return Case(kind="expression", source=source, expected=wire, shown=text.strip())
    names = _called_names(text)[:1]
    modules = sorted({node.id for node in ast.walk(first or ast.Pass()) if _is_module(node)})
    source = "\n".join((*(f"import {name}" for name in modules), setup, text, ""))
    return Case(kind="program", source=source, names=names, shown=text.strip())


def _is_module(node: ast.AST) -> TypeGuard[ast.Name]:
    """Whether a test speaks of a module, which most solutions happen to import for it."""
    return isinstance(node, ast.Name) and node.id in sys.stdlib_module_names


def _called_names(text: str) -> list[str]:
    """Functions that a test calls, those first that Python does not have already."""
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    names = {node.id for node in calls if isinstance(node, ast.Name)}
    return sorted(names, key=lambda name: (hasattr(builtins, name), text.index(name)))


def _called(text: str, row: Row) -> str:
    names = _called_names(text)
    if not names:
        raise DataError(f"{row.place}: the first test calls no function: {shown(text)}")
    return names[0]


def _livecodebench(row: Row) -> Problem:
    metadata = row.value("metadata")
    try:
        known = json.loads(metadata) if isinstance(metadata, str) and metadata else metadata or {}
    except ValueError as error:
        raise DataError(f"{row.place}: 'metadata' is not JSON: {error}") from error
    if not isinstance(known, Mapping):
        raise DataError(f"{row.place}: 'metadata' must be an object, got {shown(known)}")
    entry, place = str(known.get("func_name") or ""), row.place
    visible = read_tests(
        row.text("public_test_cases"), place=f"{place}: public_test_cases", entry=entry
    )
    return Problem(
        id=row.id("question_id"),
        text=row.text("question_content"),
        style="function" if entry else "stdin",
        entry=entry,
        starter=_optional(row, "starter_code"),
        prelude=_IMPORTS if entry else "",
        visible=visible,
        private=row.text("private_test_cases"),
        loose=True,
        solution=_optional(row, "solution"),
    )


def hidden_cases(problem: Problem) -> Iterable[Case]:
    """The tests that count; those of LiveCodeBench, decoded, are the public ones and the private.

    Raises:
        DataError: the encoded tests are damaged.
    """
    if not problem.private:
        return problem.hidden
    place = f"problem {problem.id!r}: private_test_cases"
    return [*problem.visible, *read_tests(problem.private, place=place, entry=problem.entry)]


def _optional(row: Row, key: str) -> str:
    return row.text(key, empty=True) if row.data.get(key) is not None else ""


def _parsed(source: str, row: Row, key: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{row.place}: {key!r} is no Python: {error}") from error


_READERS: Mapping[str, Callable[[Row], Problem]] = {
    "evalplus": evalplus_problem,
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "livecodebench": _livecodebench,
    "plain": plain_problem,
}
_KEYS = {
    "evalplus": ("entry_point", "plus_input"),
    "humaneval": ("entry_point", "test"),
    "mbpp": ("test_list",),
    "livecodebench": ("private_test_cases",),
    "plain": ("hidden",),
}


def _layout(row: Row) -> Layout:
    for name, keys in _KEYS.items():
        if all(key in row.data for key in keys):
            return name  # type: ignore[return-value]
    wanted = " or ".join(f"{name} ({', '.join(keys)})" for name, keys in _KEYS.items())
    found = ", ".join(map(repr, row.data)) or "none"
    raise DataError(f"{row.place}: of no known layout: {wanted}. Its keys: {found}")
