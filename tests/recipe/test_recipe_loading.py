"""Recipes load, say where their settings come from, survive a dump, and have no dead key."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import RecipeError
from agentrl.credit import ArpoCredit
from agentrl.recipe.check import Purpose
from agentrl.recipe.keys import sections
from agentrl.recipe.load import differences, dump, load, load_with_source
from agentrl.recipe.messages import all_places
from agentrl.recipe.models import resolve_model
from agentrl.recipe.presets import PRESETS
from agentrl.recipe.schema import Recipe
from agentrl.samplers import ArpoSampler, ChainSampler

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(ROOT.glob("recipes/**/*.yaml"))


def purpose(path: Path) -> Purpose:
    return "sft" if yaml.safe_load(path.read_text()).get("sft") else "run"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_its_name_is_its_files(path: Path) -> None:
    recipe = load(path, purpose=purpose(path))
    assert recipe.name == path.stem
    head = path.read_text().splitlines()[:3]
    assert head[1].startswith("# Needs: "), "what it needs stands in its header"
    assert any(line.startswith("# Expect:") for line in path.read_text().splitlines())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_shipped_recipe_repeats_a_default(path: Path) -> None:
    loaded = load_with_source(path, purpose=purpose(path))
    own = {p for p, where in loaded.source.origins.items() if not where.startswith("preset ")}
    said = {place for place in own if place[0] not in ("env", "name")}
    inner = {place for place in said if not any(p[:-1] == place for p in said)}
    differing = {difference.place for difference in differences(loaded.recipe)}
    lists = {place for place in inner if place[-1].isdigit()}
    # Where a preset says otherwise, the default has to be said.
    data = yaml.safe_load(path.read_text())
    below = PRESETS[data["preset"]].settings if "preset" in data else {}
    differing |= {place for place in inner if _at(below, place) is not None}
    # A type, and the budget that is compared, are the point of a recipe.
    point = {place for place in inner if place[-1] in ("type", "trajectories")}
    assert inner - lists - point <= differing


def _at(settings: object, place: tuple[str, ...]) -> object:
    for key in place:
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


def test_a_shipped_recipe_is_found_by_its_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("arpo_search", "recipes/arpo_search.yaml"):
        assert load(name).name == "arpo_search"


def test_arpo_and_grpo_search_have_the_same_budget() -> None:
    arpo, grpo = load("arpo_search"), load("grpo_search")
    assert isinstance(arpo.sampler, ArpoSampler)
    assert isinstance(grpo.sampler, ChainSampler)
    assert arpo.sampler.trajectories == grpo.sampler.trajectories
    same = arpo.model_dump(exclude={"name", "sampler", "credit", "expect", "band"})
    assert same == grpo.model_dump(exclude={"name", "sampler", "credit", "expect", "band"})


METHODS = [path for path in SHIPPED if "max_generated_tokens: 75000" in path.read_text()]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_methods_are_compared_with_a_control_that_differs_in_nothing_else(path: Path) -> None:
    ours, control = load(path), load("grpo_search", ["train.max_generated_tokens=75000"])
    assert ours.env.id == control.env.id
    for same in ("policy", "engine", "rollout", "seed"):
        assert getattr(ours, same) == getattr(control, same)
    assert ours.learner.optimizer == control.learner.optimizer
    assert ours.train.max_generated_tokens == control.train.max_generated_tokens
    assert ours.train.tasks_per_iteration == control.train.tasks_per_iteration
    assert (ours.eval.tasks, ours.eval.score) == (control.eval.tasks, control.eval.score)


def test_nearly_every_preset_has_a_recipe_on_the_search_questions() -> None:
    # GRPO is the control itself, ARPO has its own, longer comparison, and UFO begins with a policy
    # that was trained to answer once.
    on_search = {yaml.safe_load(path.read_text()).get("preset") for path in METHODS}
    assert set(PRESETS) - on_search == {"grpo", "arpo", "ufo"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_dump_loads_back_equal(path: Path, tmp_path: Path) -> None:
    recipe = load(path, ["train.tasks_per_iteration=5"], purpose=purpose(path))
    again = tmp_path / "recipe.yaml"
    again.write_text(dump(recipe))
    assert load(again, purpose=purpose(path)) == recipe
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@settings(max_examples=20, deadline=None)
@given(
    rate=st.floats(1e-9, 1.0),
    seed=st.integers(0, 2**40),
    hops=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    kl=st.sampled_from([0.0, 0.001, 1e-7]),
)
def test_any_values_survive_a_dump(rate, seed, hops, kl, tmp_path_factory) -> None:
    recipe = load(
        "arpo_search",
        [
            f"learner.optimizer.learning_rate={rate:.9f}",
            f"seed={seed}",
            f"env.hops={hops}",
            f"learner.loss.kl={kl:.9f}",
        ]
        if rate >= 1e-8
        else [f"seed={seed}", f"env.hops={hops}"],
    )
    again = tmp_path_factory.mktemp("dump") / "recipe.yaml"
    again.write_text(dump(recipe))
    assert load(again) == recipe


def test_overrides_are_yaml_and_the_last_one_wins() -> None:
    recipe = load(
        "arpo_search",
        [
            "train.iterations=3",
            "train.iterations=4",
            "learner.lora={rank: 4}",
            "learner.optimizer.betas=[0.8, 0.9]",
            "policy.model=Qwen/Qwen3-1.7B",
            "env.hops=[1, 2]",
            "log.wandb=null",
            "expect='a: b'",
            "sampler={type: chain, trajectories: 4}",
        ],
    )
    assert recipe.train.iterations == 4
    assert recipe.learner.lora is not None and recipe.learner.lora.rank == 4
    assert recipe.learner.optimizer.betas == (0.8, 0.9)
    assert recipe.policy.path == "Qwen/Qwen3-1.7B"
    assert recipe.env.args["hops"] == [1, 2]
    assert recipe.expect == "a: b"
    assert recipe.sampler == ChainSampler(trajectories=4)


def test_origins_name_the_line_or_the_override() -> None:
    path = ROOT / "recipes" / "arpo_search.yaml"
    lines = path.read_text().splitlines()
    source = load_with_source(path, ["train.iterations=3"]).source
    sampler = next(i for i, line in enumerate(lines, 1) if line.startswith("sampler:"))
    assert source.origin(("sampler", "initial")) == f"{path}:{sampler}"
    assert source.origin(("train", "iterations")) == "override train.iterations=3"
    assert source.origin(("seed",)) == str(path)


def test_differences_are_those_from_the_chosen_types_defaults() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "env": {"id": "search/facts"},
            "policy": {"model": "m"},
            "sampler": {"type": "arpo", "initial": 4},
            "learner": {"optimizer": {"learning_rate": 0.5}},
        }
    )
    found = {".".join(one.place): (one.value, one.default) for one in differences(recipe)}
    assert found == {
        "name": ("x", None),
        "env.id": ("search/facts", None),
        "policy.model": ("m", None),
        "sampler.type": ("arpo", "chain"),
        "sampler.initial": (4, 8),
        "learner.optimizer.learning_rate": (0.5, 1e-6),
    }


def test_models_are_built_in_names_folders_or_hub_ids(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert resolve_model("tiny/search").endswith("agentrl/models/tiny_search")
    assert resolve_model("mine") == str(tmp_path / "mine")
    assert resolve_model("./mine") == str(tmp_path / "mine")
    assert resolve_model("Qwen/Qwen3-1.7B") == "Qwen/Qwen3-1.7B"
    with pytest.raises(RecipeError, match=r"no folder '\./other' .* holds a model"):
        resolve_model("./other")


def test_a_folder_that_is_no_model_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "policy").mkdir(parents=True)
    with pytest.raises(RecipeError) as caught:
        resolve_model("./mine")
    assert str(caught.value) == "folder './mine' holds no model (it has no config.json)"
    (tmp_path / "mine" / "policy" / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match="this run's policy is 'mine/policy'"):
        resolve_model("./mine")


def test_settings_are_frozen_and_the_default_credit_is_grpo() -> None:
    recipe = load("grpo_search", ["credit={type: arpo}"])
    assert recipe.credit == ArpoCredit()
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.floats(allow_nan=True), st.text(max_size=5),
    st.sampled_from(["1e-6", "2020-01-01", "chain", "arpo", "on", "search/facts", "tiny/search"]),
    st.dates(), st.binary(max_size=3),
)  # fmt: skip
_keys = st.sampled_from(sorted({part for place in all_places(Recipe) for part in place}))
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(data=st.dictionaries(_keys, _values, max_size=8), valid=st.booleans())
def test_whatever_stands_in_a_recipe_the_answer_is_a_recipe_or_a_recipe_error(
    data, valid, tmp_path_factory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.yaml"
    base = {"name": "x", "env": {"id": "search/facts"}, "policy": {"model": "m"}} if valid else {}
    path.write_text(yaml.safe_dump({**base, **data}, allow_unicode=True))
    try:
        recipe = load(path)
    except RecipeError as error:
        assert all(line.startswith(str(path)) for line in str(error).splitlines())
    else:
        assert recipe.name


@pytest.mark.parametrize(
    "text",
    ["", "\t", "x", "a: &a [*a]", "? [1]\n: 2", "!!python/name:os.system x", "\x00", "a: !x 1"],
)
def test_odd_files_are_recipe_errors(text: str, tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"x\.yaml"):
        load(path)


OWN = {"policy", "train", "eval", "sft", "log"}
"""Sections whose keys are read outside this room, under these names or as `settings`."""


def test_no_key_of_the_schema_is_dead() -> None:
    """Every key is read, by whoever the recipe is for: its checks do not count."""
    code = "\n".join(
        path.read_text()
        for path in (ROOT / "agentrl").rglob("*.py")
        if path.parent.name != "recipe"
    )
    # Pairs of a name and what is read from it, as in `policy.model`; they may overlap.
    read = set(re.findall(r"(?=\b(\w+)\.(\w+))", code))
    keys_read = {key for _, key in read}
    places = set(all_places(Recipe))
    dead = []
    for place in sorted(places):
        *above, key = place
        if key == "type" or any(other[:-1] == place for other in places):
            continue  # What a type chose, or a section: its keys are looked for instead.
        if above and above[0] not in OWN:
            found = key in keys_read
        else:
            keys = {"model", "path"} if place == ("policy", "model") else {key}
            found = any((one, k) in read for one in (*above, "settings", "recipe") for k in keys)
        if not found:
            dead.append(".".join(place))
    assert dead == []


def test_the_surface_of_one_recipe_stays_small() -> None:
    """Keys that a recipe can have once its engine, sampler and credit are chosen."""
    shared, chosen = 0, Counter()
    for section in sections():
        if section.type:
            chosen[section.place] = max(chosen[section.place], len(section.keys))
        else:
            shared += len(section.keys)
    assert shared < 103 and shared + chosen.total() < 158, (
        "a knob is added when two recipes need it"
    )


def test_reading_a_recipe_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from agentrl.recipe.load import load\n"
        "load('arpo_search')\n"
        "heavy = ('torch', 'ray', 'vllm', 'transformers', 'deepspeed', 'pandas', 'pyarrow')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
