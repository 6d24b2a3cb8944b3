"""Training runs by seed, at their ends and at equal budgets, on curves small enough to check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.core.errors import DataError
from agentrl.evals.runs import compare_runs, group_runs, read_run

runner = CliRunner()


def run_of(folder: Path, *, seed: int, curve, name="new", score="em", tokens=100) -> Path:
    """A run evaluated at 0, `tokens`, 2 x `tokens`, ..., with a tenth as many tool calls."""
    folder.mkdir(parents=True)
    recipe = f"name: {name}\nseed: {seed}\neval: {{score: {score}}}\n"
    (folder / "recipe.yaml").write_text(recipe)
    rows = []
    for i, value in enumerate(curve):
        row = {"iteration": i, f"eval/{score}_mean": value}
        if i:
            row |= {"budget/generated_tokens": i * tokens, "budget/tool_calls": i * tokens / 10}
        rows.append(row)
        rows.append({"iteration": i, "rollout/reward_mean": 0.5})  # no evaluation
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def groups(tmp_path):
    ours = [
        run_of(tmp_path / "new-0", seed=0, curve=[0.2, 0.6, 0.8]),
        run_of(tmp_path / "new-1", seed=1, curve=[0.2, 0.5, 0.6]),
    ]
    controls = [
        run_of(tmp_path / "old-1", seed=1, curve=[0.2, 0.5, 0.4], name="old", tokens=80),
        run_of(tmp_path / "old-0", seed=0, curve=[0.2, 0.3, 0.5], name="old", tokens=80),
    ]
    return ours, controls


def test_runs_are_compared_by_seed_at_equal_budgets(groups) -> None:
    found = compare_runs(groups)
    assert (found.score, found.control, [g.seeds for g in found.groups]) == (
        "em",
        "old",
        [(0, 1), (1, 0)],
    )
    marks = {mark.at: mark for mark in found.marks}
    # All reached 160 tokens: 1.6 evaluations of ours, 2 of theirs.
    at_160 = marks["160 generated tokens"]
    assert at_160.values["new"] == pytest.approx({0: 0.6 + 0.6 * 0.2, 1: 0.5 + 0.6 * 0.1})
    assert at_160.values["old"] == {1: 0.4, 0: 0.5}
    assert at_160.differences["new"].value == pytest.approx((0.22 + 0.16) / 2)
    assert at_160.p["new"] == 0.5  # two seeds, both up: two of four signs
    assert marks["16 tool calls"].differences == at_160.differences
    assert marks["40 generated tokens"].values["old"][0] == pytest.approx(0.25)
    assert marks["the end"].differences["new"].value == pytest.approx(0.25)
    best = marks["the best"]
    assert best.values["old"] == {1: 0.5, 0: 0.5}
    assert marks["the start"].differences["new"].method == "none"
    assert any("smallest p is 0.5" in one for one in found.warnings)


def test_the_interval_of_a_difference_is_students_over_seeds(groups) -> None:
    (end,) = (mark for mark in compare_runs(groups).marks if mark.at == "the end")
    difference = end.differences["new"]  # 0.3 and 0.2, one degree of freedom
    assert difference.low == pytest.approx(0.25 - 12.7062 * 0.05, abs=1e-4)


def test_seeds_that_are_not_in_common_are_told(tmp_path, groups) -> None:
    other = [run_of(tmp_path / "x-7", seed=7, curve=[0.2, 0.9, 0.9], name="x")]
    found = compare_runs([other, groups[1]])
    assert found.marks[0].p == {"x": None}
    assert "no seed in common" in found.warnings[0]
    more = [*groups[0], run_of(tmp_path / "new-2", seed=2, curve=[0.1, 0.1, 0.1])]
    assert "only the seeds 0, 1" in compare_runs([more, groups[1]]).warnings[0]


def test_runs_are_grouped_by_their_recipe(groups) -> None:
    mixed = [groups[0][0], groups[1][0], groups[0][1], groups[1][1]]
    assert group_runs(mixed) == [list(groups[0]), list(groups[1])]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed", "two runs of one seed"),
        ("score", "different scores"),
        ("empty", "two groups of runs"),
        ("no_run", "holds no training run"),
        ("recipe", "not a run's recipe"),
        ("no_score", "no evaluation with the score"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, groups, change, said) -> None:
    ours, controls = groups
    if change == "seed":
        ours = [*ours, run_of(tmp_path / "again", seed=0, curve=[0.1, 0.1])]
    elif change == "score":
        ours = [run_of(tmp_path / "f1", seed=0, curve=[0.1], score="f1")]
    elif change == "empty":
        ours = []
    elif change == "no_run":
        ours = [tmp_path]
    elif change == "recipe":
        (ours[0] / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(DataError, match=said):
        compare_runs([ours, controls], score="f2" if change == "no_score" else "")


def test_a_run_cut_off_by_a_kill_is_read_up_to_there(tmp_path) -> None:
    folder = run_of(tmp_path / "cut", seed=0, curve=[0.2, 0.4])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 2, "eval/em')
    assert read_run(folder).values == [0.2, 0.4]


def test_the_command_takes_what_a_shell_makes_of_patterns(groups) -> None:
    ours, controls = ([str(one) for one in group] for group in groups)
    shown = runner.invoke(app, ["compare", *ours, "--against", *controls])
    assert shown.exit_code == 0, shown.output
    assert "160 generated tokens" in shown.output and "+25.0" in shown.output
    told = json.loads(runner.invoke(app, ["compare", *controls, *ours, "--json"]).output)
    assert told["control"] == "old"  # the first, where nothing stands after --against
    alone = json.loads(runner.invoke(app, ["compare", *ours, "--json"]).output)
    assert alone["control"] == ours[0] and len(alone["groups"]) == 2
