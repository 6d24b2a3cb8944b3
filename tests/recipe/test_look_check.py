"""Corrections, penalties and entropy control that could not work, each with its message."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl.core.errors import RecipeError
from agentrl.recipe.load import load

HEAD = "name: x\nenv: {id: demo/calculator}\npolicy: {model: tiny/search}\n"


def message(tmp_path: Path, text: str, *, purpose: str = "run") -> str:
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(RecipeError) as caught:
        load(path, purpose=purpose)
    return str(caught.value).removeprefix(f"{path}:")


def test_a_penalty_in_rewards_that_nobody_reads(tmp_path: Path) -> None:
    text = "preset: raft\nlearner: {kl_in_reward: {beta: 0.1}}\n"
    assert message(tmp_path, text) == (
        "5: learner.kl_in_reward: credit 'reinforce' with worth 'one' does not look at rewards, so "
        "a penalty in them does nothing. Use learner.loss.kl."
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("correction", "{type: tis}"),
        ("kl_in_reward", "{}"),
        ("entropy_control", "{type: top}"),
    ],
)
def test_imitation_has_nothing_that_the_policy_sampled(tmp_path: Path, key, value) -> None:
    found = message(tmp_path, f"sft: {{}}\nlearner: {{{key}: {value}}}\n", purpose="sft")
    assert found == (
        f"5: learner.{key}: `agentrl sft` imitates demonstrations, which no policy sampled. Leave "
        "it out here."
    )


def test_k1_is_no_term_of_the_loss(tmp_path: Path) -> None:
    found = message(tmp_path, "learner: {loss: {kl: 0.1, kl_estimator: k1}}\n")
    assert found == (
        "4: learner.loss.kl_estimator: 'k1' as a term of the loss has a gradient that is 0 on "
        "average, so it only adds noise. Use 'k3+' or 'k2', which have that of "
        "KL(policy ‖ reference), or charge k1 in the reward with learner.kl_in_reward."
    )


def test_a_controller_of_the_loss_needs_a_penalty(tmp_path: Path) -> None:
    found = message(tmp_path, "learner: {loss: {kl_target: 6.0}}\n")
    assert found == (
        "4: learner.loss: a controller multiplies kl, so from 0 it never leaves 0; start above "
        "it, or leave out the target."
    )


def test_a_correction_that_is_none_gets_the_nearest_one(tmp_path: Path) -> None:
    found = message(tmp_path, "learner: {correction: {type: icepopp}}\n")
    assert "learner.correction.type: no correction is named 'icepopp'. Did you mean 'icepop'?" in (
        found
    )


def test_a_controller_needs_a_start(tmp_path: Path) -> None:
    found = message(tmp_path, "learner: {entropy_control: {type: adaptive}}\n")
    assert "loss.entropy is 0.0: set it above 0, to 0.005 say." in found
