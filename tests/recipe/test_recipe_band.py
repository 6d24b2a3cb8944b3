"""The expected band of a recipe: which overrides leave it, and what a mistake in it says."""

from pathlib import Path

import pytest
import yaml

from agentrl.core.errors import RecipeError
from agentrl.recipe.load import dump, load

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize(
    "override",
    [
        *("name=mine", "seed=7", "runtime=local", "train.iterations=100", "log.trees=0"),
        *("train.max_generated_tokens=200000", "rollout.workers=2", "eval.every=10"),
    ],
)
def test_what_changes_no_result_leaves_the_band(override):
    recipe = load("arpo_search", [override])
    assert recipe.band == load("arpo_search").band
    assert (recipe.band.low, recipe.band.high, recipe.band.generated_tokens) == (0.80, 0.84, 150000)


@pytest.mark.parametrize(
    "override",
    [
        *("env.hops=[1]", "sampler.trajectories=4", "learner.optimizer.learning_rate=1.0e-5"),
        *("eval.tasks=50", "eval.score=reward", "rollout.sampling.max_tokens_per_turn=16"),
        "train.tasks_per_iteration=4",
    ],
)
def test_what_changes_results_takes_the_band_away_and_says_so(override):
    recipe = load("arpo_search", [override, "name=mine"])
    assert recipe.band is None
    assert recipe.expect == (
        f"{load('arpo_search').expect} (does not apply: changed by {override})"
    )


def test_a_stored_recipe_keeps_what_was_decided(tmp_path):
    path = tmp_path / "recipe.yaml"
    for changed in ([], ["eval.tasks=50"]):
        recipe = load("arpo_search", changed)
        path.write_text(dump(recipe))
        assert load(path) == recipe


def test_a_band_that_is_given_is_meant():
    recipe = load("arpo_search", ["eval.tasks=50", "band.low=0.5"])
    assert (recipe.band.low, recipe.band.high) == (0.5, 0.84)


def test_a_band_upside_down_is_refused():
    with pytest.raises(RecipeError, match=r"low = 0\.9 is above high = 0\.84; exchange them"):
        load("arpo_search", ["band.low=0.9"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_band_of_a_shipped_recipe_is_the_one_of_its_header(path):
    text = path.read_text()
    band = yaml.safe_load(text).get("band")
    header = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    if band is None:
        assert "->" not in header or path.stem.startswith("sft")
        return
    measured = f"{100 * band['low']:.0f}-{100 * band['high']:.0f} %"
    assert f"-> {measured} after {band['generated_tokens']:,} generated tokens" in header
