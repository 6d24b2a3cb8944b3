"""Evaluations side by side: differences on the same tasks, their tests, and what was spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agentrl.core.errors import DataError
from agentrl.core.settings import Settings
from agentrl.evals.folder import EvalFolder
from agentrl.evals.plan import EvalPlan, PlannedSuite
from agentrl.evals.power import detectable_difference, tasks_needed
from agentrl.evals.results import Estimate
from agentrl.evals.samples import final_samples
from agentrl.evals.scores import AMOUNTS, Outcome, Tasks, by_task, estimate, outcome_of, score_of
from agentrl.evals.statistics import (
    Array,
    holm,
    mean_interval,
    paired_difference,
    ratio_of_means,
    sign_flip_p,
    task_means,
)

_MUST_AGREE = ("version", "env", "score")
_SHOULD_AGREE = ("args", "split", "temperature", "max_turns", "max_tokens_per_turn")
_COMPARED_AMOUNTS = (
    *("turns", "tool_calls", "prompt_tokens", "generated_tokens"),
    *("generate_seconds", "env_seconds"),
)


class ScoreDifference(Settings):
    """One score of two evaluations on the tasks that both have scored samples of.

    `difference` is `other` minus `first`. `p` is that of the sign-flip test of no difference,
    `p_corrected` (Holm) takes in every suite and evaluation of this comparison; it is there for
    the scores that decide. `tasks_needed` would see this difference with 80 % power at these
    numbers of samples, `detectable` is the difference that these tasks see with it.
    """

    score: str
    first: Estimate
    other: Estimate
    difference: Estimate
    p: float | None
    p_corrected: float | None = None
    tasks_needed: int | None
    detectable: float | None


class Spending(Settings):
    """What a sample costs on the tasks in common: means over tasks, and the second by the first."""

    amount: str
    first: float
    other: float
    ratio: Estimate


class SuiteComparison(Settings):
    """One suite of two evaluations. Tasks that were lost on one side are in `only_...`."""

    suite: str
    first: str
    other: str
    tasks: int
    only_first: int
    only_other: int
    samples_first: int
    samples_other: int
    failures_first: int
    failures_other: int
    differences: tuple[ScoreDifference, ...]
    spending: tuple[Spending, ...]
    warnings: tuple[str, ...] = ()


class EvalComparison(Settings):
    """Evaluations against the first of them: folder -> policy, suites in common, suites that miss.

    `missing` says which folder lacks which suite of another.
    """

    policies: dict[str, str]
    suites: tuple[SuiteComparison, ...]
    missing: tuple[str, ...] = ()


class _Side(NamedTuple):
    """One evaluation as it was played."""

    folder: str
    plan: EvalPlan
    outcomes: Mapping[str, Sequence[Outcome]]

    def scored(self, suite: PlannedSuite) -> Tasks:
        """Scored samples by task."""
        return Tasks(by_task([o for o in self.outcomes[suite.tag] if not o.failure]), suite.samples)

    def failures(self, suite: PlannedSuite) -> int:
        """Samples that were lost."""
        return sum(bool(one.failure) for one in self.outcomes[suite.tag])


def compare_evaluations(folders: Sequence[Path], *, scores: Sequence[str] = ()) -> EvalComparison:
    """Every evaluation in `folders` against the first, on the tasks that they have in common.

    Compared are the score that decides, the suite's others and `scores`.

    Raises:
        DataError: fewer than two folders, one that holds no evaluation, no suite in common, or a
            suite of another version, environment or deciding score.
    """
    if len(folders) < 2:
        raise DataError("a comparison needs two evaluations: `agentrl compare FIRST OTHER`")
    first, *others = [_read(folder) for folder in folders]
    found, missing = [], []
    for other in others:
        ours, theirs = _suites(first), _suites(other)
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            if name in ours and name in theirs:
                found.append(_compare(first, other, ours[name], theirs[name], scores))
            else:
                lacking = other if name in ours else first
                missing.append(f"{lacking.folder} has no suite {name}")
    if not found:
        raise DataError(
            "these evaluations have no suite in common: "
            + "; ".join(f"{one.folder}: {', '.join(_suites(one))}" for one in (first, *others))
        )
    return EvalComparison(
        policies={one.folder: one.plan.policy for one in (first, *others)},
        suites=tuple(_corrected(found)),
        missing=tuple(missing),
    )


def _read(folder: Path) -> _Side:
    files = EvalFolder(folder)
    plan = files.read_plan()
    outcomes: dict[str, list[Outcome]] = {suite.tag: [] for suite in plan.suites}
    limits = {suite.tag: suite.samples for suite in plan.suites}
    for sample in final_samples(files.samples):
        tag = sample.key.suite
        if tag in outcomes and sample.key.number < limits[tag]:
            outcomes[tag].append(outcome_of(sample))
    return _Side(str(folder), plan, outcomes)


def _suites(side: _Side) -> dict[str, PlannedSuite]:
    return {suite.name: suite for suite in side.plan.suites}


def _warnings(first: _Side, other: _Side, ours: PlannedSuite, theirs: PlannedSuite) -> list[str]:
    """What differs in how the two were played; raises where they cannot be compared."""
    for name in _MUST_AGREE:
        here, there = getattr(ours, name), getattr(theirs, name)
        if here != there:
            raise DataError(
                f"suite {ours.name!r} cannot be compared: {name} {here!r} in {first.folder}, "
                f"{there!r} in {other.folder}; evaluate both on one version"
            )
    return [
        f"{name} differs: {getattr(ours, name)!r} in {first.folder}, "
        f"{getattr(theirs, name)!r} in {other.folder}"
        for name in _SHOULD_AGREE
        if getattr(ours, name) != getattr(theirs, name)
    ]


def _compare(
    first: _Side,
    other: _Side,
    ours: PlannedSuite,
    theirs: PlannedSuite,
    scores: Sequence[str],
) -> SuiteComparison:
    warnings = _warnings(first, other, ours, theirs)
    one, two = first.scored(ours), other.scored(theirs)
    shared = sorted(one.scored.keys() & two.scored.keys())
    if one.samples != two.samples:
        warnings.append(
            f"samples per task differ ({one.samples} and {two.samples}): the interval holds, p is "
            "near, pass@k would not be"
        )
    lacking = [name for name in scores if not _has(one, two, name)]
    if lacking:
        raise DataError(f"suite {ours.tag!r}: no sample has the score {', '.join(lacking)}")
    named = dict.fromkeys((ours.score, *ours.also, *theirs.also, *scores))
    differences = [_difference(name, one, two, shared) for name in named]
    return SuiteComparison(
        suite=ours.tag,
        first=first.folder,
        other=other.folder,
        tasks=len(shared),
        only_first=len(one.scored) - len(shared),
        only_other=len(two.scored) - len(shared),
        samples_first=sum(map(len, one.scored.values())),
        samples_other=sum(map(len, two.scored.values())),
        failures_first=first.failures(ours),
        failures_other=other.failures(theirs),
        differences=tuple(found for found in differences if found is not None),
        spending=tuple(_spending(one, two, shared)),
        warnings=tuple(warnings),
    )


def _has(one: Tasks, two: Tasks, name: str) -> bool:
    return all(
        any(name in outcome.scores for several in side.scored.values() for outcome in several)
        for side in (one, two)
    )


def _difference(name: str, one: Tasks, two: Tasks, shared: Sequence[str]) -> ScoreDifference | None:
    """One score's difference; None where no task has it on both sides."""
    before, after = [], []
    for task in shared:
        pair = [[score_of(o, name) for o in side.scored[task]] for side in (one, two)]
        here, there = ([value for value in values if value is not None] for values in pair)
        if here and there:
            before.append(here)
            after.append(there)
    if not before:
        return None
    ours, theirs = task_means(before), task_means(after)
    difference = paired_difference(ours, theirs)
    deviation = difference.error * sqrt(len(ours))
    p = sign_flip_p(theirs - ours)
    seen = detectable_difference(len(ours), deviation=deviation) if deviation else float("nan")
    return ScoreDifference(
        score=name,
        first=estimate(mean_interval(ours)),
        other=estimate(mean_interval(theirs)),
        difference=estimate(difference),
        p=p if len(ours) > 1 else None,
        tasks_needed=tasks_needed(difference.value, deviation=deviation) if deviation else None,
        detectable=seen if np.isfinite(seen) else None,
    )


def _spending(one: Tasks, two: Tasks, shared: Sequence[str]) -> list[Spending]:
    columns = [AMOUNTS.index(name) for name in _COMPARED_AMOUNTS]
    before, after = (_amounts(side, shared)[:, columns] for side in (one, two))
    return [
        Spending(
            amount=name,
            first=float(ours.mean()),
            other=float(theirs.mean()),
            ratio=estimate(ratio_of_means(ours, theirs)),
        )
        for name, ours, theirs in zip(_COMPARED_AMOUNTS, before.T, after.T, strict=True)
        if len(shared) and (ours.any() or theirs.any())
    ]


def _amounts(side: Tasks, shared: Sequence[str]) -> Array:
    rows = [np.mean([one.amounts for one in side.scored[task]], axis=0) for task in shared]
    return np.asarray(rows, np.float64).reshape(-1, len(AMOUNTS))


def _corrected(suites: Sequence[SuiteComparison]) -> list[SuiteComparison]:
    """`suites` with the p values of their first scores corrected for being several."""
    tested = [
        index
        for index, one in enumerate(suites)
        if one.differences and one.differences[0].p is not None
    ]
    corrected = holm([suites[index].differences[0].p or 0.0 for index in tested])
    found = list(suites)
    for index, p in zip(tested, corrected, strict=True):
        decides, *rest = found[index].differences
        decides = decides.model_copy(update={"p_corrected": float(p)})
        found[index] = found[index].model_copy(update={"differences": (decides, *rest)})
    return found
