"""From what a user names to a plan, and every mistake in it told before anything starts."""

import json
from pathlib import Path

import pytest
from eval_fakes import plan

from agentrl.core.errors import DataError, RecipeError
from agentrl.engine.settings import ChatSettings, OpenAISettings, ScriptedSettings
from agentrl.evals.planning import (
    Wish,
    context_of,
    laid_over,
    make_plan,
    require_same,
    rollout_of,
)
from agentrl.evals.suites import SUITES, find_suite
from agentrl.recipe.load import load
from agentrl.recipe.models import resolve_model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with an empty file for each suite's rows."""
    for suite in SUITES.values():
        for rows in suite.rows.values():
            if rows.file:
                path = tmp_path / rows.file.partition("@")[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return tmp_path


def wish(*targets: str, data: Path | None = None, **options) -> Wish:
    return Wish(targets, data=data, **({"policy": "scripted:oracle"} | options))


def test_a_suite_is_planned_with_its_own_customs(data):
    suite = find_suite("gsm8k")
    found = make_plan(wish("gsm8k", data=data, tasks=5))
    (planned,) = found.suites
    assert (planned.tag, planned.env, planned.score) == (suite.tag, suite.env, suite.score)
    assert (planned.samples, planned.temperature) == (suite.samples, suite.temperature)
    assert (planned.max_turns, planned.tasks) == (suite.max_turns, 5)
    assert planned.args == suite.env_args(data)
    assert found.engine == ScriptedSettings(script="oracle") and found.policy == "scripted:oracle"
    # Room for every action of the longest episode, its prompt and what it is shown.
    room = suite.max_turns * suite.max_tokens_per_turn
    assert found.rollout.limits.max_tokens == 16_384 + room
    rollout = rollout_of(found, planned)
    assert rollout.sampling.max_tokens_per_turn == suite.max_tokens_per_turn
    assert rollout.sampling.temperature == suite.temperature
    assert rollout.limits.max_turns == suite.max_turns


def test_settings_of_the_plan_and_of_every_suite(data):
    settings = (
        "rollout.concurrency=3", "seed=4", "price={prompt: 1.0, generated: 2.0}",
        "suite.temperature=0.7", "suite.max_turns=2", "rollout.limits.max_tokens=999",
        "suite.max_tokens_per_turn=100",
    )  # fmt: skip
    found = make_plan(wish("gsm8k", "svamp", data=data, settings=settings, samples=4))
    assert (found.rollout.concurrency, found.seed, found.price.generated) == (3, 4, 2.0)
    assert found.rollout.limits.max_tokens == 999
    assert [one.temperature for one in found.suites] == [0.7, 0.7]
    assert [(one.samples, one.max_turns) for one in found.suites] == [(4, 2), (4, 2)]


def test_a_small_model_bounds_the_limits(data, tmp_path):
    folder = resolve_model("tiny/search")
    assert context_of(folder) == 2048 and context_of("") is None and context_of("a/b") is None
    (tmp_path / "nested").mkdir()
    nested = {"text_config": {"max_position_embeddings": 77}}
    (tmp_path / "nested" / "config.json").write_text(json.dumps(nested))
    assert context_of(str(tmp_path / "nested")) == 77
    found = make_plan(wish("gsm8k", data=data, policy=folder))
    assert found.rollout.limits.max_tokens == 2048
    assert found.suites[0].max_tokens_per_turn <= 2047
    shorter = wish("gsm8k", data=data, policy=folder, settings=("engine.max_model_len=512",))
    assert make_plan(shorter).rollout.limits.max_tokens == 512


def test_a_recipe_is_a_suite_of_its_own():
    recipe = load("arpo_search", ["eval.tasks=7", "eval.samples=3"], purpose="eval")
    found = make_plan(wish("arpo_search", policy="", tasks=7, samples=3))
    (suite,) = found.suites
    assert (suite.tag, suite.env, suite.score) == ("recipe:arpo_search@1", "search/facts", "em")
    assert (suite.tasks, suite.samples) == (7, 3)
    assert suite.temperature == recipe.eval.temperature
    assert (found.engine, found.rollout) == (recipe.engine, recipe.rollout)
    assert (found.policy, found.model) == ("tiny/search", recipe.policy.path)
    assert rollout_of(found, suite).limits == recipe.rollout.limits
    assert found.runtime == recipe.runtime


def test_a_recipe_keeps_its_engine_for_weights_and_takes_that_of_a_server(monkeypatch):
    recipe = load("arpo_search", purpose="eval")
    weights = make_plan(wish("arpo_search", policy=resolve_model("tiny/search")))
    assert weights.engine == recipe.engine
    url = "http://127.0.0.1:9/v1"
    named = (OpenAISettings(base_url=url), recipe.policy.path)
    with monkeypatch.context() as patched:  # nobody serves there
        patched.setattr("agentrl.evals.policy.policy_of", lambda *_, **__: named)
        served = make_plan(wish("arpo_search", policy=url, settings=("engine.retries=1",)))
    assert isinstance(served.engine, OpenAISettings) and served.engine.retries == 1
    scripted = make_plan(wish("arpo_search"))
    assert (scripted.engine.script, scripted.model) == ("oracle", "")


@pytest.mark.parametrize(
    ("targets", "options", "said"),
    [
        ((), {}, "name what to evaluate on"),
        (("gsm9k",), {}, "nothing to evaluate on is named 'gsm9k'.*Did you mean 'gsm8k'"),
        (("arpo_serch",), {}, "Did you mean 'arpo_search'"),
        (("gsm8k",), {"policy": ""}, "a suite needs --policy"),
        (("gsm8k@99",), {}, "is at version 1, not 99"),
        (("gsm8k", "gsm8k@1"), {}, "is named twice"),
        (("gsm8k", "arpo_search"), {}, "is a recipe, which is evaluated alone.*'gsm8k'"),
        (("arpo_search",), {"data": Path()}, "--data is for suites"),
        (("arpo_search",), {"policy": "", "engine": "transformers"}, "--engine goes with --policy"),
        (
            ("arpo_search",), {"settings": ("rollout.sampling.temperature=0.3",)},
            "write eval.temperature=0.3",
        ),
        (("arpo_search",), {"settings": ("eval.taks=1",)}, "unknown setting 'eval.taks'"),
        (("gsm8k",), {"settings": ("rolout.retries=1",)}, "unknown setting 'rolout'"),
        (("gsm8k",), {"settings": ("rollout.workers=2",)}, "workers need a process each"),
        (("gsm8k",), {"settings": ("suites.0.samples=2",)}, "write suite.samples="),
        (("gsm8k",), {"settings": ("rollout.limits.max_turns=2",)}, "write suite.max_turns="),
        (
            ("gsm8k",), {"settings": ("suite.temprature=1",)},
            "override suite.temprature=1: unknown setting 'temprature'. Did you mean 'temper",
        ),
        (("gsm8k",), {"settings": ("price.generated=1",)}, "price.prompt: field required"),
    ],
)  # fmt: skip
def test_mistakes_are_told(data, targets, options, said):
    given = {"data": None if "arpo" in "".join(targets) else data, **options}
    with pytest.raises(RecipeError, match=f"(?s){said}"):
        make_plan(wish(*targets, **given))


def test_samples_that_would_be_copies_are_refused(data):
    weights = {"policy": resolve_model("tiny/search")}
    with pytest.raises(RecipeError, match=r"gsm8k@1: 4 samples at temperature 0 are copies"):
        make_plan(wish("gsm8k", data=data, samples=4, settings=("suite.temperature=0",), **weights))
    copies = wish("gsm8k", data=data, samples=4, settings=("suite.temperature=0",))
    assert make_plan(copies).suites[0].samples == 4  # a script may do as it likes


def test_a_suite_without_its_rows_says_so(tmp_path):
    with pytest.raises(DataError, match="no file"):
        make_plan(wish("gsm8k", data=tmp_path))


def test_a_name_that_is_a_suite_and_a_recipe_is_neither(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("svamp").write_text("name: x\n")
    with pytest.raises(RecipeError, match=r"'svamp' is a suite and a recipe; name the recipe by"):
        make_plan(wish("svamp"))


def test_plans_that_differ_only_in_how_fast_are_the_same():
    before = plan()
    free = (
        "rollout.concurrency=3", "rollout.retries=9", "rollout.limits.tool_seconds=1.0",
        "runtime=ray", "rollout.workers=2", "price={prompt: 1.0, generated: 1.0}",
    )  # fmt: skip
    require_same(before, laid_over(before, free), Path("x"))
    url = "http://127.0.0.1:9/v1"
    server = before.model_copy(update={"engine": ChatSettings(base_url=url, model="m")})
    slower = (
        "engine.requests_per_minute=9", "engine.timeout=1.0", "engine.patience=1.0",
        "engine.max_backoff=2.0", "engine.api_key_env=MINE",
    )  # fmt: skip
    require_same(server, laid_over(server, slower), Path("x"))
    with pytest.raises(DataError, match=r"differ in engine.model \('m' there, 'n' now\)"):
        require_same(server, laid_over(server, ["engine.model=n"]), Path("x"))
    for setting, told in [
        ("seed=1", "seed (0 there, 1 now)"),
        ("rollout.limits.max_tokens=999", "rollout.limits.max_tokens (4096 there, 999 now)"),
        ("engine.script=random", "engine.script ('oracle' there, 'random' now)"),
        ("policy=other", "policy ("),
    ]:
        with pytest.raises(DataError, match="x holds another evaluation") as refused:
            require_same(before, laid_over(before, [setting]), Path("x"))
        assert told in str(refused.value)
