"""From the groups of an iteration to the batches of its optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentrl.core.types import Float64, Group
from agentrl.credit import AnyCredit
from agentrl.credit.aggregate import Assigned, Filter, assign, denominator
from agentrl.credit.groups import LeafAdvantages
from agentrl.credit.subtree import Levels, at_leaves, subtree_sums
from agentrl.credit.table import Credit, TurnTable
from agentrl.learner.batch import Batch
from agentrl.learner.levels import needed_turns
from agentrl.learner.loss_settings import LossSettings
from agentrl.learner.packing import pack_groups, split_groups


class Credited(NamedTuple):
    """All turns of an iteration's groups and what they are worth; rows are those of `table`."""

    table: TurnTable
    assigned: Assigned


class TrainingStep(NamedTuple):
    """One optimizer step: its groups, their credit, the packed batch.

    `advantage` and `weights` (L,) are those of the trajectories of `table`, for losses that look at
    whole trajectories.
    """

    groups: Sequence[Group]
    table: TurnTable
    credit: Credit
    advantage: Float64
    weights: Float64
    batch: Batch


def credit_of(
    groups: Sequence[Group],
    method: AnyCredit,
    loss: LossSettings,
    filters: Sequence[Filter] = (),
    *,
    score: str = "reward",
    table: TurnTable | None = None,
) -> Credited:
    """Credit of every turn of `groups`, compared over the whole iteration.

    `score` names the reward component that `filters` judge by. `table` is that of `groups` where
    it is there already, with that score and what `method` needs.
    """
    table = table or TurnTable.of(groups, with_tokens=method.needs_tokens, score=score)
    return Credited(table, assign(table, method, loss.aggregation, loss.constant, filters=filters))


def training_steps(
    groups: Sequence[Group],
    credited: Credited,
    loss: LossSettings,
    *,
    pack_tokens: int,
    updates: int,
    every_token: bool = False,
) -> list[TrainingStep]:
    """`groups` in at most `updates` parts of whole groups, each with its own denominator.

    Groups that train nothing are left out; where none trains, there is no step. The credit is that
    of the whole iteration, whatever the split. With `every_token` tokens whose advantage is 0 are
    packed too, for who takes statistics over all.
    """
    table, assigned = credited
    trains = np.zeros(len(groups), np.bool_)
    trains[table.leaf_group[assigned.leaves.trains]] = True
    return [
        _step([groups[index] for index in part], part, credited, loss, pack_tokens, every_token)
        for part in split_groups(groups, trains, n=updates)
    ]


def _step(
    groups: Sequence[Group],
    part: np.ndarray[tuple[int], np.dtype[np.int64]],
    credited: Credited,
    loss: LossSettings,
    pack_tokens: int,
    every_token: bool,
) -> TrainingStep:
    whole, assigned = credited
    turns, leaves = np.isin(whole.group, part), np.isin(whole.leaf_group, part)
    kept = turns if assigned.credit.unit == "turn" else np.repeat(turns, whole.tokens)
    credit = Credit(
        assigned.credit.positive[kept],
        assigned.credit.negative[kept],
        assigned.credit.weight[kept],
        assigned.credit.unit,
    )
    table = TurnTable.of(groups)
    weights = assigned.rows.weights[leaves]
    batch = pack_groups(
        groups,
        table,
        # A critic learns from tokens whose advantage is 0, too.
        credit
        if every_token or whole.values is not None
        else _with_effect(table, credit, weights, loss),
        denominator=denominator(assigned.rows.shares[leaves]),
        pack_tokens=pack_tokens,
    )
    advantage = assigned.leaves.advantage[leaves]
    return TrainingStep(groups, table, credit, advantage, weights, batch)


def _with_effect(table: TurnTable, credit: Credit, weights: Float64, loss: LossSettings) -> Credit:
    """`credit` without what cannot move a weight: no advantage, and no other term.

    The denominator counts it all the same, so the gradient is the same for less work. A loss of two
    passes keeps what its ratios are over.
    """
    if loss.trains_all:
        return credit
    if loss.two_pass:
        credit = credit.at_tokens(table)
        idle = np.repeat(~needed_turns(table, credit, weights), table.tokens)
    else:
        idle = (credit.positive == 0.0) & (credit.negative == 0.0)
    weight = np.where(idle, 0.0, credit.weight)
    return Credit(credit.positive, credit.negative, weight, credit.unit)


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
    credits = [step.credit.at_turns(step.table) for step in steps]
    positive = np.concatenate([credit.positive for credit in credits])
    negative = np.concatenate([credit.negative for credit in credits])
    weight = np.concatenate([credit.weight for credit in credits])
    trained = weight > 0
    worth = np.divide(positive + negative, weight, out=np.zeros_like(weight), where=trained)
    return {
        "credit/trained_turns": float(trained.sum()),
        "credit/signal_fraction": float(np.mean(worth[trained] != 0.0)) if trained.any() else 0.0,
        "credit/absolute_mean": float(np.abs(worth[trained]).mean()) if trained.any() else 0.0,
        "credit/shared_turns": float(sum(_shared(step) for step in steps)),
    }


def _shared(step: TrainingStep) -> int:
    """How many turns several trajectories train."""
    trains = at_leaves(step.table, (step.weights != 0.0).astype(np.float64))
    return int(np.count_nonzero(subtree_sums(Levels.of(step.table), trains) > 1))
