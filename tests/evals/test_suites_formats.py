"""Suites whose rows are not here, on made-up rows with the fields that the hub's have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agentrl.evals.check import check_suite
from agentrl.evals.suites import SUITES

PLUS = """
def check(candidate):
    inputs = [[n] for n in range(20)]
    results = [2 * n for n in range(20)]
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assert candidate(*inp) == exp
"""
TESTS = json.dumps([{"input": "2\n", "output": "4\n", "testtype": "stdin"}])

ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {
        "question": "Ann has 2 apples and buys 3. How many has she?",
        "answer": "She has 2 + 3 = <<2+3=5>>5.\n#### 5",
    },
    "math500": {
        "problem": "What is $\\frac{1}{2} + \\frac{1}{2}$?",
        "solution": "It is $\\boxed{1}$.",
        "answer": "1",
        "subject": "Prealgebra",
        "level": 1,
        "unique_id": "test/prealgebra/1.json",
    },
    "aime24": {
        "id": 60,
        "problem": "Find the remainder of $7^2$ by $1000$.",
        "solution": "Since $7^2 = 49$, it is $\\boxed{049}$.",
        "answer": "049",
        "url": "https://example.org",
        "year": "2024",
    },
    "aime25": {"problem": "What is $10 \\cdot 7$?", "answer": "70", "id": "0"},
    "amc23": {
        "id": 0,
        "question": "What is $3^3$?",
        "answer": "27.0",
        "url": "https://example.org",
    },
    "olympiadbench": {
        "id": 1,
        "question": "Solve $x^2 = 4$.",
        "solution": ["Both roots are easily seen."],
        "final_answer": ["$2, -2$"],
        "context": None,
        "is_multiple_answer": True,
        "unit": None,
        "answer_type": "Numerical",
        "error": None,
    },
    "minerva": {"question": "What is $2^{10}$?", "answer": "1024"},
    "svamp": {
        "ID": "chal-1",
        "Body": "There are 8 birds and 2 fly away.",
        "Question": "How many are left?",
        "Equation": "( 8.0 - 2.0 )",
        "Answer": "6.0",
        "Type": "Subtraction",
    },
    "humaneval_plus": {
        "task_id": "HumanEval/900",
        "prompt": 'def twice(n):\n    """Twice n."""\n',
        "entry_point": "twice",
        "canonical_solution": "    return 2 * n\n",
        "test": PLUS,
    },
    "mbpp_plus": {
        "task_id": 900,
        "prompt": "Double a number.",
        "code": "def twice(n):\n    return 2 * n",
        "source_file": "made up",
        "test_imports": [],
        "test_list": ["assert twice(1) == 2"],
        "test": PLUS.replace("candidate", "twice") + "\ncheck(twice)\n",
    },
    "livecodebench": {
        "question_title": "twice",
        "question_content": "Read a number, write its double.",
        "platform": "atcoder",
        "question_id": "abc_a",
        "contest_id": "abc",
        "contest_date": "2025-01-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": TESTS,
        "private_test_cases": TESTS,
        "metadata": "{}",
    },
}

RUNS_CODE = [
    pytest.mark.bubblewrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap"),
]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=RUNS_CODE if SUITES[name].family == "code" else []) for name in ROWS],
)
async def test_a_row_of_the_hubs_form_is_played(name: str, tmp_path: Path) -> None:
    suite = SUITES[name]
    file, _, split = suite.rows["eval"].file.partition("@")
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(json.dumps(ROWS[name] | ({"split": split} if split else {})) + "\n")
    report = await check_suite(suite, data=tmp_path)
    assert (report.tasks, report.faults) == (1, ())
    assert ("gold" in {one.rule for one in report.findings if one.status == "ok"}) is not bool(
        suite.unchecked
    )
