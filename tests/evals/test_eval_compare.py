"""Two evaluations on the same tasks: differences by hand, what was spent, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from eval_samples import plan_of, planned, sample_of, write_evaluation
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.core.errors import DataError
from agentrl.evals.compare import compare_evaluations
from agentrl.evals.power import tasks_needed

runner = CliRunner()


def evaluation(folder: Path, scores: dict[str, list[float]], *, policy="p", suite=None, **sample):
    samples = [
        sample_of(task, n, correct=score, **sample)
        for task, several in scores.items()
        for n, score in enumerate(several)
    ]
    most = max(map(len, scores.values()))
    plan = plan_of(suite or planned(samples=most), policy=policy)
    return write_evaluation(folder, plan, samples)


@pytest.fixture
def pair(tmp_path):
    """Ten tasks: the second policy wins three, loses one; one task of each is its own."""
    a = {f"t{i}": [float(i < 4)] for i in range(10)} | {"only_a": [1.0]}
    b = {f"t{i}": [float(i in (1, 2, 3, 5, 6, 7))] for i in range(10)} | {"only_b": [0.0]}
    return (
        evaluation(tmp_path / "a", a, policy="old", generated_tokens=10),
        evaluation(tmp_path / "b", b, policy="new", generated_tokens=20),
    )


def test_two_evaluations_by_hand(pair) -> None:
    found = compare_evaluations(pair)
    assert list(found.policies.values()) == ["old", "new"]
    (suite,) = found.suites
    assert (suite.tasks, suite.only_first, suite.only_other) == (10, 1, 1)
    (one,) = suite.differences
    assert (one.score, one.first.value, one.other.value) == ("correct", 0.4, 0.6)
    assert one.difference.value == pytest.approx(0.2)
    # Bonett and Price: (3 + 1) / 12 won, (1 + 1) / 12 lost.
    half = 1.959963984540054 * math.sqrt((6 / 12 - (2 / 12) ** 2) / 12)
    assert (one.difference.low, one.difference.high) == pytest.approx((1 / 6 - half, 1 / 6 + half))
    assert one.p == one.p_corrected == pytest.approx(2 * (1 + 4) / 16)  # 3 of 4, or better
    deviation = math.sqrt(((0.8**2) * 3 + (1.2**2) + 6 * 0.2**2) / 9)
    assert one.tasks_needed == tasks_needed(0.2, deviation=deviation)
    spent = {one.amount: one for one in suite.spending}
    assert (spent["generated_tokens"].first, spent["generated_tokens"].other) == (10, 20)
    assert spent["generated_tokens"].ratio.value == 2.0
    assert "env_seconds" not in spent  # none was spent on either side


def test_samples_of_a_task_are_averaged_first_and_lost_ones_are_left_out(tmp_path) -> None:
    a = evaluation(tmp_path / "a", {"t": [1.0, 0.0, 0.0, 0.0], "u": [1.0] * 4, "v": [0.0] * 4})
    samples = [sample_of("t", n) for n in range(2)] + [sample_of("u", 0)]
    lost = [sample_of("t", 2, failure="environment"), sample_of("v", 0, failure="policy_server")]
    b = write_evaluation(tmp_path / "b", plan_of(planned(samples=3)), [*samples, *lost])
    (suite,) = compare_evaluations([a, b]).suites
    assert (suite.tasks, suite.only_first, suite.failures_other) == (2, 1, 2)
    assert suite.differences[0].difference.value == pytest.approx((0.75 + 0.0) / 2)
    assert "samples per task differ (4 and 3)" in suite.warnings[0]


def test_equal_evaluations_differ_by_nothing_and_need_no_number_of_tasks(tmp_path) -> None:
    scores = {f"t{i}": [float(i % 2), 1.0] for i in range(6)}
    a, b = (evaluation(tmp_path / name, scores) for name in "ab")
    one = compare_evaluations([a, b]).suites[0].differences[0]
    assert one.difference.value == 0.0 and one.p == 1.0 and one.tasks_needed is None
    assert one.difference.low < 0.0 < one.difference.high  # six tasks prove no equality


def test_several_comparisons_are_corrected_together(tmp_path, pair) -> None:
    found = compare_evaluations([*pair, pair[1]])
    assert [one.differences[0].p for one in found.suites] == pytest.approx([0.625, 0.625])
    assert [one.differences[0].p_corrected for one in found.suites] == [1.0, 1.0]


def test_another_version_is_refused_and_other_arguments_are_told(tmp_path) -> None:
    scores = {"t": [1.0], "u": [0.0]}
    a = evaluation(tmp_path / "a", scores)
    newer = planned().model_copy(update={"version": 2})
    plan = plan_of(newer)
    samples = [sample_of("t", suite="toy@2")]
    b = write_evaluation(tmp_path / "b", plan, samples)
    with pytest.raises(DataError, match=r"'toy' cannot be compared: version 1 in .*, 2 in "):
        compare_evaluations([a, b])
    c = evaluation(tmp_path / "c", scores, suite=planned(args={"rows": "x"}, max_turns=3))
    told = compare_evaluations([a, c]).suites[0].warnings
    assert len(told) == 2 and told[0].startswith("args differs: {} in ")


def test_what_cannot_be_compared_is_said(tmp_path, pair) -> None:
    other = write_evaluation(tmp_path / "o", plan_of(planned("else")), [])
    with pytest.raises(DataError, match="no suite in common"):
        compare_evaluations([pair[0], other])
    with pytest.raises(DataError, match="needs two evaluations"):
        compare_evaluations(pair[:1])
    with pytest.raises(DataError, match="no sample has the score f1"):
        compare_evaluations(pair, scores=["f1"])
    both = write_evaluation(
        tmp_path / "both", plan_of(planned(), planned("else")), [sample_of("t0")]
    )
    found = compare_evaluations([pair[0], both])
    assert found.missing == (f"{pair[0]} has no suite else",)
    assert found.suites[0].differences[0].p is None  # one task in common


def test_the_command_shows_tables_and_json(pair) -> None:
    a, b = map(str, pair)
    shown = runner.invoke(app, ["compare", a, b])
    assert shown.exit_code == 0, shown.output
    assert "toy@1" in shown.output and "40.0 %" in shown.output and "+20.0" in shown.output
    assert "10 tasks in common, 1 only in" in shown.output and "2.00" in shown.output
    told = json.loads(runner.invoke(app, ["compare", a, b, "--json"]).output)
    swapped = json.loads(runner.invoke(app, ["compare", a, "--json", "--against", b]).output)
    difference = told["suites"][0]["differences"][0]["difference"]["value"]
    assert swapped["suites"][0]["differences"][0]["difference"]["value"] == -difference


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--agianst", "x"], "no such option: --agianst"),
        (["--against"], "folders on both sides"),
        (["no/such/folder"], "holds neither an evaluation"),
    ],
)
def test_mistakes_on_the_command_line_are_told(pair, arguments, said) -> None:
    result = runner.invoke(app, ["compare", str(pair[0]), *arguments])
    assert result.exit_code == 2 and said in result.stderr
