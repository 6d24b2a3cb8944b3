"""From the groups of an iteration to the batches of its optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentrl.core.types import Group
from agentrl.credit import AnyCredit
from agentrl.credit.aggregate import Assigned, assign
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.table import Credit, TurnTable
from agentrl.learner.batch import Batch
from agentrl.learner.packing import pack_groups, split_groups
from agentrl.learner.settings import LossSettings


class TrainingStep(NamedTuple):
    """One optimizer step: the groups it trains on, their credit and the packed batch."""

    groups: Sequence[Group]
    credit: Credit
    batch: Batch


def training_steps(
    groups: Sequence[Group],
    estimator: AnyCredit,
    loss: LossSettings,
    *,
    pack_tokens: int,
    updates: int,
) -> list[TrainingStep]:
    """`groups` in at most `updates` parts of whole groups, each with its own denominator.

    Groups that train nothing are left out; where none trains, there is no step.
    """
    steps = []
    for part in split_groups(groups, estimator, n=updates):
        table = TurnTable.of(part)
        assigned = assign(table, estimator, aggregation=loss.aggregation, constant=loss.constant)
        batch = pack_groups(
            part,
            table,
            _with_effect(assigned.credit, loss),
            denominator=assigned.denominator,
            pack_tokens=pack_tokens,
        )
        steps.append(TrainingStep(part, assigned.credit, batch))
    return steps


def whole_credit(groups: Sequence[Group], estimator: AnyCredit, loss: LossSettings) -> Assigned:
    """Credit of every turn of `groups`, rows of `TurnTable.of(groups)`, as the steps train it.

    Groups are compared within themselves and a row's weight knows its own trajectory only, so the
    split into steps, which changes the denominators, does not change it.
    """
    table = TurnTable.of(groups)
    return assign(table, estimator, loss.aggregation, loss.constant)


def _with_effect(credit: Credit, loss: LossSettings) -> Credit:
    """`credit` without the turns that cannot move a weight: no advantage, and no other term.

    The denominator counts them all the same, so the gradient is the same for less work.
    """
    if loss.kl > 0 or loss.entropy > 0:
        return credit
    idle = (credit.positive == 0.0) & (credit.negative == 0.0)
    return Credit(credit.positive, credit.negative, np.where(idle, 0.0, credit.weight))


def comparison_metrics(leaves: LeafAdvantages) -> dict[str, float]:
    """What of an iteration's trajectories could not be compared, or was all the same."""
    return {
        "credit/groups_dropped": float(leaves.groups_dropped),
        "credit/groups_equal": float(leaves.groups_equal),
        "credit/leaves_unscored": float(leaves.leaves_unscored),
    }


def credit_metrics(steps: Sequence[TrainingStep]) -> dict[str, float]:
    """`credit/...` metrics over all steps of an iteration."""
    if not steps:
        return {"credit/trained_turns": 0.0}
    positive = np.concatenate([step.credit.positive for step in steps])
    negative = np.concatenate([step.credit.negative for step in steps])
    weight = np.concatenate([step.credit.weight for step in steps])
    trained = weight > 0
    worth = np.divide(positive + negative, weight, out=np.zeros_like(weight), where=trained)
    return {
        "credit/trained_turns": float(trained.sum()),
        "credit/signal_fraction": float(np.mean(worth[trained] != 0.0)) if trained.any() else 0.0,
        "credit/absolute_mean": float(np.abs(worth[trained]).mean()) if trained.any() else 0.0,
        "credit/shared_turns": float((weight > 1).sum()),
    }
