"""An update with a loss whose ratio is of a turn or a trajectory: two passes over its rows."""

from __future__ import annotations

import numpy as np

from agentrl.core.errors import ContractError
from agentrl.credit.groups import Grain
from agentrl.learner.base import PolicyLearner
from agentrl.learner.batch import gather, scatter
from agentrl.learner.levels import Evaluated, level_loss
from agentrl.learner.loss_settings import AnyLoss
from agentrl.trainer.batches import TrainingStep


def two_pass_update(
    learner: PolicyLearner,
    step: TrainingStep,
    loss: AnyLoss,
    grain: Grain,
    *,
    kl: float | None = None,
) -> dict[str, float]:
    """One update of `learner` on `step`: its log-probabilities first, then the exact gradient.

    Returns what `PolicyLearner.update` does, with the loss and the clipped shares of `loss`; `kl`
    is that of `PolicyLearner.update`. Raises ContractError where the loss has one advantage a
    trajectory and the credit has not, which a recipe's check refuses.
    """
    if loss.one_advantage and grain != "trajectory":
        raise ContractError(
            f"loss {loss.type!r} has one advantage for a whole trajectory, and the credit has one "
            f"for each {grain}. Use type 'ppo' with level 'turn' or 'token'"
        )
    rows, denominator = step.batch.rows, step.batch.denominator
    tokens = int(step.table.tokens.sum())
    found = level_loss(
        loss,
        Evaluated(
            table=step.table,
            credit=step.credit,
            advantage=step.advantage,
            weights=step.weights,
            logprobs=gather(rows, learner.logprobs(rows), tokens),
            behavior=gather(rows, [row.behavior_logprobs for row in rows], tokens),
            denominator=denominator,
            grain=grain,
        ),
    )
    trained = scatter(
        rows, positive=np.maximum(found.gain, 0.0), negative=np.minimum(found.gain, 0.0)
    )
    metrics = learner.update(trained, denominator, kl=kl)
    # The second pass's own policy term has the value 0: what it reports is penalty and bonus.
    metrics["train/loss"] += found.loss / denominator
    return metrics | found.metrics
