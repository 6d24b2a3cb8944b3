"""The whole loop in one process: learning, refusals, and what a run folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrl import store
from agentrl.core.errors import CheckpointError, FailureRateError, RecipeError, WeightSyncError
from agentrl.recipe.load import load
from agentrl.trainer.dry_run import dry_run
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run
from agentrl.workers.fleet import Fleet

pytestmark = pytest.mark.slow


def test_a_run_learns_and_its_folder_holds_everything(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = load(
        recipe_file,
        [
            "train.iterations=30",
            "train.tasks_per_iteration=6",
            "learner.optimizer.learning_rate=5.0e-3",
            "eval.every=0",
            "eval.tasks=16",
            "eval.samples=2",
            "train.save_every=10",
            "log.trees=10",
        ],
    )
    result = run(recipe, out=out)
    assert result.gain is not None
    assert result.gain.low > 0.0
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == list(range(31))
    assert all(row["policy/probe_difference_largest"] < 1e-3 for row in rows)
    assert all(row["train/behavior_difference"] < 1e-5 for row in rows[1:])
    assert rows[-1]["budget/trajectories"] == 30 * 6 * 4
    assert load(out / "recipe.yaml") == recipe
    groups = store.read(out / "trees" / "iteration-000011.parquet")
    assert sum(len(list(g.trajectories())) for g in groups) == 24
    assert json.loads((out / "result.json").read_text())["gain"] == result.gain.plain()
    assert {p.name for p in (out / "policy").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert len(list((out / "checkpoints").glob("step-*"))) == 2
    with pytest.raises(RecipeError, match="holds a run already"):
        run(recipe, out=out)
    other = load(recipe_file, ["learner.optimizer.learning_rate=0.5"])
    with pytest.raises(CheckpointError, match=r"differs in .*learning_rate"):
        run(other, out=out, resume=True)


def test_a_skipped_sync_stops_the_run_and_names_the_cause(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_weights = Fleet.load

    async def forgets(self: Fleet, weights: Path, version: int, **how: Any) -> None:
        if version != 2:
            await load_weights(self, weights, version, **how)

    monkeypatch.setattr(Fleet, "load", forgets)
    with pytest.raises(WeightSyncError, match="the engine kept old weights"):
        run(load(recipe_file), out=tmp_path / "run")


def test_a_broken_environment_stops_the_run_and_is_named(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load(recipe_file, ["env.crash=true", "eval.at_start=false"])
    with pytest.raises(FailureRateError, match="this environment is broken"):
        run(recipe, out=tmp_path / "run")


def test_a_run_ends_when_its_budget_is_spent(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(load(recipe_file, ["train.max_generated_tokens=150"]), out=out)
    rows = read_metrics(out / "metrics.jsonl")
    assert rows[-1]["budget/generated_tokens"] >= 150
    assert rows[-2].get("budget/generated_tokens", 0) < 150


def test_a_dry_run_plays_two_episodes_without_a_model(recipe_file: Path, capsys) -> None:
    groups = dry_run(load(recipe_file))
    assert [len(list(group.trajectories())) for group in groups] == [1, 1]
    tokens = sum(len(turn.action_ids) for g in groups for tree in g.trees for turn in tree.turns)
    assert f"{tokens} of them trained; no update was made" in capsys.readouterr().out


def test_a_score_that_no_episode_has_is_refused_before_training(
    recipe_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        run(load(recipe_file, ["eval.score=vowel"]), out=tmp_path / "run")
    assert str(caught.value) == (
        "eval.score: no episode of 'trainer_fakes:VowelEnv' has a reward component 'vowel'. Did "
        "you mean 'vowels'? Known: reward, vowels."
    )
