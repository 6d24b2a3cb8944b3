"""What judges' verdicts on short answers come to: SimpleQA's three grades and their summary."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from agentrl.core.errors import DataError

Grade: TypeAlias = Literal["correct", "incorrect", "not_attempted"]
GRADES: Final[tuple[Grade, ...]] = get_args(Grade)


class GradeSummary(NamedTuple):
    """Shares of `graded` answers; NaN where there is nothing to take a share of.

    `correct` is the accuracy, `correct_given_attempted` the accuracy among the answers that were
    attempted, and `f` the harmonic mean of both (SimpleQA, arXiv:2411.04368).
    """

    graded: int
    correct: float
    incorrect: float
    not_attempted: float
    correct_given_attempted: float
    f: float


def summarise_grades(grades: Iterable[str]) -> GradeSummary:
    """The summary of `grades`; what could not be graded is to be left out, and told beside it.

    The published code differs where nothing was attempted: there its accuracy among the attempted
    is 0, which this leaves undefined; `f` is 0 in both, since nothing was correct. A policy that
    answers only what it is sure of wins on `correct_given_attempted` alone: report it with the
    share that was attempted.

    Raises:
        DataError: a grade that is none of the three.
    """
    counts: dict[str, int] = dict.fromkeys(GRADES, 0)
    for grade in grades:
        if grade not in counts:
            raise DataError(f"no grade {grade!r}: there are {', '.join(GRADES)}")
        counts[grade] += 1
    graded = sum(counts.values())
    right, wrong = counts["correct"], counts["incorrect"]
    attempted = right + wrong
    if not graded:
        return GradeSummary(0, *[math.nan] * 5)
    # 2 / (graded / right + attempted / right), without dividing by a count of 0.
    f = 2 * right / (graded + attempted)
    return GradeSummary(
        graded,
        right / graded,
        wrong / graded,
        counts["not_attempted"] / graded,
        right / attempted if attempted else math.nan,
        f,
    )
