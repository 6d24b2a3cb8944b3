"""Presets: each is a recipe that can work, and says what the table of published algorithms says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.core.errors import RecipeError
from agentrl.recipe.load import dump, load, load_with_source
from agentrl.recipe.presets import PRESETS, with_preset
from agentrl.recipe.schema import Recipe

HEAD = "name: x\nenv: {id: demo/calculator}\npolicy: {model: tiny/search}\n"


NEEDS = {"dapo": "eval: {score: correct}\n"}
"""What a preset asks of the recipe that names it."""


def written(folder: Path, name: str, more: str = "") -> Path:
    path = folder / "x.yaml"
    path.write_text(f"{HEAD}preset: {name}\n{NEEDS.get(name, '')}{more}")
    return path


def clip(loss) -> str:
    """The kernel and its numbers, as the table writes them."""
    match loss.type:
        case "ppo":
            return f"ppo {loss.clip_low:g}/{loss.clip_high:g}"
        case "cispo":
            return f"cispo {loss.clip_low:g}/{loss.clip_high:g}"
        case "sapo":
            return f"sapo {loss.tau_positive:g}/{loss.tau_negative:g}"
        case "logclip":
            return f"logclip {loss.clip_low:g}"
        case "gvpo":
            return f"regression {loss.beta:g}"
        case "reinforce":
            return "none"
        case _:
            return str(loss.type)


def kl(recipe: Recipe) -> str:
    loss, reward = recipe.learner.loss, recipe.learner.kl_in_reward
    if reward is not None:
        assert loss.kl == 0.0 and reward.target is None
        return f"reward {reward.beta:g}"
    return f"{loss.kl_estimator} {loss.kl:g}" if loss.kl else "-"


def row(recipe: Recipe) -> tuple[str, ...]:
    loss, credit = recipe.learner.loss, recipe.credit
    chains = recipe.sampler.type == "chain" and recipe.sampler.trajectories != 8
    sampler = f"chain {recipe.sampler.trajectories}" if chains else recipe.sampler.type
    return (
        sampler,
        " ".join(one.type for one in recipe.filters) or "-",
        f"{credit.type} {getattr(credit, 'baseline', '-')} {getattr(credit, 'scale', '-')}",
        getattr(loss, "level", "token"),
        clip(loss),
        loss.aggregation,
        kl(recipe),
    )


# sampler, filter, credit (method, baseline, scale), level of the ratio, clip, aggregation, KL
TABLE = {
    "reinforce": ("chain", "-", "reinforce 0.0 none", "token", "none", "sequence_sum", "-"),
    "reinforce_pp": (
        "chain", "-", "reinforce_pp none none", "token", "ppo 0.2/0.2", "token_mean", "reward 0.01",
    ),
    "reinforce_pp_baseline": (
        "chain", "-", "reinforce_pp group none", "token", "ppo 0.2/0.2", "token_mean", "k2 0.01",
    ),
    "ppo": ("chain", "-", "gae - -", "token", "ppo 0.2/0.2", "token_mean", "reward 0.02"),
    "vagen": ("chain", "-", "bilevel_gae - -", "token", "ppo 0.2/0.2", "token_mean", "-"),
    "ufo": ("chain", "widest", "gae - -", "token", "ppo 0.2/0.28", "token_mean", "k3 0.001"),
    "raft": ("chain", "best", "reinforce 0.0 none", "token", "none", "token_mean", "-"),
    "raft_pp": (
        "chain", "best", "reinforce 0.0 none", "token", "ppo 0.2/0.2", "token_mean", "k3 0.001",
    ),
    "reinforce_rej": (
        "chain 4", "not_constant", "reinforce 0.0 none", "token", "ppo 0.2/0.2", "token_mean",
        "k3 0.001",
    ),
    "rloo": ("chain", "-", "rloo - none", "token", "none", "sequence_sum", "reward 0.05"),
    "opo": ("chain", "-", "opo - none", "token", "none", "sequence_sum", "-"),
    "grpo": ("chain", "-", "grpo - std", "token", "ppo 0.2/0.2", "sequence_mean", "k3 0.04"),
    "process_grpo": (
        "chain", "-", "turn_grpo steps std", "token", "ppo 0.2/0.2", "sequence_mean", "k3 0.04",
    ),
    "dr_grpo": ("chain", "-", "grpo - none", "token", "ppo 0.2/0.2", "constant", "-"),
    "dapo": (
        "chain 16", "not_constant", "grpo - std", "token", "ppo 0.2/0.28", "token_mean", "-",
    ),
    "ghpo": ("chain", "-", "grpo - std", "token", "ppo 0.2/0.2", "token_mean", "-"),
    "eepo": ("eepo", "-", "grpo - std", "token", "ppo 0.2/0.2", "sequence_mean", "-"),
    "arpo_replay": ("chain", "-", "grpo - std", "token", "ppo 0.2/0.3", "token_mean", "-"),
    "clip_cov": ("chain", "-", "grpo - std", "token", "ppo 0.2/0.2", "token_mean", "-"),
    "kl_cov": ("chain", "-", "grpo - std", "token", "ppo 0.2/0.2", "token_mean", "-"),
    "aepo": ("aepo", "-", "arpo - std", "token", "ppo 0.2/0.2", "sequence_mean", "-"),
    "otb": ("chain", "-", "otb - none", "token", "ppo 0.2/0.2", "token_mean", "-"),
    "lite_ppo": ("chain", "-", "grpo - batch", "token", "ppo 0.2/0.2", "token_mean", "-"),
    "cppo": (
        "chain 16", "top_advantage", "grpo - std", "token", "ppo 0.2/0.2", "sequence_mean",
        "k3 0.04",
    ),
    "pass_at_k": ("chain", "-", "pass_at_k - std", "token", "ppo 0.2/0.2", "token_mean", "-"),
    "gspo": (
        "chain", "-", "grpo - std", "sequence", "ppo 0.0003/0.0004", "sequence_mean", "-",
    ),
    "gspo_token": (
        "chain", "-", "grpo - std", "sequence_token", "ppo 0.0003/0.0004", "sequence_mean", "-",
    ),
    "gmpo": ("chain", "-", "grpo - std", "token", "logclip 0.4", "sequence_mean", "-"),
    "cispo": ("chain", "-", "grpo - std", "token", "cispo 1/4", "token_mean", "-"),
    "sapo": ("chain", "-", "grpo - std", "token", "sapo 1/1.05", "sequence_mean", "-"),
    "dppo": ("chain", "-", "grpo - std", "token", "dppo", "token_mean", "-"),
    "vespo": ("chain", "-", "grpo - std", "token", "vespo", "token_mean", "-"),
    "gvpo": ("chain", "-", "grpo - none", "token", "regression 0.1", "token_mean", "-"),
    "mt_grpo": ("chain", "-", "mt_grpo - std", "token", "ppo 0.2/0.2", "sequence_mean", "-"),
    "gigpo": ("chain", "-", "gigpo - std", "token", "ppo 0.2/0.2", "token_mean", "k3 0.01"),
    "hgpo": ("chain", "-", "hgpo - std", "token", "ppo 0.2/0.2", "token_mean", "k3 0.01"),
    "tree_grpo": (
        "tree", "-", "tree_grpo - std", "token", "ppo 0.2/0.2", "sequence_mean", "k3 0.001",
    ),
    "arpo": ("arpo", "-", "arpo - std", "token", "ppo 0.2/0.2", "sequence_mean", "-"),
    "at2po": ("at2po", "-", "at2po - std", "turn", "ppo 0.003/0.004", "sequence_mean", "-"),
    "tree_rl": ("tree_rl", "-", "tree_rl - none", "token", "ppo 0.2/0.2", "sequence_mean", "-"),
    "tree_po": ("spo", "-", "tree_po - std", "token", "ppo 0.2/0.28", "token_mean", "-"),
    "spo": ("spo", "-", "spo - none", "token", "ppo 0.2/0.2", "token_mean", "-"),
}  # fmt: skip


def test_every_preset_has_its_row() -> None:
    assert TABLE.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_says_what_its_row_says_and_survives_a_dump(name: str, tmp_path: Path) -> None:
    recipe = load(written(tmp_path, name))
    assert row(recipe) == TABLE[name]
    again = tmp_path / "again.yaml"
    again.write_text(dump(recipe))
    assert load(again) == recipe


def test_numbers_that_the_table_has_no_column_for(tmp_path: Path) -> None:
    def of(name: str) -> Recipe:
        return load(written(tmp_path, name))

    assert of("dr_grpo").learner.loss.constant == 3000.0
    assert of("cppo").filters[0].prune == 0.5
    assert of("raft").credit.worth == of("raft_pp").credit.worth == "one"
    assert of("reinforce").credit.worth == of("reinforce_rej").credit.worth == "return"
    gigpo = of("gigpo").credit
    assert (gigpo.gamma, gigpo.omega) == (0.95, 1.0)
    tree = of("tree_grpo").sampler
    assert (tree.trees, tree.expansions, tree.rounds, tree.trajectories) == (2, 2, 1, 6)
    grown = of("at2po").sampler
    assert (grown.initial, grown.expansions, grown.rounds, grown.trajectories) == (10, 6, 2, 22)
    forked = of("tree_rl").sampler
    assert (forked.trees, forked.expansions, forked.continuations, forked.rounds) == (6, 2, 2, 1)
    assert forked.trajectories == 30
    assert of("spo").sampler.widths == (6, 6, 6)
    ppo, vagen, ufo = of("ppo"), of("vagen").credit, of("ufo")
    assert (ppo.credit.gamma, ppo.credit.lam, ppo.credit.whiten) == (1.0, 0.95, True)
    assert (vagen.gamma, vagen.gamma_turn, vagen.lam) == (1.0, 0.95, 1.0)
    assert (ufo.credit.gamma, ufo.credit.lam, ufo.learner.loss.entropy) == (1.0, 1.0, 0.001)
    assert ufo.filters[0].keep == 0.25
    assert ufo.env.args["wrappers"] == [{"type": "try_again"}]
    assert {one.learner.critic.trunk for one in (ppo, of("vagen"), ufo)} == {"own"}
    dapo = of("dapo")
    assert (dapo.train.refill, dapo.credit.truncated) == (9, "mask"), "ten rounds in all"
    assert (dapo.train.overlong.length, dapo.train.overlong.buffer) == (20480, 4096)
    assert dapo.train.overlong.penalty == 1.0 and dapo.learner.loss.dual_clip is None
    assert of("ghpo").train.hints == (0.25, 0.5, 0.75)
    assert of("arpo_replay").train.replay.capacity == 8
    assert of("arpo_replay").learner.loss.dual_clip == 3.0
    eepo = of("eepo").sampler
    assert (eepo.entropy_below, eepo.window, eepo.rate) == (0.3, 3, 3e-3)
    aepo = of("aepo")
    assert aepo.learner.loss.entropy_balanced and aepo.learner.entropy_control.alpha == 0.2
    assert (aepo.sampler.trajectories, aepo.sampler.initial) == (12, None)
    for name in ("clip_cov", "kl_cov"):
        assert of(name).learner.entropy_control.fraction == 2e-4


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_described_and_sets_no_size_of_the_run(name: str) -> None:
    preset = PRESETS[name]
    assert preset.about and len(preset.about) < 120 and preset.source
    assert preset.settings.keys() <= {
        "sampler",
        "credit",
        "learner",
        "filters",
        "train",
        "env",
    }
    assert "optimizer" not in preset.settings["learner"]


def test_the_recipe_stands_above_its_preset(tmp_path: Path) -> None:
    more = "learner:\n  loss: {clip_high: 0.3}\n  optimizer: {betas: [0.9, 0.95]}\n"
    loaded = load_with_source(written(tmp_path, "cppo", more), ["learner.loss.kl=0.0"])
    loss = loaded.recipe.learner.loss
    assert (loss.clip_low, loss.clip_high, loss.kl) == (0.2, 0.3, 0.0)
    assert loaded.recipe.sampler.trajectories == 16
    origin = loaded.source.origin
    assert origin(("learner", "loss", "clip_high")).endswith("x.yaml:6")
    assert origin(("learner", "loss", "clip_low")) == "preset cppo (arXiv:2503.22342)"
    assert origin(("sampler", "trajectories")) == "preset cppo (arXiv:2503.22342)"
    assert origin(("learner", "loss", "kl")) == "override learner.loss.kl=0.0"


def test_a_section_of_another_type_is_the_recipes_alone() -> None:
    own = {"preset": "cppo", "credit": {"type": "rloo"}, "learner": {"loss": {"type": "sapo"}}}
    data, places = with_preset(own)
    assert data["credit"] == {"type": "rloo"}
    assert data["learner"] == {"loss": {"type": "sapo"}}
    assert data["filters"] == [{"type": "top_advantage", "prune": 0.5}]
    assert places == [("sampler",), ("filters",)]
    assert own.keys() == {"preset", "credit", "learner"}, "nothing is changed in place"


def test_an_optional_section_can_be_taken_out(tmp_path: Path) -> None:
    path = written(tmp_path, "rloo", "learner: {kl_in_reward: null}\n")
    assert load(path).learner.kl_in_reward is None


def test_a_preset_is_an_override_too(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(HEAD)
    assert load(path, ["preset=gspo"]).learner.loss.level == "sequence"


def test_a_name_that_is_none_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(written(tmp_path, "gropo"))
    found = str(caught.value)
    assert "x.yaml:4: preset: no preset is named 'gropo'. Did you mean 'grpo'? Known: " in found


def test_a_dictionary_needs_its_presets_settings() -> None:
    data = {"name": "x", "preset": "gspo", "env": {"id": "e"}, "policy": {"model": "m"}}
    with pytest.raises(ValidationError, match="the settings of preset 'gspo' are not there"):
        Recipe.model_validate(data)
    assert Recipe.model_validate(with_preset(data)[0]).learner.loss.level == "sequence"


def test_the_command_lists_them() -> None:
    result = CliRunner().invoke(app, ["recipe", "presets"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(PRESETS)
    assert all(preset.source in result.stdout for preset in PRESETS.values())
