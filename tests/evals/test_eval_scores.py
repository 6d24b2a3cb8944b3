"""From samples to results: what is counted, what is not, and each number by hand."""

from __future__ import annotations

import json
import math
import random

import pytest
from eval_samples import PROVENANCE, plan_of, planned, sample_of

from agentrl.core.errors import DataError
from agentrl.evals.plan import Price
from agentrl.evals.results import Results, SuiteResult
from agentrl.evals.scores import summarise


def result(samples, suite=None, *, price=None, tasks=None) -> SuiteResult:
    found = summarise(
        plan_of(suite or planned(), price=price),
        samples,
        PROVENANCE,
        titles={"toy@1": "A toy"},
        tasks=None if tasks is None else {"toy@1": tasks},
    )
    (only,) = found.suites
    return only


def values(found: SuiteResult) -> dict[str, float | None]:
    return {name: one.value for name, one in found.estimates.items()}


def test_one_sample_per_task_is_an_accuracy_with_wilsons_interval() -> None:
    found = result([sample_of(str(i), correct=float(i < 8)) for i in range(10)])
    assert (found.title, found.score, found.tasks, found.planned) == ("A toy", "correct", 10, 10)
    assert (found.scored, found.missing, found.failures, found.unplanned) == (10, 0, {}, 0)
    accuracy = found.estimates["correct"]
    assert next(iter(found.estimates)) == "correct"
    assert (accuracy.value, accuracy.tasks, accuracy.method) == (pytest.approx(0.8), 10, "wilson")
    assert (accuracy.low, accuracy.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert not any("@" in name for name in found.estimates)  # one sample allows no other number
    assert found.if_failures_were_wrong == pytest.approx(0.8)


def test_a_failure_is_in_no_estimate_and_in_every_count() -> None:
    samples = [sample_of("a"), sample_of("b", correct=0.0), sample_of("c", failure="environment")]
    found = result([*samples, sample_of("d", failure="policy_server")], planned(tasks=6))
    assert (found.planned, found.scored, found.missing) == (6, 2, 2)
    assert found.failures == {"environment": 1, "policy_server": 1}
    assert found.estimates["correct"].value == 0.5 and found.estimates["correct"].tasks == 2
    assert found.if_failures_were_wrong == 0.25
    assert found.stop_reasons == {"terminated": 2, "env_error": 2}
    assert found.amounts["generated_tokens"].total == 40  # spent on the lost ones, too
    assert found.amounts["generated_tokens"].mean == 10


def test_tasks_weigh_the_same_however_many_of_their_samples_were_lost() -> None:
    lost = [sample_of("a", n, failure="environment") for n in (1, 2, 3)]
    others = [sample_of("b", n, correct=0.0) for n in range(4)]
    found = result([sample_of("a", 0), *lost, *others], planned(samples=4))
    assert found.estimates["correct"].value == found.estimates["avg@4"].value == 0.5
    assert found.estimates["pass@1"].tasks == 2
    assert found.estimates["pass@4"].tasks == 1  # only one task has four scored samples
    assert found.if_failures_were_wrong == pytest.approx(0.125)


def test_several_samples_give_pass_at_k_avg_and_majority_by_hand() -> None:
    def task(name, right):
        return [
            sample_of(name, n, correct=float(n < right), answers=["4" if n < right else f"x{n}"])
            for n in range(4)
        ]

    found = result([*task("a", 2), *task("b", 0)], planned(samples=4))
    assert values(found) == pytest.approx(
        {
            "correct": 0.25,
            "reward": 0.25,
            "avg@4": 0.25,
            "pass@1": 0.25,
            "pass@2": 5 / 12,
            "pass@4": 0.5,
            "pass^2": 1 / 12,
            "pass^4": 0.0,
            "majority@4": 0.5,  # 4, 4, x2, x3: right; four different wrong ones
            "unique_answer_ratio_of_samples": (3 / 4 + 1) / 2,
        }
    )
    assert {one.tasks for one in found.estimates.values()} == {2}


def test_actions_that_never_agree_and_hold_no_answer_get_no_majority() -> None:
    samples = [
        sample_of("a", n, answers=[f"long text {n}"], actions=[f"long text {n}"]) for n in range(3)
    ]
    found = result(samples, planned(samples=3))
    assert "pass@3" in found.estimates and "majority@3" not in found.estimates


def test_success_by_turn_and_by_answer_where_wrong_answers_may_be_mended() -> None:
    samples = [
        sample_of("a", answers=["1", "1", "2"], solved_turn=2),
        sample_of("b", answers=["5"], solved_turn=0),
        sample_of("c", answers=["7", None, "8"], solved_turn=2),  # a turn without an answer
        sample_of("d", answers=["1", "1", " 1"], correct=0.0),
    ]
    found = values(result(samples))
    assert [found[f"solved_by_turn@{k}"] for k in (1, 2, 3)] == [0.25, 0.25, 0.75]
    assert [found[f"succ@{k}"] for k in (1, 2, 3)] == [0.25, 0.5, 0.75]
    # a: 2 of 3, c: 2 of 2, d: 1 of 3; b answered once and could repeat nothing.
    assert found["unique_answer_ratio"] == pytest.approx((2 / 3 + 1 + 1 / 3) / 3)


def test_a_late_success_counts_by_its_answer_although_its_score_is_reduced() -> None:
    metrics = {"attempts": 2.0, "solved": 1.0}
    samples = [
        sample_of("a", answers=["1", "2"], correct=0.5, scores=metrics),
        sample_of("b", answers=["1", "1"], correct=0.0, scores=metrics | {"solved": 0.0}),
    ]
    found = values(result(samples))
    assert [found[f"succ@{k}"] for k in (1, 2)] == [0.0, 0.5]
    assert [found[f"solved_by_turn@{k}"] for k in (1, 2)] == [0.0, 0.5]
    assert (found["correct"], found["solved"]) == (0.25, 0.5)


def test_every_component_has_its_own_tasks_and_absent_is_not_0() -> None:
    samples = [
        sample_of("a", scores={"em": 1.0, "f1": 1.0}),
        sample_of("b", correct=0.0, scores={"em": 0.0, "f1": 0.5}),
        sample_of("c", correct=0.0, scores={"em": 0.0, "f1": math.nan}),
    ]
    found = result(samples, planned(also=("f1", "em")))
    assert list(found.estimates) == ["correct", "f1", "em", "reward"]
    assert (found.estimates["f1"].value, found.estimates["f1"].tasks) == (0.75, 2)
    assert found.estimates["em"].tasks == 3


def test_the_last_line_of_a_sample_counts_and_all_of_them_are_paid() -> None:
    lines = [sample_of("a", failure="policy_server"), sample_of("b"), sample_of("a")]
    found = result(lines, price=Price(prompt=1.0, generated=10.0))
    assert (found.scored, found.failures) == (2, {})
    assert found.amounts["prompt_tokens"].total == 300
    assert found.cost == pytest.approx((300 * 1.0 + 30 * 10.0) / 1e6)
    assert result(lines).cost is None


def test_the_order_of_samples_changes_nothing() -> None:
    rng = random.Random(0)
    samples = [
        sample_of(
            f"t{t}", n, correct=float(rng.random() < t / 20), answers=[str(rng.randint(0, 3))]
        )
        for t in range(20)
        for n in range(3)
    ]
    shuffled = rng.sample(samples, len(samples))
    assert result(samples, planned(samples=3)) == result(shuffled, planned(samples=3))


def test_one_task_has_no_interval_and_no_sample_has_no_estimate() -> None:
    one = result([sample_of("a")]).estimates["correct"]
    assert (one.value, one.low, one.high, one.error, one.method) == (1.0, None, None, None, "none")
    none = result([], planned(tasks=5))
    assert (none.planned, none.missing, none.scored, none.estimates) == (5, 5, 0, {})
    assert none.if_failures_were_wrong is None and none.amounts["turns"].mean is None


def test_the_number_of_tasks_is_what_the_suite_had_where_that_is_known() -> None:
    samples = [sample_of("a"), sample_of("b")]
    assert result(samples).planned == 2
    assert result(samples, planned(tasks=9)).missing == 7
    assert result(samples, planned(tasks=9), tasks=3).missing == 1


def test_samples_beyond_the_plan_count_in_nothing_but_are_shown() -> None:
    found = result([sample_of("a"), sample_of("a", 1, correct=0.0)])
    assert (found.scored, found.unplanned, found.estimates["correct"].value) == (1, 1, 1.0)


def test_a_suite_that_the_plan_does_not_name_is_an_error() -> None:
    with pytest.raises(DataError, match=r"'toj@1', which the plan does not name\. Did you mean"):
        result([sample_of("a", suite="toj@1")])


def test_a_score_that_no_sample_has_is_an_error_that_names_those_there_are() -> None:
    suite = planned().model_copy(update={"score": "corect"})
    with pytest.raises(DataError, match=r"no sample has the score 'corect'\. Did you mean"):
        result([sample_of("a")], suite)


def test_results_are_strict_json_and_are_read_back() -> None:
    samples = [sample_of("a"), sample_of("a", suite="other@1", correct=math.nan)]
    found = summarise(plan_of(planned(), planned("other")), samples, PROVENANCE)
    text = found.model_dump_json()
    assert "NaN" not in text and Results.model_validate_json(text) == found
    assert json.loads(text)["suites"][1]["estimates"] == {}
