"""Losses that cannot work with the rest of a recipe are refused, saying what to do."""

from __future__ import annotations

import pytest

from agentrl.core.errors import RecipeError
from agentrl.recipe.load import load

GSPO = ("learner.loss={level: sequence, clip_low: 3.0e-4, clip_high: 4.0e-4}",)
TOKEN = ("learner.loss={level: sequence_token, clip_low: 3.0e-4, clip_high: 4.0e-4}",)
CHAIN = ("sampler={type: chain, trajectories: 8}",)
GIGPO = ("credit={type: gigpo}",)
GVPO = ("learner.loss={type: gvpo}", "credit={type: grpo, scale: none}")

REFUSED = {
    "one ratio and one advantage for turns that differ": (
        (*GSPO, *GIGPO, *CHAIN),
        "learner.loss.level: 'sequence' has one advantage for a whole trajectory, and credit "
        "'gigpo' gives its turns advantages of their own. Use type 'ppo' with level "
        "'sequence_token' (GSPO-token) or 'turn', or another credit method.",
    ),
    "the same where turns are shared": (
        (*GSPO, *GIGPO),
        "learner.loss.level: 'sequence' has one advantage for a whole trajectory, and credit "
        "'gigpo' gives its turns advantages of their own. Use type 'ppo' with level 'turn', or "
        "another credit method.",
    ),
    "a geometric mean for turns that differ": (
        ("learner.loss={type: logclip}", "credit={type: arpo, attribution: hard}"),
        "learner.loss.type: 'logclip' has one advantage for a whole trajectory, and credit "
        "'arpo' gives its turns advantages of their own. Use type 'ppo' with level "
        "'sequence_token' (GSPO-token) or 'turn', or another credit method.",
    ),
    "copies of a shared turn at the level of sequence tokens": (
        (*TOKEN, *GIGPO),
        "learner.loss.level: 'sequence_token' cannot tell apart the advantages that credit "
        "'gigpo' gives to the copies of a turn that several trajectories share, and sampler "
        "'arpo' branches. Use level 'turn', or sampler 'chain'.",
    ),
    "a regression under a correction": (
        (*GVPO, "learner.correction={type: tis}"),
        "learner.correction: loss 'gvpo' holds whichever policy sampled, so there is nothing to "
        "correct. Leave it out.",
    ),
    "a regression over parts of groups": (
        (*GVPO, "filters=[{type: best}]"),
        "filters: 'best' takes trajectories out of their groups, and loss 'gvpo' is a regression "
        "over whole groups. Leave it out, or use another loss.",
    ),
    "a range for tokens around a mean": (
        ("learner.loss={level: sequence}",),
        "learner.loss: a clip range of 0.28 stops nothing at level 'sequence', whose ratio is a "
        "mean over a whole trajectory; set clip_low: 3.0e-4 and clip_high: 4.0e-4 as GSPO does "
        "(at most 0.1).",
    ),
    "a key of another loss": (
        ("learner.loss={type: sapo, clip_low: 0.2}",),
        "unknown setting 'learner.loss.clip_low'.",
    ),
    "no loss": (
        ("learner.loss={type: pro}",),
        "learner.loss.type: no loss is named 'pro'. Did you mean 'ppo'? Known: ppo, cispo, sapo, "
        "logclip, dppo, quadratic, gvpo, vespo, reinforce.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_that_cannot_work_is_refused(name: str) -> None:
    overrides, expected = REFUSED[name]
    with pytest.raises(RecipeError) as caught:
        load("arpo_search", overrides)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        GSPO,
        (*TOKEN, *GIGPO, *CHAIN),
        (*TOKEN, "credit={type: arpo, attribution: hard}"),
        ("learner.loss={level: turn, clip_low: 3.0e-3, clip_high: 4.0e-3}", *GIGPO),
        ("learner.loss={type: cispo}", *GIGPO),
        ("learner.loss={type: logclip, aggregation: sequence_mean}",),
        (*GVPO, "filters=[{type: not_constant}]"),
    ],
)
def test_a_loss_that_can_work_is_not(overrides: tuple[str, ...]) -> None:
    loss = load("arpo_search", overrides).learner.loss
    assert loss.type in overrides[0] or loss.level in overrides[0]
