"""Corrections, penalties and entropy control that would do nothing beside the rest of a recipe."""

from __future__ import annotations

from collections.abc import Iterator

from agentrl.credit import ReinforceCredit
from agentrl.recipe.messages import Problem
from agentrl.recipe.schema import Recipe

_OF_SAMPLES = ("kl_in_reward", "correction", "entropy_control")


def look_problems(recipe: Recipe) -> Iterator[Problem]:
    """What is wrong with these settings of `learner` for reinforcement learning."""
    credit = recipe.credit
    blind = isinstance(credit, ReinforceCredit) and credit.worth == "one"
    if blind and recipe.learner.kl_in_reward is not None:
        yield Problem(
            ("learner", "kl_in_reward"),
            "learner.kl_in_reward: credit 'reinforce' with worth 'one' does not look at rewards, "
            "so a penalty in them does nothing. Use learner.loss.kl.",
        )


def imitation_problems(recipe: Recipe) -> Iterator[Problem]:
    """What imitation cannot have: what is about tokens that the policy itself sampled."""
    for key in _OF_SAMPLES:
        if getattr(recipe.learner, key) is not None:
            yield Problem(
                ("learner", key),
                f"learner.{key}: `agentrl sft` imitates demonstrations, which no policy sampled. "
                "Leave it out here.",
            )
