"""Every key of a recipe has its line, and `docs/recipes.md` shows them all.

`python tests/recipe/test_recipe_keys.py --write` writes the page anew.
"""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app
from agentrl.core.errors import RecipeError
from agentrl.recipe.keys import ABOUT, Key, Section, find_sections, sections, shown_sections

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"

INTRO = """\
# Every key of a recipe

A recipe is one YAML file; a section is a mapping inside of it (`train: {iterations: 40}`), and any
key can be set on the command line by its full name (`agentrl run arpo_search train.iterations=40`).
A key that has no default must be given; `none` is written `null`. `agentrl recipe show NAME` prints
a recipe with all its defaults, `agentrl recipe keys sampler` a part of this page, and
[mistakes.md](mistakes.md) what is said of a recipe that cannot work. This page is written by
`tests/recipe/test_recipe_keys.py --write`.

The keys of an environment stand in `env` beside `id`; they are its constructor's
([first_environment.md](first_environment.md)).
"""


def page() -> str:
    return "\n".join([INTRO, *(table(section) for section in shown_sections() if section.keys)])


def table(section: Section) -> str:
    rows = [
        f"| `{key.name}` | {key.takes} | {key.default and f'`{key.default}`'} | {key.about} |"
        for key in section.keys
    ]
    head = [
        f"## {section.title}",
        "",
        "| key | takes | default | what |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(row.replace("c·|A|", "c·\\|A\\|") for row in rows), ""])


def test_the_page_shows_every_key() -> None:
    assert PAGE.read_text() == page()


def test_every_key_has_its_line_and_every_line_its_key() -> None:
    keys = {key.name: key for section in sections() for key in section.keys}
    assert keys.keys() == ABOUT.keys()
    assert [name for name, key in keys.items() if not key.about] == []


def test_types_bounds_and_defaults_are_the_schemas() -> None:
    keys = {key.name: key[1:3] for section in sections() for key in section.keys}
    assert keys["train.iterations"] == ("integer ≥ 1", "100")
    assert keys["rollout.sampling.top_p"] == ("number > 0, ≤ 1", "1.0")
    assert keys["policy.model"] == ("text", "")
    assert keys["policy.new.width"] == ("integer ≥ 32, in 32s", "128")
    assert keys["policy.new"] == ("section", "none")
    assert keys["train.max_lag"] == ("integer ≥ 0", "0")
    assert keys["sampler.decision"] == ("threshold, bernoulli", "threshold")
    assert keys["eval.tasks"] == ("integer ≥ 1, or none", "none")
    assert keys["eval.at_start"] == ("true, false", "true")
    assert keys["learner.optimizer.betas"] == ("list of number and number", "[0.9, 0.999]")
    assert keys["learner.lora.targets"] == ("list of text, or none", "none")
    assert keys["learner.optimizer.learning_rate"] == ("number > 0", "1.0e-06")


def test_the_command_shows_a_section_or_one_key() -> None:
    shown = CliRunner().invoke(app, ["recipe", "keys", "train.iterations"])
    assert shown.exit_code == 0
    assert shown.stdout.split("\n") == [
        "train",
        "  train.iterations  integer ≥ 1, default 100",
        "    iterations of the run",
        "",
    ]
    whole = CliRunner().invoke(app, ["recipe", "keys"]).stdout
    assert all(f"  {name}  " in whole for name in ABOUT)
    arpo = CliRunner().invoke(app, ["recipe", "keys", "sampler"]).stdout
    assert "sampler, type: chain (the default)\n" in arpo and "sampler, type: arpo\n" in arpo


def test_what_all_types_have_alike_is_shown_once() -> None:
    shown = CliRunner().invoke(app, ["recipe", "keys", "learner.loss.kl"]).stdout
    assert shown.splitlines() == [
        "learner.loss, type: ppo, cispo, sapo, logclip, dppo, quadratic, gvpo, vespo, reinforce",
        "  learner.loss.kl  number ≥ 0, default 0.0",
        "    weight of the penalty against the reference; 0.0: no reference",
    ]
    everything = {(one.place, key) for one in sections() for key in one.keys}
    assert {(one.place, key) for one in shown_sections() for key in one.keys} == everything


def test_a_key_that_is_none_gets_the_nearest_one() -> None:
    assert find_sections("eval.tasks")[0].keys == (
        Key("eval.tasks", "integer ≥ 1, or none", "none", "the first so many of them; none: all"),
    )
    with pytest.raises(RecipeError) as caught:
        find_sections("train.iteration")
    assert str(caught.value) == (
        "a recipe has no section or key 'train.iteration'. Did you mean 'train.iterations'? "
        "`agentrl recipe keys` shows all."
    )


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/recipe/test_recipe_keys.py --write")
    PAGE.write_text(page())
