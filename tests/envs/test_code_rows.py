"""Rows of the four layouts, and LiveCodeBench's encoding as it stands in its files."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from agentrl.core.errors import DataError, RecipeError
from agentrl.core.types import Task
from agentrl.envs.code import FunctionsEnv, builtin
from agentrl.envs.code.inside import decode
from agentrl.envs.code.problems import Problem, problem_of
from agentrl.envs.code.rows import hidden_cases, read_problems


def packed(tests: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def read(tmp_path: Path, *rows: dict[str, Any], layout: Any = "auto") -> list[Problem]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_problems(str(path), layout)


HUMANEVAL = {
    "task_id": "HumanEval/2",
    "prompt": 'def f(n):\n    """Double.\n    >>> f(1)\n    2\n    >>> f(3)\n    what?\n    """\n',
    "entry_point": "f",
    "canonical_solution": "    return 2 * n\n",
    "test": "def check(candidate):\n    assert candidate(4) == 8\n",
}
MBPP = {
    "task_id": 7,
    "text": "Double a number.",
    "code": "def f(n):\r\n  return 2 * n",
    "test_setup_code": "",
    "test_list": ["assert f(1) == 2", "assert 4 == f(2)", "assert abs(f(0.5) - 1) < 1e-6"],
    "challenge_test_list": ["assert f('a') == 'aa'"],
}
FUNCTIONAL = {
    "question_title": "double",
    "question_content": "Double a number.",
    "platform": "leetcode",
    "question_id": "1234",
    "contest_id": "weekly",
    "contest_date": "2024-01-01T00:00:00",
    "starter_code": "class Solution:\n    def double(self, n: int, xs: List[int]):\n        ",
    "difficulty": "easy",
    "public_test_cases": json.dumps(
        [{"input": "1\n[2,\n3]", "output": "2", "testtype": "functional"}]
    ),
    "private_test_cases": packed([{"input": "4\n[]", "output": "8", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "double"}),
}
STDIN = FUNCTIONAL | {
    "question_id": "abc_a",
    "starter_code": "",
    "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "4\n", "output": "8\n", "testtype": "stdin"}]),
    "metadata": "{}",
}
PLAIN = {
    "id": "double",
    "text": "Double a number.",
    "entry": "f",
    "visible": [{"args": [1], "expected": 2}],
    "hidden": [{"args": [[4]], "expected": {"a": [8, 1.5]}}],
    "solution": "def f(n): return 2 * n",
    "seconds": 2,
}


def test_a_humaneval_row(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, HUMANEVAL)
    assert (problem.id, problem.entry, problem.prefix) == (
        "HumanEval/2",
        "f",
        HUMANEVAL["prompt"],
    )
    assert [(one.kind, one.source, one.expected) for one in problem.visible] == [
        ("expression", "f(1)", 2)
    ], "an example whose result is no literal is left out"
    (check,) = problem.hidden
    assert check.kind == "program"
    assert list(check.names) == ["f"]
    assert check.source.endswith("check(f)\n")
    assert problem.solution == HUMANEVAL["prompt"] + "    return 2 * n\n"


def test_an_mbpp_row(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, MBPP)
    assert (problem.id, problem.entry, problem.text) == ("7", "f", "Double a number.")
    assert [one.kind for one in problem.hidden] == [
        "expression",
        "expression",
        "program",
        "expression",
    ]
    assert [(one.source, one.expected) for one in problem.hidden[:2]] == [("f(1)", 2), ("f(2)", 4)]
    assert list(problem.hidden[2].names) == ["f"]
    assert problem.visible == problem.hidden[:1]


def test_a_sanitized_mbpp_row_imports_what_its_tests_need(tmp_path: Path) -> None:
    row = {
        "task_id": 8,
        "prompt": "Half.",
        "code": "def f(n): return n / 2",
        "test_imports": ["import math"],
        "test_list": ["assert math.isclose(f(3), 1.5)"],
    }
    (problem,) = read(tmp_path, row)
    assert problem.setup == "import math\n"
    assert "import math" in problem.hidden[0].source


def test_a_test_may_call_a_function_that_is_named_like_one_of_pythons(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, MBPP | {"test_list": ["assert sum(10,15) == 6"]})
    assert problem.entry == "sum"


def test_a_functional_row_of_livecodebench(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, FUNCTIONAL)
    assert (problem.id, problem.style, problem.entry) == ("1234", "function", "double")
    assert [decode(arg) for arg in problem.visible[0].args] == [1, [2, 3]]
    public, private = hidden_cases(problem)
    assert public == problem.visible[0]
    assert ([decode(arg) for arg in private.args], private.expected) == ([4, []], 8)


def test_a_row_of_livecodebench_with_standard_input(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, STDIN)
    assert (problem.style, problem.entry) == ("stdin", "")
    assert [(one.source, one.expected) for one in hidden_cases(problem)] == [
        ("1\n", "2\n"),
        ("4\n", "8\n"),
    ]


def test_a_plain_row(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, PLAIN)
    assert problem.seconds == 2.0
    assert problem.loose
    assert decode(problem.hidden[0].expected) == {"a": [8, 1.5]}
    assert problem.hidden[0].shown == "f([4]) == {'a': [8, 1.5]}"


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("open('/tmp/agentrl_evil', 'w')",)


@pytest.mark.parametrize(
    ("private", "said"),
    [
        ("!!!", "base64"),
        (base64.b64encode(b"no zip").decode(), "incorrect header check"),
        (base64.b64encode(zlib.compress(b"no pickle")).decode(), "no tests of LiveCodeBench"),
        (base64.b64encode(zlib.compress(pickle.dumps("[]"))[:-4]).decode(), "cut short"),
        (
            base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode(),
            "it asks for builtins.eval",
        ),
        (base64.b64encode(zlib.compress(pickle.dumps(print))).decode(), "builtins.print"),
        (base64.b64encode(zlib.compress(pickle.dumps(3))).decode(), "holds int, not text"),
        (packed({"input": ""}), "a JSON array of objects"),
        (packed([{"input": 3, "output": ""}]), "must be texts"),
        (packed([{"input": "", "output": "", "testtype": "x"}]), "stdin or functional"),
        (packed([{"input": "{", "output": "", "testtype": "functional"}]), "not JSON"),
        ("[{]", "no tests of LiveCodeBench"),
    ],
)
def test_damaged_or_hostile_private_tests_are_refused(
    tmp_path: Path, private: str, said: str
) -> None:
    (problem,) = read(tmp_path, FUNCTIONAL | {"private_test_cases": private})
    with pytest.raises(DataError, match=said):
        list(hidden_cases(problem))
    assert not Path("/tmp/agentrl_evil").exists()


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.envs.code.livecodebench._MOST_BYTES", 1000)
    (problem,) = read(tmp_path, FUNCTIONAL | {"private_test_cases": packed(["x" * 100_000])})
    with pytest.raises(DataError, match="more than 1000 bytes"):
        list(hidden_cases(problem))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"x": 1}],
            r"rows.jsonl:1: of no known layout: evalplus \(entry_point, plus_input\) or humaneval",
        ),
        ([PLAIN, PLAIN], r"rows.jsonl:2: id 'double' is already that of .*rows.jsonl:1"),
        ([PLAIN | {"hidden": []}], r"rows.jsonl:1: 'hidden' has no test"),
        ([PLAIN | {"hidden": 3}], r"'hidden' must be a list of tests, got 3"),
        ([PLAIN | {"visible": [{"stdin": "", "stdout": ""}]}], r'a test must be {"args"'),
        ([PLAIN | {"seconds": 0}], r"'seconds' must be a positive number, got 0"),
        ([HUMANEVAL | {"test": "def check("}], r"'test' is no Python"),
        ([MBPP | {"test_list": []} | {"challenge_test_list": []}], r"'test_list' has no test"),
        ([MBPP | {"test_list": ["assert"]}], r"'test_list' is no Python"),
        ([MBPP | {"test_list": ["assert 1"]}], r"the first test calls no function"),
        ([FUNCTIONAL | {"metadata": "{"}], r"'metadata' is not JSON"),
        ([FUNCTIONAL | {"metadata": "{}"}], r"needs 'func_name' in the row's metadata"),
        ([], "the file of problems is empty"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, *rows)


def test_a_problem_survives_being_a_tasks_data(tmp_path: Path) -> None:
    for row in (HUMANEVAL, MBPP, FUNCTIONAL, STDIN, PLAIN):
        (problem,) = read(tmp_path, row)
        data = json.loads(json.dumps(problem.data()))
        assert problem_of(data) == problem_of(problem.data())
        assert problem_of(data).data() == problem.data() == data


def test_what_is_visible_is_a_setting(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, MBPP)
    shown = {
        visible: FunctionsEnv(visible=visible)  # type: ignore[arg-type]
        for visible in ("none", "examples", "all")
    }
    task = Task("7", problem.data())

    async def asked(env: FunctionsEnv) -> str:
        return (await env.reset(task, seed=0))[0].text

    texts = {name: asyncio.run(asked(env)) for name, env in shown.items()}
    assert [texts[name].count("assert ") for name in ("none", "examples", "all")] == [0, 1, 4]
    assert "`f`" in texts["none"]


def test_the_built_in_problems_are_many_and_apart() -> None:
    train, eval_ = builtin.problems("train"), builtin.problems("eval")
    assert len(train) >= 20
    assert len(eval_) >= 8
    ids = [one.id for one in (*train, *eval_)]
    assert len(set(ids)) == len(ids)
    assert {one.style for one in train} == {one.style for one in eval_} == {"function", "stdin"}
    for one in (*train, *eval_):
        assert one.solution
        assert one.visible
        assert len(one.hidden) >= 3
        shown = {(case.source, str(case.args)) for case in one.visible}
        assert not shown & {(case.source, str(case.args)) for case in one.hidden}
    assert builtin.problems("other") == ()


def test_settings_that_cannot_work_are_refused() -> None:
    for settings in ({"max_turns": 0}, {"seconds": 0.0}, {"max_feedback_chars": 10}):
        with pytest.raises(RecipeError, match="code/functions needs"):
            FunctionsEnv(**settings)  # type: ignore[arg-type]
