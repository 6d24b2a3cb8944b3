"""Where a final answer stands in a text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.graders.math_extract import extract_answer

EVERY = ("boxed", "hash", "tag", "phrase", "free")


@pytest.mark.parametrize(
    ("text", "marker", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}.", "boxed", r"\frac{1}{2}"),
        (r"\boxed{5}, no: \boxed{6}", "boxed", "6"),
        (r"\boxed{5} and \boxed{7", "boxed", "5"),
        (r"\boxed{7", "boxed", None),
        (r"\boxed{\{1,2\}}", "boxed", r"\{1,2\}"),
        (r"\boxed{\left\{x : x > \frac12\right\}}", "boxed", r"\left\{x : x > \frac12\right\}"),
        (r"a stray } and { before \boxed{3}", "boxed", "3"),
        (r"\fbox{4}", "boxed", "4"),
        (r"\boxed 5", "boxed", None),
        (r"\boxed{}", "boxed", None),
        ("x\n#### 1,080", "hash", "1,080"),
        ("#### 5\nthen\n#### 6 \n", "hash", "6"),
        ("####\n5", "hash", None),
        ("<answer> 42 </answer>", "tag", "42"),
        ("<answer>1</answer> <answer>2</answer>", "tag", "2"),
        (r"<answer> \[ \boxed{3} \] </answer>", "tag", "3"),
        ("<answer>4", "tag", None),
        ("<answer>1 <answer>2</answer>", "tag", "2"),
        ("The answer is 3.5. Done.", "phrase", "3.5"),
        ("the final answer is: **42**", "phrase", "42"),
        ("The answer is 12 because 3*4 = 12", "phrase", "12"),
        ("the answer is $x=3$ because", "phrase", "$x=3$"),
        ("The answers are $1$ and $2$.", "phrase", "$1$ and $2$"),
        ("Answer: (B) 12", "phrase", "(B) 12"),
        ("we get 12 apples.", "free", "12"),
        (r"Therefore $x = 5.$", "free", "x = 5"),
        ("no number here", "free", None),
    ],
)  # fmt: skip
def test_an_answer_is_found_where_its_marker_says(text, marker, answer) -> None:
    assert extract_answer(text, (marker,)) == answer


def test_only_the_accepted_markers_count_in_their_order() -> None:
    text = "the answer is 1\n#### 2\n<answer>3</answer> \\boxed{4}"
    assert extract_answer(text) == "4"
    assert extract_answer(text, ("hash", "boxed")) == "2"
    assert extract_answer(text, ("tag",)) == "3"
    assert extract_answer("#### 2", ("boxed",)) is None


def test_nothing_in_a_thought_counts() -> None:
    assert extract_answer(r"<think>\boxed{1}</think> \boxed{2}", EVERY) == "2"
    assert extract_answer(r"<think>\boxed{1}</think> so", ("boxed",)) is None
    assert extract_answer(r"\boxed{1} <think> wait", ("boxed",)) is None
    assert extract_answer(r"opened by the template \boxed{1} </think> 5", EVERY) == "5"


@settings(deadline=None)
@given(st.text(st.sampled_from(r"\boxed{}#<answer>/ is12$.,because ")))
def test_no_text_makes_it_fail(text) -> None:
    found = extract_answer(text, EVERY)
    assert found is None or found == found.strip() != ""


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "{", "<answer>", "$", "answer is ", "####", "1,", "because ", " ", "a$"]
)
def test_long_text_takes_linear_time(piece) -> None:
    began = time.process_time()
    extract_answer("the answer is " + piece * (100_000 // len(piece)), EVERY)
    assert time.process_time() - began < 2.0
