"""Refill, replay, curriculum and prices in whole runs: resumed as if never stopped, and skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl import store
from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run

pytestmark = pytest.mark.slow

EVERYTHING = [
    "sampler={type: chain, trajectories: 3}",
    "eval.score=vowels",
    "eval.every=0",
    "eval.tasks=2",
    "filters=[{type: mean_range, low: 0.1, high: 0.4}]",
    "train.refill=1",
    "train.curriculum={explore: 0.5}",
    "train.replay={capacity: 2}",
    "train.overlong={length: 12, buffer: 6}",
    "train.tasks_per_iteration=4",
]


def numbers(out: Path) -> list[dict[str, float]]:
    """Every metric that is not a time."""
    return [
        {k: v for k, v in row.items() if "time" not in k and "second" not in k}
        for row in read_metrics(out / "metrics.jsonl")
    ]


def test_a_run_that_is_stopped_in_the_middle_ends_as_the_one_that_was_not(
    recipe_file: Path, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    # Evaluations at an end would tell the two apart: the stopped run has two.
    without = [*EVERYTHING, "eval.at_end=false"]
    run(load(recipe_file, [*without, "train.iterations=4"]), out=whole)
    run(load(recipe_file, [*without, "train.iterations=2"]), out=stopped)
    run(load(recipe_file, [*without, "train.iterations=4"]), out=stopped, resume=True)
    rows = numbers(whole)
    assert numbers(stopped) == rows
    assert {"replay/stored", "curriculum/known_tasks", "rollout/overlong_mean"} <= rows[-1].keys()
    assert sum(row["refill/groups_uninformative"] for row in rows[1:]) > 0
    played = sum(row["refill/groups_played"] for row in rows[1:])
    assert rows[-1]["budget/trajectories"] == 3 * played > 3 * 16
    assert rows[-1]["train/updates"] == 4


@pytest.mark.parametrize(
    "others",
    [
        [],
        ["credit={type: gae}", "learner.critic={trunk: own}"],
        ["learner.kl_in_reward={beta: 0.01}", "learner.correction={type: tis}"],
    ],
    ids=["grpo", "critic", "reference and correction"],
)
def test_iterations_without_a_group_of_use_make_no_update_and_the_run_goes_on(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], others: list[str]
) -> None:
    out = tmp_path / "run"
    nothing = [*EVERYTHING, "filters=[{type: mean_range, low: 2.0, high: 3.0}]", *others]
    run(load(recipe_file, [*nothing, "train.iterations=2"]), out=out)
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["credit/trained_turns"] for row in rows[1:]] == [0.0, 0.0]
    assert [row["refill/groups_played"] for row in rows[1:]] == [8.0, 8.0]
    assert rows[-1]["budget/trajectories"] == 3 * 16 and "train/loss" not in rows[-1]
    assert "no group has anything to train on: no update" in capsys.readouterr().out
    assert store.read(out / "trees" / "iteration-000001.parquet") == []
