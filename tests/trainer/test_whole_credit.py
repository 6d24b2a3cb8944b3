"""The credit that is stored with an iteration's trees is the one that its steps trained."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from agentrl.core.types import ROOT, Group
from agentrl.credit import (
    ArpoCredit,
    At2poCredit,
    GigpoCredit,
    GrpoCredit,
    SpoCredit,
    TreeGrpoCredit,
)
from agentrl.credit.aggregate import Aggregation
from agentrl.learner.loss_settings import PpoLoss
from agentrl.testing.trees import chains, random_groups, tree_of
from agentrl.trainer.batches import (
    comparison_metrics,
    credit_metrics,
    credit_of,
    training_steps,
)


@pytest.mark.parametrize(
    "method",
    [
        GrpoCredit(),
        ArpoCredit(attribution="hard"),
        TreeGrpoCredit(),
        At2poCredit(),
        SpoCredit(),
        GigpoCredit(similarity=0.5),
    ],
    ids=lambda method: method.type,
)
@pytest.mark.parametrize("aggregation", ["token_mean", "turn_mean", "sequence_mean"])
def test_stored_credit_is_what_the_steps_train_whatever_the_split(method, aggregation):
    groups = random_groups(3, n_groups=7)
    loss = PpoLoss(aggregation=aggregation)
    credited = credit_of(groups, method, loss)
    stored = credited.assigned.credit
    starts = dict(
        zip(
            (id(group) for group in groups),
            np.cumsum([0, *(sum(len(t.turns) for t in g.trees) for g in groups)]),
            strict=False,
        )
    )
    compared = 0
    for step in training_steps(groups, credited, loss, pack_tokens=512, updates=3):
        at = 0
        for group in step.groups:
            size = sum(len(tree.turns) for tree in group.trees)
            rows = slice(starts[id(group)], starts[id(group)] + size)
            for name in ("positive", "negative", "weight"):
                np.testing.assert_allclose(
                    getattr(step.credit, name)[at : at + size], getattr(stored, name)[rows]
                )
            at, compared = at + size, compared + size
    assert compared > 20


def test_a_right_and_a_wrong_chain_are_stored_as_plus_and_minus_a_half():
    stored = credit_of([chains([1.0, 0.0])], GrpoCredit(scale="none"), PpoLoss()).assigned.credit
    np.testing.assert_allclose(stored.positive, [0.5, 0.0])
    np.testing.assert_allclose(stored.negative, [0.0, -0.5])
    np.testing.assert_allclose(stored.weight, [1.0, 1.0])


def test_what_cannot_be_compared_is_counted():
    groups = [chains([1.0, 0.0]), chains([0.5, 0.5]), chains([1.0]), chains([float("nan"), 1.0])]
    found = comparison_metrics(credit_of(groups, GrpoCredit(), PpoLoss()).assigned.leaves)
    assert found == {
        "credit/groups_dropped": 2.0,
        "credit/groups_equal": 1.0,
        "credit/leaves_unscored": 1.0,
    }


@pytest.mark.parametrize("aggregation", ["token_mean", "turn_mean", "sequence_mean"])
@pytest.mark.parametrize(
    "method", [SpoCredit(), At2poCredit(prefix_weighting="node_once")], ids=lambda one: one.type
)
def test_where_turns_count_once_each_step_is_divided_by_what_it_trains(method, aggregation):
    groups = random_groups(3, n_groups=7)
    loss = PpoLoss(aggregation=aggregation)
    credited = credit_of(groups, method, loss)
    steps = training_steps(groups, credited, loss, pack_tokens=512, updates=3)
    assert len(steps) == 3
    for step in steps:
        trained = float(step.credit.weight @ step.table.tokens)
        assert step.batch.denominator == pytest.approx(trained)


@pytest.mark.parametrize("method", [GrpoCredit(), SpoCredit()], ids=lambda one: one.type)
@pytest.mark.parametrize("aggregation", get_args(Aggregation))
def test_denominators_of_an_iterations_steps_are_parts_of_the_whole(method, aggregation):
    groups = random_groups(3, n_groups=7)
    loss = PpoLoss(aggregation=aggregation, constant=9.0 if aggregation == "constant" else None)
    credited = credit_of(groups, method, loss)
    steps = training_steps(groups, credited, loss, pack_tokens=512, updates=3)
    parts = [step.batch.denominator for step in steps]
    if aggregation == "token_sum":
        assert parts == [1.0, 1.0, 1.0] and credited.assigned.denominator == 1.0
    else:
        assert sum(parts) == pytest.approx(credited.assigned.denominator)
    if aggregation == "turn_sum":
        turns = [step.table.tokens > 0 for step in steps]
        trained = [one.credit.weight @ some for one, some in zip(steps, turns, strict=True)]
        assert parts == pytest.approx(trained)


@pytest.mark.parametrize("aggregation", ["token_mean", "turn_mean", "sequence_mean"])
def test_shared_turns_are_counted_by_their_trajectories_and_not_by_their_weight(aggregation):
    # Leaves 1 and 2 share turn 0; under a sequence mean its weight is 1/4 + 1/4.
    groups = [Group("g", "t", (tree_of([ROOT, 0, 0], {1: 1.0}),))]
    loss = PpoLoss(aggregation=aggregation)
    credited = credit_of(groups, GrpoCredit(), loss)
    steps = training_steps(groups, credited, loss, pack_tokens=512, updates=1)
    assert credit_metrics(steps)["credit/shared_turns"] == 1.0
