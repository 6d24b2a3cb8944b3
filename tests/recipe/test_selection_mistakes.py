"""What is said of filters, refill, replay, hints and prices that cannot do what they are for."""

from __future__ import annotations

import pytest

from agentrl.core.errors import RecipeError
from agentrl.recipe.load import load

CASES = {
    "pruning all": (
        ["filters=[{type: not_constant}, {type: top_advantage, prune: 0.95}]"],
        "filters.1.prune: of 16 trajectories 0.95 is all of them. Use at most 0.9375, or more "
        "sampler.trajectories.",
    ),
    "a group of one": (
        [
            "filters=[{type: not_constant}]",
            "sampler={type: chain, trajectories: 1}",
            "credit={type: reinforce_pp}",
        ],
        "filters.0.type: a group of one trajectory is always constant, so nothing would train. "
        "Use 2 or more sampler.trajectories, or another filter.",
    ),
    "the widest of groups of one": (
        [
            "filters=[{type: widest}]",
            "sampler={type: chain, trajectories: 1}",
            "credit={type: reinforce_pp}",
        ],
        "filters.0.type: a group of one trajectory is always constant, so nothing would train. "
        "Use 2 or more sampler.trajectories, or another filter.",
    ),
    "refill without a filter": (
        ["train.refill=3", "filters=[{type: top_advantage}]"],
        "train.refill: no filter takes whole groups out, so nothing is ever sampled in their "
        "place. Add `filters: [{type: not_constant}]`.",
    ),
    "hints without a wrapper": (
        ["train.hints=[0.5]", "env.wrappers=[{type: turn_limit, max_turns: 3}]"],
        "train.hints: the environment has no wrapper that gives any. Add `env.wrappers: [{type: "
        "hints}]`.",
    ),
    "hints that do not grow": (
        ["train.hints=[0.5, 0.25]", "env.wrappers=[{type: hints}]"],
        "train: hints = [0.5, 0.25] must be growing shares between 0 and 1, as in [0.25, 0.5, "
        "0.75].",
    ),
    "a price that the score sees": (
        [
            "eval.score=reward",
            "train.overlong={length: 100, buffer: 10}",
            "filters=[{type: not_constant}]",
            "train.replay={}",
        ],
        "eval.score: filters, train.replay would judge by the whole reward, the price of "
        "train.overlong included, which tells equally right answers apart. Name the component "
        "that says what is right.",
    ),
    "a buffer that is too long": (
        ["train.overlong={length: 10, buffer: 11}"],
        "train.overlong: buffer = 11 tokens are more than length = 10.",
    ),
}

GOOD = [
    ["filters=[{type: top_advantage, prune: 0.9375}]"],
    ["filters=[{type: not_constant}]", "train.refill=3"],
    ["train.hints=[0.25, 0.5, 0.75]", "env.wrappers=[{type: hints}]"],
    ["train.overlong={length: 100, buffer: 10}", "eval.score=reward"],
    ["train.overlong={length: 100, buffer: 100}", "filters=[{type: best}]", "train.replay={}"],
]


@pytest.mark.parametrize("name", CASES)
def test_a_combination_that_cannot_work_is_refused(name: str) -> None:
    overrides, said = CASES[name]
    with pytest.raises(RecipeError) as caught:
        load("grpo_search", ["sampler={type: chain, trajectories: 16}", *overrides])
    assert said in str(caught.value)


@pytest.mark.parametrize("overrides", GOOD, ids=lambda one: one[0][:30])
def test_its_neighbours_that_work_load(overrides: list[str]) -> None:
    recipe = load("grpo_search", ["sampler={type: chain, trajectories: 16}", *overrides])
    written = recipe.model_dump()
    for key in (one.partition("=")[0] for one in overrides):
        section, _, name = key.partition(".")
        assert written[section].get(name) if name else written[section]
