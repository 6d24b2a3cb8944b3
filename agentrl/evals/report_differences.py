"""What a report says about differences: each evaluation against the first, paired by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from agentrl.core.errors import DataError
from agentrl.evals.compare import ScoreDifference, SuiteComparison, compare_evaluations
from agentrl.evals.report_numbers import is_share
from agentrl.evals.results import Estimate

_SURE = 0.05


class Difference(NamedTuple):
    """One score of two evaluations on the tasks that both scored: the second minus the first."""

    title: str
    estimate: str
    verdict: str


class Differences(NamedTuple):
    """The differences by suite, warnings by suite, and why there are none where that is so."""

    by_suite: Mapping[str, Sequence[Difference]]
    warnings: Mapping[str, Sequence[str]]
    refused: str


def differences(letters: Mapping[str, str]) -> Differences:
    """Every evaluation against the first; `letters` names the folders, in order.

    Evaluations that cannot be compared (another version of a suite, another score, nothing in
    common) have no differences, and the report says why.
    """
    if len(letters) < 2:
        return Differences({}, {}, "")
    try:
        found = compare_evaluations([Path(folder) for folder in letters])
    except DataError as error:
        return Differences({}, {}, str(error))
    by_suite: dict[str, list[Difference]] = {}
    warnings: dict[str, list[str]] = {}
    for suite in found.suites:
        pair = (letters[suite.first], letters[suite.other])
        by_suite.setdefault(suite.suite, []).extend(
            _difference(one, suite, pair) for one in suite.differences
        )
        warnings.setdefault(suite.suite, []).extend(_named(one, letters) for one in suite.warnings)
    return Differences(by_suite, warnings, "")


def _named(warning: str, letters: Mapping[str, str]) -> str:
    """`warning` with letters in place of folders, the longest first: one may begin another."""
    for folder in sorted(letters, key=len, reverse=True):
        warning = warning.replace(f" in {folder}", f" in {letters[folder]}")
    return warning


def _difference(one: ScoreDifference, suite: SuiteComparison, pair: tuple[str, str]) -> Difference:
    first, other = pair
    share = is_share(one.score, one.first, one.other)
    tasks = f"{one.difference.tasks:,} tasks in common"
    apart = suite.only_first + suite.only_other
    if apart:
        tasks += f" ({apart:,} that one of them lacks are left out)"
    return Difference(
        title=f"{other} minus {first}, {one.score}, on {tasks}",
        estimate=_signed(one.difference, share=share),
        verdict=" ".join(_verdict(one, pair, share=share)),
    )


def _verdict(one: ScoreDifference, pair: tuple[str, str], *, share: bool) -> list[str]:
    first, other = pair
    low, high = one.difference.low, one.difference.high
    said = []
    if low is None or high is None:
        said.append("Too few tasks to say how sure this is.")
    elif (low > 0 or high < 0) and (one.p is None or one.p < _SURE):
        said.append(f"{other if low > 0 else first} is higher.")
    else:
        said.append("These tasks do not show which is higher.")
        if one.detectable is not None:
            size = f"{100 * one.detectable:.1f} points" if share else f"{one.detectable:.3g}"
            said.append(f"They would show a difference of {size} with 80 % power.")
        if one.tasks_needed is not None:
            said.append(f"One of this size would need {one.tasks_needed:,} tasks.")
    if one.p is not None:
        corrected = one.p_corrected
        many = corrected is not None and corrected != one.p
        said.append(
            f"p = {one.p:.3g}" + (f", {corrected:.3g} for all comparisons." if many else ".")
        )
    return said


def _signed(difference: Estimate, *, share: bool) -> str:
    """`+4.2 points [1.1, 7.3]`, or plain numbers where the score is no share."""
    if difference.value is None:
        return "unknown"
    factor, digits, unit = (100.0, 1, " points") if share else (1.0, 3, "")
    text = f"{factor * difference.value:+.{digits}f}{unit}"
    if difference.low is None or difference.high is None:
        return text
    bounds = (f"{factor * bound:+.{digits}f}" for bound in (difference.low, difference.high))
    return f"{text} [{', '.join(bounds)}]"
