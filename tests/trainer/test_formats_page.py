"""`docs/formats.md` says what a run leaves: held against runs that are played here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agentrl import store
from agentrl.core.types import StopReason
from agentrl.credit import GrpoCredit, TurnTable, assign
from agentrl.engine.settings import TransformersSettings
from agentrl.evals.planning import Wish, make_plan
from agentrl.evals.run import evaluate
from agentrl.recipe.load import load
from agentrl.recipe.schema import Recipe
from agentrl.testing.trees import random_groups
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
CREDIT = ("positive", "negative", "weight")
TEXTS = ("prompt_text", "action_text", "observation_text")


def section(title: str) -> str:
    return re.search(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def names(text: str) -> list[str]:
    """What stands in backticks in the first column of the tables in `text`."""
    first = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in first for name in re.findall(r"`([^`]+)`", cell)]


def words(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return words(kind.value_type)
    if pa.types.is_list(kind):
        return f"list of {words(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {words(kind.key_type)} to {words(kind.item_type)}"
    return str(kind)


def test_the_columns_of_trees_are_those_of_the_page(tmp_path) -> None:
    groups = random_groups(0, n_groups=2)
    table = TurnTable.of(groups)
    credit = assign(table, GrpoCredit(), aggregation="token_mean").credit
    store.write(tmp_path / "trees.parquet", groups, credit=credit, decode=str)
    schema = pq.read_schema(tmp_path / "trees.parquet")
    listed = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ", section("Trees"), re.MULTILINE)
    found = [(field.name, words(field.type)) for field in schema]
    assert (
        listed + [(name, "double") for name in CREDIT] + [(name, "string") for name in TEXTS]
        == found
    )
    assert all(f"`{name}`" in section("Trees") for name in (*CREDIT, *TEXTS, *StopReason))


class Metric(NamedTuple):
    """A name of the page's table, and the key of a recipe, with its value, that brings it."""

    name: str
    key: str

    def filled(self, recipe: Recipe) -> list[str]:
        """What it is called in a run of `recipe`."""
        words = {
            "REASON": list(StopReason),
            "FAILURE": [one for one in StopReason if one.is_failure],
            "TOOL": [],  # The environment has no tools.
            "FILTER": [one.type for one in recipe.filters],
            "LAG": [str(lag) for lag in range(recipe.train.max_lag + 1)],
            "COMPONENT": ["vowels", *(["overlong"] if recipe.train.overlong else [])],
            "SCORE": [recipe.eval.score],
        }
        for word, meanings in words.items():
            if word in self.name:
                return [self.name.replace(word, meaning) for meaning in meanings]
        return [self.name]


def metrics() -> list[Metric]:
    rows = re.findall(r"^\| (`.+?`) \| (?:`(.+)` )?\| ", section("Metrics"), re.MULTILINE)
    return [Metric(name, key) for cell, key in rows for name in re.findall(r"`([^`]+)`", cell)]


def is_set(recipe: Recipe, key: str) -> bool:
    """Whether `key` has a value in `recipe`, or the one that stands behind it; "" is always set."""
    path, _, value = key.partition(": ")
    found: object = recipe
    for part in path.split(".") if path else []:
        found = getattr(found, part, None)
    return found == value if value else bool(found)


RUNS = {
    "groups and losses": [
        "filters=[{type: not_constant}]",
        "env.wrappers=[{type: hints}]",
        "train.refill=1",
        "train.hints=[0.5]",
        "train.curriculum={}",
        "train.replay={}",
        "learner.kl_in_reward={beta: 0.01}",
        "learner.correction={type: tis}",
        "learner.loss.kl=0.01",
        "learner.loss.kl_target=1.0",
        "learner.loss.entropy=0.01",
        "learner.entropy_control={type: adaptive}",
    ],
    "a critic, and sampling ahead": [
        "sampler={type: chain, trajectories: 4}",
        "credit={type: gae}",
        "learner.critic={trunk: own, value_clip: 0.2}",
        "train.max_lag=1",
        "train.overlong={length: 16, buffer: 8}",
    ],
    "anchors, and forgetting": [
        "sampler={type: eepo, trajectories: 4, window: 1, entropy_below: 100}",
        "credit={type: gigpo}",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_a_run_leaves_what_the_page_lists(
    settings: list[str], recipe_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    recipe = load(recipe_file, ["train={iterations: 2, tasks_per_iteration: 2}", *settings])
    run(recipe, out=out)
    listed = {re.split(r"[/]", name)[0] for name in names(PAGE.partition("## ")[0])}
    assert {path.name for path in out.iterdir()} == listed
    assert {re.sub(r"\d+", "N", path.name) for path in (out / "trees").iterdir()} == {
        "iteration-N.parquet",
        "eval-N.parquet",
    }

    found = {name for row in read_metrics(out / "metrics.jsonl") for name in row}
    expected = {name for one in metrics() if is_set(recipe, one.key) for name in one.filled(recipe)}
    assert found == expected | {"iteration", "time"}

    (checkpoint,) = (out / "checkpoints").iterdir()
    files = {name.rstrip("/") for name in names(section("Checkpoints"))}
    absent = {"ahead.parquet"}  # Nothing waits when a run is over.
    absent |= set() if recipe.train.replay else {"replay.parquet"}
    assert {path.name for path in checkpoint.iterdir()} == files - absent
    state = json.loads((checkpoint / "state.json").read_text())
    assert all(f"`{key}`" in section("Checkpoints") for key in state)

    assert json.loads((out / "result.json").read_text()).keys() == set(
        names(section("result.json"))
    )
    assert recipe.engine == TransformersSettings(max_batch=1)


def test_every_metric_of_the_page_is_looked_for_in_some_run(recipe_file: Path) -> None:
    recipes = [load(recipe_file, settings) for settings in RUNS.values()]
    keys = {one.key for one in metrics()}
    assert [key for key in keys if not any(is_set(recipe, key) for recipe in recipes)] == []
    assert [key for key in keys if key and all(is_set(recipe, key) for recipe in recipes)] == []
    listed = [one.name for one in metrics()]
    assert len(listed) == len(set(listed))


def table(title: str) -> list[str]:
    """Names in the first column of the table of that title."""
    head = f"| {title} | what |\n"
    return names(section("Evaluations").partition(head)[2].partition("\n\n")[0])


@pytest.mark.slow
def test_an_evaluation_leaves_what_the_page_lists(recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    results = evaluate(make_plan(Wish([str(recipe_file)], tasks=2)), out)
    assert {path.name for path in out.iterdir()} == {*table("file"), ".lock"}
    (first, *_) = map(json.loads, (out / "samples.jsonl").read_text().splitlines())
    assert first.keys() == set(table("key of a sample"))
    told = json.loads((out / "results.json").read_text())
    assert told.keys() == set(table("key of `results.json`"))
    (suite,) = told["suites"]
    assert suite.keys() == set(table("key of a suite"))
    page = section("Evaluations")
    (sitting,) = map(json.loads, (out / "sittings.jsonl").read_text().splitlines())
    keys = {
        *told["provenance"],
        *sitting,
        *suite["estimates"]["reward"],
        *suite["amounts"]["turns"],
    }
    assert [key for key in keys if f"`{key}`" not in page] == []
    assert results.suites[0].scored == 2
