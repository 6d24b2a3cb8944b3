"""SimpleQA's summary by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl.core.errors import DataError
from agentrl.graders.verdicts import GRADES, GradeSummary, summarise_grades


def test_the_summary_by_hand() -> None:
    # 10 graded: 4 right, 2 wrong, 4 not attempted. 4/10, 4/6, and 2 * 0.4 * 0.667 / 1.067 = 0.5.
    grades = ["correct"] * 4 + ["incorrect"] * 2 + ["not_attempted"] * 4
    assert summarise_grades(grades) == pytest.approx(
        GradeSummary(10, 0.4, 0.2, 0.4, 2 / 3, 0.5), abs=1e-12
    )


def test_shares_of_nothing_are_undefined() -> None:
    nothing = summarise_grades([])
    assert nothing.graded == 0 and all(math.isnan(value) for value in nothing[1:])
    silent = summarise_grades(["not_attempted"] * 3)
    assert silent[:4] == (3, 0.0, 0.0, 1.0) and silent.f == 0.0
    assert math.isnan(silent.correct_given_attempted)


def test_another_grade_is_an_error() -> None:
    with pytest.raises(DataError, match="no grade 'ungraded'"):
        summarise_grades(["correct", "ungraded"])


@given(st.lists(st.sampled_from(GRADES), min_size=1))
def test_f_is_the_harmonic_mean_of_both_accuracies(grades) -> None:
    found = summarise_grades(grades)
    parts = (found.correct, found.correct_given_attempted)
    if "correct" in grades:
        assert found.f == pytest.approx(2 / sum(1 / part for part in parts))
    else:
        assert found.f == 0.0
    assert found.correct + found.incorrect + found.not_attempted == pytest.approx(1.0)
