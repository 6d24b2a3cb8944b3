"""Rows of the usual data sets become problems; what is wrong with a row is said with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentrl.core.errors import DataError
from agentrl.core.registry import make_env
from agentrl.envs.math.sources import read_problems

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def rows(folder: Path, *given: dict) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(path)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (
            {"question": "q", "answer": "2*3=<<2*3=6>>6\n#### 1,006"},
            {"text": "q", "answer": "1,006", "worked": "2*3=6"},
        ),
        (
            {"problem": "p", "solution": r"So \boxed{\frac12}.", "level": 3},
            {"text": "p", "answer": r"\frac12", "worked": r"So \boxed{\frac12}."},
        ),
        (
            {"problem": "p", "solution": "s", "answer": "5", "unique_id": "test/1.json"},
            {"id": "test/1.json", "answer": "5"},
        ),
        ({"Problem": "p", "Answer": 73, "ID": "2024-I-1"}, {"id": "2024-I-1", "answer": "73"}),
        ({"id": 4, "question": "p", "answer": 27.0}, {"id": "4", "answer": "27"}),
        ({"problem": "p", "answer": 0.1}, {"answer": "0.1"}),
        (
            {
                "id": 7, "question": "q", "context": "c", "solution": ["s"], "unit": "km",
                "final_answer": ["1,2"], "is_multiple_answer": True, "error": "1e-1",
            },
            {"text": "c\n\nq", "worked": "s", "several": True, "error": 0.1, "unit": "km"},
        ),
        (
            {"ID": "chal-1", "Body": "A cost 76", "Question": "Q?", "Equation": "( 76.0 - 25.0 )",
             "Answer": 51.0},
            {"text": "A cost 76, Q?", "answer": "51", "worked": "( 76.0 - 25.0 ) = 51",
             "code": "print(( 76.0 - 25.0 ))"},
        ),
    ],
)  # fmt: skip
def test_a_row_of_each_format_is_read(row, wanted, tmp_path) -> None:
    (problem,) = read_problems(rows(tmp_path, row), split="train")
    assert {key: getattr(problem, key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("row", "dataset", "said"),
    [
        ({"prompt": "p"}, "auto", r"rows.jsonl:1: keys prompt are of no known data set"),
        ({"question": "q", "answer": "6"}, "gsm8k", r"does not end in '#### <number>'"),
        ({"problem": "p", "solution": "no box"}, "auto", r"no \\boxed answer"),
        ({"problem": "p", "answer": None}, "auto", "'answer' must be a text or a number, got null"),
        ({"problem": "", "answer": "5"}, "auto", "'problem' is empty"),
        ({"question": "q", "final_answer": ["1", "2"]}, "auto", "must have one entry, got 2"),
        (
            {"question": "q", "final_answer": ["1"], "error": "x"},
            "auto",
            "'error' must be a number",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_its_place(row, dataset, said, tmp_path) -> None:
    with pytest.raises(DataError, match=said) as raised:
        read_problems(rows(tmp_path, row), dataset=dataset, split="train")
    assert "rows.jsonl:1" in str(raised.value)


def test_an_id_that_comes_twice_is_named_with_both_places(tmp_path) -> None:
    row = {"id": 1, "problem": "p", "answer": "5"}
    with pytest.raises(DataError, match=r"rows.jsonl:2: the id '1' is that of .*rows.jsonl:1"):
        read_problems(rows(tmp_path, row, row), split="train")


def test_a_split_without_a_file_is_empty_and_a_file_written_anew_is_read_anew(tmp_path) -> None:
    source = rows(tmp_path, {"problem": "p", "answer": "5"})
    env = make_env("math/problems", train=source)
    assert [task.id for task in env.tasks("train")] == ["train-0"]
    assert env.tasks("eval") == []
    rows(tmp_path, {"problem": "p", "answer": "5"}, {"problem": "q", "answer": "6"})
    assert len(env.tasks("train")) == 2


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the data sets are not in {DATA}")
@pytest.mark.parametrize(
    ("name", "count"),
    [("gsm8k", 857), ("olympiadbench_math_en", 405), ("svamp", 600)],
)
def test_real_data_sets_are_told_apart_by_their_keys(name, count) -> None:
    env = make_env("math/problems", eval=str(DATA / name / "test.jsonl"))
    assert len(env.tasks("eval")) == count
