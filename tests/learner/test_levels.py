"""Losses on turns and trajectories: by hand, against the published rows, finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from published_losses import flat_rows, published_loss

from agentrl.credit import ArpoCredit, GrpoCredit, TreeGrpoCredit, assign
from agentrl.credit.table import TurnTable
from agentrl.learner.levels import Evaluated, level_loss
from agentrl.learner.loss_settings import (
    GvpoLoss,
    LogclipLoss,
    LossSettings,
    PpoLoss,
    VespoLoss,
)
from agentrl.testing.trees import random_groups

LOSSES = {
    "gspo": PpoLoss(level="sequence", clip_low=0.01, clip_high=0.02, aggregation="sequence_mean"),
    "gspo dual": PpoLoss(level="sequence", clip_low=0.01, clip_high=0.02, dual_clip=1.05),
    "gspo balanced": PpoLoss(
        level="sequence", clip_low=0.01, clip_high=0.02, entropy_balanced=True
    ),
    "gspo-token": PpoLoss(level="sequence_token", clip_low=0.01, clip_high=0.02),
    "turn": PpoLoss(level="turn", clip_low=0.03, clip_high=0.04, dual_clip=1.15),
    "gmpo": LogclipLoss(clip_low=0.1, clip_high=0.15, aggregation="sequence_mean"),
    "gvpo": GvpoLoss(),
    "vespo": VespoLoss(aggregation="sequence_sum"),
}


def evaluated(
    groups, method, loss: LossSettings, *, seed: int = 0, spread: float = 0.2
) -> Evaluated:
    """All of `groups` as one step, the policy's log-probabilities around the behaviour's."""
    table = TurnTable.of(groups, with_tokens=True)
    assigned = assign(table, method, loss.aggregation, loss.constant)
    assert table.logprobs is not None
    behavior = table.logprobs.astype(np.float64)
    noise = np.random.default_rng(seed).normal(0.0, spread, len(behavior))
    return Evaluated(
        table=table,
        credit=assigned.credit,
        advantage=assigned.leaves.advantage,
        weights=assigned.rows.weights,
        logprobs=behavior + noise,
        behavior=behavior,
        denominator=assigned.denominator,
        grain=method.grain,
    )


def published(loss: LossSettings, step: Evaluated, advantage=None):
    """The published loss and its gradient (N,) on flattened rows."""
    rows = flat_rows(step.table, step.advantage if advantage is None else advantage, step.weights)
    logprobs = torch.tensor(step.logprobs, requires_grad=True)
    value = published_loss(
        loss, rows, logprobs, torch.tensor(step.behavior), denominator=step.denominator
    )
    (gradient,) = torch.autograd.grad(value, logprobs)
    return float(value.detach()), gradient.numpy()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("method", [GrpoCredit(), TreeGrpoCredit(), ArpoCredit()])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_of_a_tree_is_that_of_its_rows(name, method, seed):
    loss = LOSSES[name]
    step = evaluated(random_groups(seed, n_groups=6), method, loss, seed=seed)
    found = level_loss(loss, step)
    value, gradient = published(loss, step)
    assert np.abs(gradient).max() > 0
    assert found.loss / step.denominator == pytest.approx(value, rel=1e-10, abs=1e-12)
    np.testing.assert_allclose(-found.gain / step.denominator, gradient, rtol=1e-9, atol=1e-12)
