"""Losses that cannot work with the recipe's credit, sampler or filters, found when it is read."""

from __future__ import annotations

from collections.abc import Iterator

from agentrl.learner.loss_settings import GvpoLoss, PpoLoss
from agentrl.recipe.messages import Problem
from agentrl.recipe.schema import Recipe

_OF_WHOLE_GROUPS = ("not_constant", "mean_range")
"""Filters that take a group as it is or not at all."""


def loss_problems(recipe: Recipe) -> Iterator[Problem]:
    """What is wrong with `learner.loss` beside the rest of `recipe`."""
    loss, credit = recipe.learner.loss, recipe.credit
    named, method = f"'{loss.type}'", repr(credit.type)
    place: tuple[str, ...] = ("learner", "loss", "type")
    by_copy = credit.grain == "copy" and recipe.sampler.needs_fork
    if isinstance(loss, PpoLoss):
        place, named = ("learner", "loss", "level"), f"'{loss.level}'"
    if loss.one_advantage and credit.grain != "trajectory":
        instead = "'turn'" if by_copy else "'sequence_token' (GSPO-token) or 'turn'"
        yield Problem(
            place,
            f"{'.'.join(place)}: {named} has one advantage for a whole trajectory, and credit "
            f"{method} gives its turns advantages of their own. Use type 'ppo' with level "
            f"{instead}, or another credit method.",
        )
    elif isinstance(loss, PpoLoss) and loss.level == "sequence_token" and by_copy:
        yield Problem(
            place,
            f"{'.'.join(place)}: {named} cannot tell apart the advantages that credit {method} "
            "gives to the copies of a turn that several trajectories share, and sampler "
            f"{recipe.sampler.type!r} branches. Use level 'turn', or sampler 'chain'.",
        )
    if isinstance(loss, GvpoLoss):
        yield from _regression(recipe)


def _regression(recipe: Recipe) -> Iterator[Problem]:
    if recipe.learner.correction is not None:
        yield Problem(
            ("learner", "correction"),
            "learner.correction: loss 'gvpo' holds whichever policy sampled, so there is nothing "
            "to correct. Leave it out.",
        )
    parting = [one.type for one in recipe.filters if one.type not in _OF_WHOLE_GROUPS]
    if parting:
        yield Problem(
            ("filters",),
            f"filters: {parting[0]!r} takes trajectories out of their groups, and loss 'gvpo' is "
            "a regression over whole groups. Leave it out, or use another loss.",
        )
