"""Two passes through the trainer: the second trains the exact gradient of the published loss."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from agentrl.core.errors import ContractError
from agentrl.core.types import Float32
from agentrl.credit import ArpoCredit, GigpoCredit, GrpoCredit
from agentrl.learner.batch import Row, gather
from agentrl.learner.loss_settings import (
    GvpoLoss,
    LogclipLoss,
    LossSettings,
    PpoLoss,
    QuadraticLoss,
    VespoLoss,
)
from agentrl.testing.trees import chains, random_groups
from agentrl.trainer.batches import credit_of, training_steps
from agentrl.trainer.two_pass import two_pass_update

sys.path.insert(0, str(Path(__file__).parents[1] / "learner"))
from published_losses import flat_rows, published_loss

GSPO = {"clip_low": 0.01, "clip_high": 0.02}


class NearLearner:
    """Says that each token is a little more or less probable than when it was sampled."""

    def __init__(self) -> None:
        self.rows: Sequence[Row] = ()

    def moved(self, row: Row) -> Float32:
        """The change of the log-probabilities (T,), which depends on the tokens alone."""
        return (0.3 * np.sin(row.token_ids * 7.0 + row.positions)).astype(np.float32)

    def logprobs(self, rows: Sequence[Row]) -> list[Float32]:
        return [
            np.where(row.weight != 0, row.behavior_logprobs + self.moved(row), 0.0) for row in rows
        ]

    def update(
        self, rows: Sequence[Row], denominator: float, *, kl: float | None = None
    ) -> dict[str, float]:
        self.rows = rows
        return {"train/loss": 0.25, "train/clip_fraction_low": 0.0, "train/updates": 1.0}


@pytest.mark.parametrize("pack_tokens", [1, 4096])
@pytest.mark.parametrize(
    ("loss", "method"),
    [
        (PpoLoss(level="sequence", aggregation="sequence_mean", **GSPO), GrpoCredit()),
        (PpoLoss(level="sequence", kl=0.1, **GSPO), GrpoCredit(truncated="mask")),
        (PpoLoss(level="turn", clip_low=0.1, clip_high=0.1), ArpoCredit()),
        (LogclipLoss(clip_low=0.2, clip_high=0.2), GrpoCredit()),
        (VespoLoss(), GrpoCredit()),
        (GvpoLoss(), GrpoCredit(scale="none")),
    ],
)
def test_each_step_trains_the_gradient_of_its_published_rows(loss, method, pack_tokens):
    groups = random_groups(5, n_groups=12)
    steps = training_steps(
        groups, credit_of(groups, method, loss), loss, pack_tokens=pack_tokens, updates=2
    )
    assert len(steps) == 2
    for step in steps:
        learner = NearLearner()
        found = two_pass_update(learner, step, loss, method.grain)
        # The same numbers for every token, whether its row was packed for this loss or not.
        everything = training_steps(
            step.groups,
            credit_of(step.groups, method, loss),
            QuadraticLoss(),
            pack_tokens=4096,
            updates=1,
        )[0].batch.rows
        tokens = int(step.table.tokens.sum())
        behavior = gather(everything, [row.behavior_logprobs for row in everything], tokens)
        now = gather(everything, learner.logprobs(everything), tokens)
        logprobs = torch.tensor(np.nan_to_num(now), requires_grad=True)
        value = published_loss(
            loss,
            flat_rows(step.table, step.advantage, step.weights),
            logprobs,
            torch.tensor(np.nan_to_num(behavior)),
            denominator=step.batch.denominator,
        )
        (gradient,) = torch.autograd.grad(value, logprobs)
        trained = gather(
            learner.rows, [row.positive + row.negative for row in learner.rows], tokens
        )
        gained = np.nan_to_num(trained) / step.batch.denominator
        np.testing.assert_allclose(-gained, gradient.numpy(), rtol=2e-6, atol=1e-8)
        assert found["train/loss"] == pytest.approx(0.25 + float(value.detach()), rel=1e-5)
        assert found["train/updates"] == 1.0
        assert ("train/clip_fraction_high" in found) == (loss.type in ("ppo", "logclip"))


def test_credit_of_turns_is_no_advantage_of_a_trajectory():
    loss, method = PpoLoss(level="sequence", **GSPO), GigpoCredit()
    groups = [chains([1.0, 0.0])]
    (step,) = training_steps(
        groups, credit_of(groups, method, loss), loss, pack_tokens=4096, updates=1
    )
    with pytest.raises(ContractError, match="one for each copy"):
        two_pass_update(NearLearner(), step, loss, method.grain)


def rows_of(loss: LossSettings, method) -> int:
    groups = [chains([1.0, 1.0]), chains([1.0, 0.0, 0.5])]
    credited = credit_of(groups, method, loss)
    steps = training_steps(groups, credited, loss, pack_tokens=4096, updates=1)
    return sum(row.trained_tokens for step in steps for row in step.batch.rows)


def test_only_what_can_move_a_weight_or_is_in_a_ratio_is_evaluated():
    """A pair of equals and three different ones of 2 tokens each, the middle with A = 0."""
    assert rows_of(PpoLoss(), GrpoCredit()) == 4
    assert rows_of(PpoLoss(level="sequence", **GSPO), GrpoCredit()) == 4
    assert rows_of(PpoLoss(level="turn"), GigpoCredit()) == 4
    # Here a trajectory without an advantage has a gradient too.
    assert rows_of(GvpoLoss(), GrpoCredit()) == 10
    assert rows_of(QuadraticLoss(), GrpoCredit()) == 10
    assert rows_of(PpoLoss(kl=0.1), GrpoCredit()) == 10
