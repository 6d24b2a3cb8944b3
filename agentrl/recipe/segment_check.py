"""What cannot work where turns fork in the middle: what is about whole turns."""

from __future__ import annotations

from collections.abc import Iterator

from agentrl.credit import ReinforcePPCredit
from agentrl.learner.loss_settings import PpoLoss
from agentrl.recipe.messages import Problem
from agentrl.recipe.schema import Recipe

_AFTER_OBSERVATIONS = ("arpo", "arpo_released", "aepo")
"""Samplers that measure how sure the policy is of a turn's first tokens."""
_OF_TURNS = ("turn_grpo", "mt_grpo", "gigpo", "hgpo", "turn_gae", "bilevel_gae")
"""Credit that compares, numbers or discounts turns."""


def segment_problems(recipe: Recipe) -> Iterator[Problem]:
    """What is wrong with `rollout.sampling.segment_tokens` beside the rest of `recipe`.

    Sampler `tree_rl` makes segments of its own.
    """
    tokens = recipe.rollout.sampling.segment_tokens
    if tokens is not None:
        yield from _sampling(recipe, tokens)
        yield from _of_turns(
            recipe,
            "rollout.sampling.segment_tokens makes several nodes of one. Leave that out",
        )
    elif recipe.sampler.type == "tree_rl":
        yield from _of_turns(
            recipe, "sampler 'tree_rl' makes several nodes of one. Use sampler 'tree'"
        )


def _sampling(recipe: Recipe, tokens: int) -> Iterator[Problem]:
    longest, sampler = recipe.rollout.sampling.max_tokens_per_turn, recipe.sampler
    place = ("rollout", "sampling", "segment_tokens")
    if tokens >= longest:
        yield Problem(
            place,
            f"rollout.sampling.segment_tokens: {tokens} tokens cut no action, since none is longer "
            f"than max_tokens_per_turn = {longest}. Use fewer, or leave it out.",
        )
    if not sampler.needs_fork:
        yield Problem(
            place,
            f"rollout.sampling.segment_tokens: sampler {sampler.type!r} never forks, so segments "
            "would only cost requests. Leave it out, or use 'spo', 'tree', 'at2po' or 'mcts'.",
        )
    if sampler.type in _AFTER_OBSERVATIONS:
        yield Problem(
            ("sampler", "type"),
            f"sampler.type: {sampler.type!r} forks by how sure the policy is after an observation, "
            "and a segment follows none. Use 'spo', 'tree', 'at2po' or 'mcts', or leave out "
            "rollout.sampling.segment_tokens.",
        )
    if sampler.type == "tree_rl":
        yield Problem(
            place,
            "rollout.sampling.segment_tokens: sampler 'tree_rl' forks at tokens, wherever they "
            "stand, so segments would only cost requests. Leave it out.",
        )


def _of_turns(recipe: Recipe, why: str) -> Iterator[Problem]:
    credit, loss = recipe.credit, recipe.learner.loss
    discounts = isinstance(credit, ReinforcePPCredit) and credit.gamma < 1.0
    if credit.type in _OF_TURNS or discounts:
        named = ("credit", "gamma") if discounts else ("credit", "type")
        said = "gamma counts turns" if discounts else f"{credit.type!r} is about whole turns"
        yield Problem(
            named,
            f"{'.'.join(named)}: {said}, and {why}, or use credit that compares trajectories or "
            "subtrees (grpo, tree_po, tree_rl or spo, for example).",
        )
    if loss.aggregation in ("turn_mean", "turn_sum"):
        yield Problem(
            ("learner", "loss", "aggregation"),
            f"learner.loss.aggregation: {loss.aggregation!r} counts whole turns, and {why}, or use "
            "'token_mean'.",
        )
    if isinstance(loss, PpoLoss) and loss.level == "turn":
        yield Problem(
            ("learner", "loss", "level"),
            f"learner.loss.level: 'turn' takes one ratio for a whole turn, and {why}, or use level "
            "'token'.",
        )
