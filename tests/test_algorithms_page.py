"""`docs/algorithms.md` is made from the code: each method's own words, recipes and measured curve.

`python tests/test_algorithms_page.py --write` writes the page anew.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any, get_args

import numpy as np
import yaml

from agentrl.core.hints import Hints
from agentrl.core.settings import Settings
from agentrl.core.try_again import TryAgain
from agentrl.credit import AnyCredit
from agentrl.filters import AnyFilter
from agentrl.learner.correction import AnyCorrection
from agentrl.learner.entropy_control import AnyEntropyControl
from agentrl.learner.kl_reward import KlInReward
from agentrl.learner.loss_settings import AnyLoss, LossSettings
from agentrl.recipe.presets import PRESETS, with_preset
from agentrl.recipe.selection import CurriculumSettings, OverlongSettings, ReplaySettings
from agentrl.samplers import AnySampler

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "algorithms.md"
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
CURVES = sorted((ROOT / "docs" / "curves").glob("*.json"))

CHOOSING = """\
Which tasks are played, which groups take part in an update and with what: the keys `refill` and
`hints` and the sections below, all in `train` ([filters.md](filters.md)).
"""
CHOSEN_BY = {
    "curriculum": CurriculumSettings,
    "replay": ReplaySettings,
    "overlong": OverlongSettings,
}

PLACES = {
    "loss": "learner.loss",
    "correction": "learner.correction",
    "entropy_control": "learner.entropy_control",
}
"""Keys of the sections that are not at the top of a recipe."""

_FEW = 6
"""Recipes of one method that are named one by one."""

CORRECTIONS = Annotated[AnyCorrection, "as the other unions"]
CONTROLS = Annotated[AnyEntropyControl, "as the other unions"]

CORRECTING = """\
The engine's log-probabilities are those of the policy that sampled: of other kernels, another
precision or an older version than the learner's. Without a correction the ratio of the loss is
taken against them as they are, and PPO's clip bounds what they do; that is right for an engine that
agrees with the learner, and at a lag of a version or two (`train.max_lag`). With one the learner
evaluates the tokens once before the first update of an iteration, the ratio is taken against that,
and what the engine's were is made up for by a weight outside of the clip. For samples that are
stale, or an engine of another precision, `tis` is the one to begin with: it keeps the clip for the
updates of the iteration alone. `correction/...` in the metrics says how far the two are apart.
"""

PRESETTING = """\
`preset: NAME` lays a published algorithm under a recipe: what the recipe says itself stands above
it, key by key, and a section for which it names another `type` is its own alone. `agentrl recipe
show` says where each value comes from, `agentrl recipe presets` lists the names. Sizes of a run
(tasks, learning rate, limits) are no part of a preset.
"""

INTRO = """\
# Catalogue of algorithms

What a recipe chooses between, in the words of the code: definition, source, where the sources leave
room, the shipped recipes that use it, and what was measured with it. Made by
`tests/test_algorithms_page.py` (`--write`). [choose_an_algorithm.md](choose_an_algorithm.md) says
where to begin, [add_an_algorithm.md](add_an_algorithm.md) how a method gets here,
[recipes.md](recipes.md) has every key with its default.
"""


def page() -> str:
    """The whole page."""
    parts = [INTRO, "## Samplers", _first(AnySampler, "sampler"), *_methods(AnySampler, "sampler")]
    parts += ["## Credit", _first(AnyCredit, "credit"), *_methods(AnyCredit, "credit")]
    parts += ["## Filters", _first(AnyFilter, "filters"), *_methods(AnyFilter, "filters")]
    parts += ["## Loss", _first(AnyLoss, "loss"), _words(LossSettings)]
    parts += [*_methods(AnyLoss, "loss"), "## Corrections", CORRECTING]
    parts += [_first(CORRECTIONS, "correction"), *_methods(CORRECTIONS, "correction")]
    parts += ["## KL in the reward", _words(KlInReward), "## Entropy control"]
    parts += [_first(CONTROLS, "entropy_control"), *_methods(CONTROLS, "entropy_control")]
    parts += ["## Presets", PRESETTING, *_presets(), "## Tasks and groups", CHOOSING]
    for key, cls in CHOSEN_BY.items():
        parts += [f"### train.{key}", _words(cls)]
    parts += ["## Wrappers", "### try_again", _words(TryAgain), "### hints", _words(Hints)]
    parts += ["## Measured", *_measured()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _members(union: object) -> tuple[type[Settings], ...]:
    return get_args(get_args(union)[0])


def _type(cls: type[Settings]) -> str:
    return str(cls.model_fields["type"].default)


def _first(union: object, section: str) -> str:
    names = ", ".join(f"[`{_type(cls)}`](#{section}-{_type(cls)})" for cls in _members(union))
    if section == "filters":
        return f"`filters: [{{type: ...}}]` is a list of {names}, applied in turn."
    return f"`{PLACES.get(section, section)}: {{type: ...}}` is one of {names}."


def _methods(union: object, section: str) -> Iterator[str]:
    for cls in _members(union):
        name = _type(cls)
        yield f"### {section} {name}"
        yield _words(cls)
        used = [path.stem for path in RECIPES if name in _chosen(_data(path), section)]
        source = inspect.getsourcefile(cls)
        assert source is not None
        file = Path(source).relative_to(ROOT)
        shown = ", ".join(f"[{one}](../recipes/{one}.yaml)" for one in used) or "none yet"
        if len(used) > _FEW:
            shown = f"{len(used)} ([methods_on_search.md](methods_on_search.md))"
        yield f"Code: [{file}](../{file}).{_of_presets(name, section)} Recipes: {shown}."


def _of_presets(name: str, section: str) -> str:
    """The presets that choose `name`."""
    used = [one for one in PRESETS if name in _chosen(PRESETS[one].settings, section)]
    if len(used) > len(PRESETS) / 2:
        return " Presets: most."
    return f" Presets: {', '.join(f'`{one}`' for one in used)}." if used else ""


def _data(recipe: Path) -> Mapping[str, Any]:
    """What `recipe` says, its preset below it."""
    return with_preset(yaml.safe_load(recipe.read_text()))[0]


def _chosen(recipe: Mapping[str, Any], section: str) -> list[str | None]:
    """The types that `recipe` names in a section; without a word the loss is PPO's."""
    found: Any = recipe
    for key in PLACES.get(section, section).split("."):
        found = found.get(key) or {}
    listed = found if isinstance(found, list) else [found]
    return [one.get("type", "ppo" if section == "loss" else None) for one in listed]


def _words(cls: type) -> str:
    """The docstring, whose indented formulas become blocks."""
    text = inspect.cleandoc(cls.__doc__ or "")
    return re.sub(
        r"(?:^ {4,}\S.*\n?)+",
        lambda found: "```text\n" + inspect.cleandoc("\n" + found[0]) + "\n```\n",
        text,
        flags=re.MULTILINE,
    )


def _presets() -> Iterator[str]:
    rows = ["| preset | what | sets |", "| --- | --- | --- |"]
    for name, preset in PRESETS.items():
        data = yaml.safe_dump(preset.settings, default_flow_style=True, sort_keys=False, width=9999)
        rows.append(f"| `{name}` | {preset.about} ({preset.source}) | `{data.strip()}` |")
    yield "\n".join(rows)


def _measured() -> Iterator[str]:
    yield (
        "Mean ± standard deviation over seeds, at shares of the budget of generated tokens that "
        "every run had; the last column of each table is the control. Data: `docs/curves/`, from "
        "`benchmarks/samplers.py` and (trees) `benchmarks/methods.py`. What can be concluded, and "
        "what not: [arpo_and_grpo.md](arpo_and_grpo.md), [envs/code.md](envs/code.md), "
        "[methods_on_search.md](methods_on_search.md), which has every other method too."
    )
    for path in CURVES:
        runs = json.loads(path.read_text())
        budget = min(run["tokens"][-1] for seeds in runs.values() for run in seeds)
        rows = [f"| tokens | {' | '.join(runs)} |", "| --- " * (len(runs) + 1) + "|"]
        for share in (0.0, 0.25, 0.5, 1.0):
            cells = [
                _spread([float(np.interp(share * budget, r["tokens"], r["accuracy"])) for r in s])
                for s in runs.values()
            ]
            rows.append(f"| {share * budget:,.0f} | {' | '.join(cells)} |")
        yield f"### {path.stem}"
        yield f"![Score against generated tokens](images/curve_{path.stem}.svg)"
        yield "\n".join(rows)


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"


def test_the_catalogue_says_what_the_code_says():
    found = PAGE.read_text()
    assert found == page(), "run `python tests/test_algorithms_page.py --write`"


def test_the_guide_knows_every_sampler_and_names_presets_that_exist():
    guide = (ROOT / "docs" / "choose_an_algorithm.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`\]\(algorithms.md#sampler-(\w+)\)", guide, re.MULTILINE)
    assert rows == [(_type(cls), _type(cls)) for cls in _members(AnySampler)]
    listed = re.findall(r"preset ((?:`\w+`(?:, | or | and )?)+)", guide)
    named = {name for words in listed for name in re.findall(r"`(\w+)`", words)}
    assert len(named) > 15 and named <= PRESETS.keys()


def test_every_method_names_its_source():
    unions = (AnySampler, AnyCredit, AnyFilter, AnyLoss)
    for cls in (cls for union in unions for cls in _members(union)):
        if _type(cls) not in ("chain", "reinforce"):
            assert re.search(r"arXiv:\d{4}\.\d{4,5}", cls.__doc__ or ""), cls.__name__


if __name__ == "__main__":
    assert sys.argv[1:] == ["--write"], __doc__
    PAGE.write_text(page())
