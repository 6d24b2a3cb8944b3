"""From the samples of an evaluation to its results: every number with its interval and its n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import fsum, isfinite
from typing import Final, NamedTuple

import numpy as np

from agentrl.core.errors import DataError, nearest
from agentrl.core.try_again import plain_answer
from agentrl.evals.attempts import (
    majority_at_k,
    pass_all_k,
    pass_at_k,
    unique_ratio,
)
from agentrl.evals.plan import EvalPlan, PlannedSuite, Price
from agentrl.evals.results import Amount, Estimate, Provenance, Results, SuiteResult
from agentrl.evals.samples import Key, Sample
from agentrl.evals.statistics import Interval, Values, mean_interval, task_means

AMOUNTS: Final = (
    *("turns", "tool_calls", "malformed_calls", "retries", "prompt_tokens", "generated_tokens"),
    *("generate_seconds", "env_seconds"),
)
"""Quantities of a sample that results sum up."""

_REACHED = 1.0 - 1e-9


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sample's numbers need of it: all but its text and its tree.

    `answers` are those given, without case and white space; `attempt` is the number of answers up
    to the one that solved the task, or None. `extracted`: some answer is not the whole action, so
    the environment knows what an answer is.
    """

    task: str
    number: int
    failure: str
    stop_reason: str
    scores: Mapping[str, float]
    answers: tuple[str, ...]
    last_answer: str | None
    extracted: bool
    solved_turn: int | None
    attempt: int | None
    amounts: tuple[float, ...]


class Tasks(NamedTuple):
    """The scored outcomes of each task, and how many samples each was to have."""

    scored: Mapping[str, Sequence[Outcome]]
    samples: int

    def each(self, of: Callable[[Outcome], float | None]) -> list[list[float]]:
        """A number of every sample that has it, by task; tasks without any are left out."""
        found = ([of(one) for one in several] for several in self.scored.values())
        known = [[one for one in several if one is not None] for several in found]
        return [several for several in known if several]


def outcome_of(sample: Sample) -> Outcome:
    """`sample` without what weighs."""
    texts = [turn.action.strip() for turn in sample.texts]
    extracted = any(
        answer is None or answer.strip() != text
        for answer, text in zip(sample.answers, texts, strict=False)
        if text
    )
    attempt, solved_turn = None, _solved_turn(sample)
    if solved_turn is not None:
        given = sample.answers[: solved_turn + 1]
        attempt = sum(answer is not None for answer in given) or None
    answer = sample.answer
    return Outcome(
        task=sample.key.task_id,
        number=sample.key.number,
        failure=sample.failure,
        stop_reason=str(sample.stop_reason),
        scores={} if sample.failure else dict(sample.scores),
        answers=tuple(plain_answer(one) for one in sample.answers if one is not None),
        last_answer=None if answer is None else plain_answer(answer),
        extracted=extracted,
        solved_turn=solved_turn,
        attempt=attempt,
        amounts=tuple(float(getattr(sample, name)) for name in AMOUNTS),
    )


def _solved_turn(sample: Sample) -> int | None:
    """The turn that solved the task, also where the score of a late success is reduced.

    An episode that may answer again (`try_again`) ends with the answer that solves it, and says so
    in its metrics `attempts` and `solved`.
    """
    scores = sample.scores
    if sample.solved_turn is None and "attempts" in scores and scores.get("solved", 0) >= _REACHED:
        return sample.turns - 1
    return sample.solved_turn


def summarise(
    plan: EvalPlan,
    samples: Iterable[Sample],
    provenance: Provenance,
    *,
    titles: Mapping[str, str] | None = None,
    tasks: Mapping[str, int] | None = None,
) -> Results:
    """What the samples of an evaluation amount to.

    Of several lines of one sample the last counts, in scores; what all of them spent counts, in
    totals and cost. Samples with a failure are in no estimate. `titles` and `tasks` (how many
    tasks a suite turned out to have) are by tag; without `tasks` it is the plan's number, or else
    that of the tasks seen.

    Raises:
        DataError: a sample of a suite that the plan does not name, or a suite whose samples do not
            have the score that decides.
    """
    last: dict[str, dict[Key, Outcome]] = {suite.tag: {} for suite in plan.suites}
    spent = {suite.tag: np.zeros(len(AMOUNTS)) for suite in plan.suites}
    for sample in samples:
        tag = sample.key.suite
        if tag not in last:
            raise DataError(
                f"the log has a sample of suite {tag!r}, which the plan does not name."
                f"{nearest(tag, last)} Planned: {', '.join(last)}."
            )
        last[tag][sample.key] = outcome = outcome_of(sample)
        spent[tag] += outcome.amounts
    return Results(
        plan=plan,
        suites=tuple(
            suite_result(
                suite,
                list(last[suite.tag].values()),
                spent[suite.tag].tolist(),
                title=(titles or {}).get(suite.tag, ""),
                tasks=(tasks or {}).get(suite.tag, suite.tasks),
                price=plan.price,
            )
            for suite in plan.suites
        ),
        provenance=provenance,
    )


def suite_result(
    suite: PlannedSuite,
    outcomes: Sequence[Outcome],
    spent: Sequence[float],
    *,
    title: str = "",
    tasks: int | None = None,
    price: Price | None = None,
) -> SuiteResult:
    """One suite's part; `spent` are the totals of `AMOUNTS` over all lines of its samples."""
    planned = [one for one in outcomes if one.number < suite.samples]
    scored = [one for one in planned if not one.failure]
    if scored and not any(suite.score in one.scores for one in scored):
        known = sorted({name for one in scored for name in one.scores})
        raise DataError(
            f"suite {suite.tag!r}: no sample has the score {suite.score!r}."
            f"{nearest(suite.score, known)} Known: {', '.join(known)}."
        )
    count = tasks if tasks is not None else len({one.task for one in planned})
    grouped = Tasks(by_task(scored), suite.samples)
    return SuiteResult(
        suite=suite.tag,
        title=title,
        score=suite.score,
        tasks=count,
        samples_per_task=suite.samples,
        planned=count * suite.samples,
        scored=len(scored),
        missing=max(0, count * suite.samples - len(planned)),
        failures=dict(Counter(one.failure for one in planned if one.failure)),
        if_failures_were_wrong=_with_failures_as_0(planned, suite.score),
        unplanned=len(outcomes) - len(planned),
        stop_reasons=dict(Counter(one.stop_reason for one in planned)),
        estimates=_estimates(suite, grouped),
        amounts=_amounts(scored, spent),
        cost=None if price is None else _cost(spent, price),
    )


def estimate(interval: Interval) -> Estimate:
    """`interval` as results write it: null for what there is not."""
    value, low, high, error = (one if isfinite(one) else None for one in interval[:4])
    return Estimate(
        value=value,
        error=error,
        low=low,
        high=high,
        tasks=interval.tasks,
        method=interval.method,
    )


def by_task(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """`outcomes` by task, both in order, so that nothing depends on what finished first."""
    found: dict[str, list[Outcome]] = {}
    for one in sorted(outcomes, key=lambda one: (one.task, one.number)):
        found.setdefault(one.task, []).append(one)
    return found


def score_of(outcome: Outcome, name: str) -> float | None:
    """One score; None where the sample has none, or no finite one."""
    value = outcome.scores.get(name)
    return value if value is not None and isfinite(value) else None


def _with_failures_as_0(planned: Sequence[Outcome], score: str) -> float | None:
    means = [
        fsum(score_of(one, score) or 0.0 for one in several) / len(several)
        for several in by_task(planned).values()
    ]
    return fsum(means) / len(means) if means else None


# -- estimates ------------------------------------------------------------------------------------


def _estimates(suite: PlannedSuite, tasks: Tasks) -> dict[str, Estimate]:
    """All estimates, the score that decides first; none without a task behind it."""
    names = {name for several in tasks.scored.values() for one in several for name in one.scores}
    first = [name for name in dict.fromkeys((suite.score, *suite.also)) if name in names]
    found = {
        name: mean_interval(task_means(tasks.each(partial(score_of, name=name))))
        for name in [*first, *sorted(names.difference(first))]
    }
    found |= _of_several_samples(suite.score, tasks)
    found |= _by_turn(tasks)
    found |= _of_answers(suite.score, tasks)
    return {name: estimate(one) for name, one in found.items() if one.tasks}


def _of_several_samples(score: str, tasks: Tasks) -> dict[str, Interval]:
    """avg@n, pass@k and pass^k; of the tasks that have k scored samples."""
    each = tasks.each(lambda one: score_of(one, score))
    if tasks.samples < 2 or not each:
        return {}
    found = {f"avg@{tasks.samples}": mean_interval(task_means(each))}
    counts = [len(several) for several in each]
    right = [sum(one >= _REACHED for one in several) for several in each]
    for name, at_k in (("pass@", pass_at_k), ("pass^", pass_all_k)):
        for k in _marks(tasks.samples, all_up_to=1):
            pairs = [(n, c) for n, c in zip(counts, right, strict=True) if n >= k]
            if pairs and (k > 1 or at_k is pass_at_k):
                of_tasks = at_k([n for n, _ in pairs], [c for _, c in pairs], k)
                found[f"{name}{k}"] = mean_interval(of_tasks)
    return found


def _by_turn(tasks: Tasks) -> dict[str, Interval]:
    """The share of samples whose score had reached 1 within so many turns, and answers."""
    everything = [one for several in tasks.scored.values() for one in several]
    longest = max((int(one.amounts[0]) for one in everything), default=0)
    found = {}
    if longest > 1:
        for turn in _marks(longest, all_up_to=8):
            solved = tasks.each(partial(_solved_within, turns=turn))
            found[f"solved_by_turn@{turn}"] = mean_interval(task_means(solved))
    most = max((len(one.answers) for one in everything), default=0)
    if most > 1 and any(one.extracted or "attempts" in one.scores for one in everything):
        for count in _marks(most, all_up_to=8):
            solved = tasks.each(partial(_answered_within, answers=count))
            found[f"succ@{count}"] = mean_interval(task_means(solved))
        repeated = tasks.each(
            lambda one: unique_ratio(one.answers) if len(one.answers) > 1 else None
        )
        found["unique_answer_ratio"] = mean_interval(task_means(repeated))
    return found


def _solved_within(outcome: Outcome, *, turns: int) -> float:
    return float(outcome.solved_turn is not None and outcome.solved_turn < turns)


def _answered_within(outcome: Outcome, *, answers: int) -> float:
    return float(outcome.attempt is not None and outcome.attempt <= answers)


def _of_answers(score: str, tasks: Tasks) -> dict[str, Interval]:
    """majority@n and the ratio of different answers among samples, where samples have answers.

    They have where the environment finds answers in actions, or two samples of a task agree.
    """
    several = [
        [(one.last_answer, score_of(one, score) or 0.0) for one in samples]
        for samples in tasks.scored.values()
    ]
    answers = [[answer for answer, _ in samples if answer is not None] for samples in several]
    extracted = any(one.extracted for samples in tasks.scored.values() for one in samples)
    if tasks.samples < 2 or not any(
        len(given) > 1 and (extracted or len(set(given)) < len(given)) for given in answers
    ):
        return {}
    n = tasks.samples
    whole = [samples for samples in several if len(samples) >= n]
    voted = [majority_at_k([a for a, _ in one], [s for _, s in one], n) for one in whole]
    ratios: Values = [len(set(given)) / len(given) for given in answers if len(given) > 1]
    return {
        f"majority@{n}": mean_interval(voted),
        "unique_answer_ratio_of_samples": mean_interval(ratios),
    }


def _marks(most: int, *, all_up_to: int) -> list[int]:
    """Every number up to `all_up_to`, then powers of two, and `most`."""
    powers = (2**power for power in range(most.bit_length()))
    return sorted({one for one in (*range(1, all_up_to + 1), *powers, most) if one <= most})


# -- amounts --------------------------------------------------------------------------------------


def _amounts(scored: Sequence[Outcome], spent: Sequence[float]) -> dict[str, Amount]:
    table = np.asarray([one.amounts for one in scored], np.float64).reshape(-1, len(AMOUNTS))
    return {
        name: Amount(
            total=total,
            mean=float(column.mean()) if len(column) else None,
            median=float(np.median(column)) if len(column) else None,
            p95=float(np.quantile(column, 0.95)) if len(column) else None,
        )
        for name, total, column in zip(AMOUNTS, spent, table.T, strict=True)
    }


def _cost(spent: Sequence[float], price: Price) -> float:
    total = dict(zip(AMOUNTS, spent, strict=True))
    prompt, generated = total["prompt_tokens"], total["generated_tokens"]
    return (prompt * price.prompt + generated * price.generated) / 1e6
