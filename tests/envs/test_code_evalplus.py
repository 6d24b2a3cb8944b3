"""HumanEval+ and MBPP+ in the forms of the hub and of EvalPlus's releases, on made-up rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agentrl.core.errors import DataError
from agentrl.envs.code import FunctionsEnv
from agentrl.envs.code.rows import read_problems

needs_bwrap = [
    pytest.mark.bubblewrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap"),
]

HELPERS = """\
import numpy as np

def is_floats(x):
    return isinstance(x, float) or (isinstance(x, list) and all(isinstance(i, float) for i in x))

def assertion(out, exp, atol):
    equal = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not equal and atol != 0:
        np.testing.assert_allclose(out, exp, atol=atol)
    else:
        assert equal
"""

HALVES = {
    "task_id": "HumanEval/900",
    "prompt": 'def halves(xs):\n    """Halve each.\n    >>> halves([1])\n    [0.5]\n    """\n',
    "entry_point": "halves",
    "canonical_solution": "    return [x / 2 for x in xs]\n",
}
HUB = HALVES | {
    "test": HELPERS
    + """
def check(candidate):
    inputs = [[[n, n + 1]] for n in range(40)]
    results = [[n / 2, (n + 1) / 2] for n in range(40)]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 0)
"""
}
RELEASE = HALVES | {
    "contract": "    assert all(isinstance(x, (int, float)) for x in xs)\n",
    "base_input": [[[1, 2]], [[]]],
    "plus_input": [[[n, 3.5, -n]] for n in range(30)],
    "atol": 1e-06,
}
ROOT = {
    "task_id": "HumanEval/901",
    "prompt": (
        "def poly(xs, x):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n\n"
        'def find_zero(xs):\n    """A root of the quadratic."""\n'
    ),
    "entry_point": "find_zero",
    "canonical_solution": "    return (xs[1] ** 2 - 4 * xs[0] * xs[2]) ** 0.5 / (2 * xs[2])\n",
    "contract": "",
    "base_input": [[[-1, 0, 1]]],
    "plus_input": [[[-4, 0, 1]]],
    "atol": 0.0001,
}
MBPP = {
    "task_id": 900,
    "code": "def pairs(xs):\n    return {(x, x / 2) for x in xs}",
    "prompt": "Pair each number with its half.",
    "source_file": "made up",
    "test_imports": ["import math"],
    "test_list": ["assert pairs([2]) == {(2, 1)}", "assert math.floor(max(pairs([3]))[1]) == 1"],
    "test": HELPERS
    + """
inputs = [[[n, 2 * n]] for n in range(30)]
results = [{(n, n / 2), (2 * n, float(n))} for n in range(30)]
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion(pairs(*inp), exp, 0)
""",
}


def written(tmp_path: Path, row: dict[str, Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return str(path)


async def earned(source: str, code: str) -> float:
    env = FunctionsEnv(eval=source, max_turns=1, seconds=10.0)
    (task,) = env.tasks("eval")
    await env.reset(task, seed=0)
    result = await env.step(f"```python\n{code or env.gold_action(task, 0)[10:-4]}\n```")
    await env.close()
    assert result.terminated
    return result.reward


GOLD = ""
NEARLY = "def halves(xs):\n    return [x / 2 + 1e-9 for x in xs]"
TRUNCATED = "def halves(xs):\n    return [x // 2 for x in xs]"
LATE = "def halves(xs):\n    return [x / 2 if x < 29 else 0 for x in xs]"
OTHER_ROOT = "def find_zero(xs):\n    return -((-xs[0]) ** 0.5)"
NO_ROOT = "def find_zero(xs):\n    return 1"
FEW_PAIRS = "def pairs(xs):\n    return {(x, x / 2) for x in xs if x < 50}"


@pytest.mark.parametrize(
    ("row", "code", "wanted"),
    [
        pytest.param(row, code, wanted, marks=needs_bwrap, id=name)
        for name, row, code, wanted in (
            ("hub, gold", HUB, GOLD, 1.0),
            ("hub, nearly", HUB, NEARLY, 1.0),
            ("hub, wrong for the last inputs", HUB, LATE, 0.0),
            ("release, gold", RELEASE, GOLD, 1.0),
            ("release, nearly", RELEASE, NEARLY, 1.0),
            ("release, truncated", RELEASE, TRUNCATED, 0.0),
            ("root, gold", ROOT, GOLD, 1.0),
            ("root, the other one", ROOT, OTHER_ROOT, 1.0),
            ("root, none", ROOT, NO_ROOT, 0.0),
            ("mbpp, gold", MBPP, GOLD, 1.0),
            ("mbpp, right for the listed tests only", MBPP, FEW_PAIRS, 0.0),
        )
    ],
)
async def test_what_a_program_earns(tmp_path, row, code, wanted):
    assert await earned(written(tmp_path, row), code) == wanted


@pytest.mark.parametrize("layout", ["auto", "evalplus"])
def test_a_release_row_keeps_its_tests_hidden(tmp_path, layout):
    (problem,) = read_problems(written(tmp_path, RELEASE), layout)
    assert (problem.id, problem.entry, problem.visible) == ("HumanEval/900", "halves", ())
    (case,) = problem.hidden
    assert case.kind == "program" and list(case.names) == ["halves"]
    assert "[0, 3.5, 0]" in case.source and "1e-06" in case.source


def test_an_mbpp_plus_row_has_its_listed_tests_and_one_more(tmp_path):
    (problem,) = read_problems(written(tmp_path, MBPP))
    assert [one.kind for one in problem.hidden] == ["expression", "expression", "program"]
    assert problem.visible == problem.hidden[:1]
    assert problem.hidden[-1].source.startswith("import math\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task_id": "Mbpp/2"}, "keep tuples as lists; take the rows of hub:evalplus/mbppplus"),
        ({"plus_input": {"a": 1}}, "'plus_input' must be a list of argument lists, got"),
        ({"base_input": [1]}, "'base_input' must be a list of argument lists, got"),
        ({"atol": "small"}, "'atol' must be a number, not negative, got"),
        ({"atol": -1}, "'atol' must be a number, not negative, got"),
    ],
)
def test_a_release_row_that_cannot_be_played_is_named(tmp_path, change, said):
    with pytest.raises(DataError, match=r"rows.jsonl:1: ") as told:
        read_problems(written(tmp_path, RELEASE | change))
    assert said in str(told.value)


def test_a_broken_test_of_mbpp_plus_is_named(tmp_path):
    with pytest.raises(DataError, match="'test' is no Python"):
        read_problems(written(tmp_path, MBPP | {"test": "for"}))
