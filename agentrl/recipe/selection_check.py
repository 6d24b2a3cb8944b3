"""What is wrong between a recipe's filters and what `train` says about tasks and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentrl.filters import TopAdvantageFilter
from agentrl.recipe.messages import Problem
from agentrl.recipe.schema import Recipe


def selection_problems(recipe: Recipe) -> Iterator[Problem]:
    """Filters, refill, replay, hints and prices that cannot do what they are for."""
    train, count = recipe.train, recipe.sampler.trajectories
    for index, one in enumerate(recipe.filters):
        place = ("filters", str(index))
        if isinstance(one, TopAdvantageFilter) and one.kept_of(count) < 1:
            yield Problem(
                (*place, "prune"),
                f"filters.{index}.prune: of {count} trajectories {one.prune:g} is all of them. Use "
                f"at most {1 - 1 / count:g}, or more sampler.trajectories.",
            )
        if one.type in ("not_constant", "widest") and count == 1:
            yield Problem(
                (*place, "type"),
                f"filters.{index}.type: a group of one trajectory is always constant, so nothing "
                "would train. Use 2 or more sampler.trajectories, or another filter.",
            )
    choosy = [one for one in recipe.filters if one.type != "top_advantage"]
    if train.refill and not choosy:
        yield Problem(
            ("train", "refill"),
            "train.refill: no filter takes whole groups out, so nothing is ever sampled in their "
            "place. Add `filters: [{type: not_constant}]`.",
        )
    if train.hints and not _has_hints(recipe):
        yield Problem(
            ("train", "hints"),
            "train.hints: the environment has no wrapper that gives any. Add "
            "`env.wrappers: [{type: hints}]`.",
        )
    judges = [
        name
        for name, used in (
            ("filters", choosy),
            ("train.curriculum", train.curriculum),
            ("train.replay", train.replay),
            ("train.hints", train.hints),
        )
        if used
    ]
    if train.overlong and recipe.eval.score == "reward" and judges:
        yield Problem(
            ("eval", "score"),
            f"eval.score: {', '.join(judges)} would judge by the whole reward, the price of "
            "train.overlong included, which tells equally right answers apart. Name the component "
            "that says what is right.",
        )


def _has_hints(recipe: Recipe) -> bool:
    wrappers = recipe.env.args.get("wrappers") or ()
    return any(isinstance(one, Mapping) and one.get("type") == "hints" for one in wrappers)
