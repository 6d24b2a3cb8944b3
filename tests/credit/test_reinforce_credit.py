"""REINFORCE and, with filters, RAFT and Reinforce-Rej on values worked by hand."""

import numpy as np
import pytest

from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import ReinforceCredit, TurnTable, assign
from agentrl.filters import BestFilter, NotConstantFilter
from agentrl.testing.trees import chains, random_groups, tree_of


def test_a_trajectory_is_worth_its_return_less_a_constant():
    table = TurnTable.of([chains([1.0, 0.0, 0.5]), chains([2.0])])
    assert ReinforceCredit().compare(table).advantage.tolist() == [1.0, 0.0, 0.5, 2.0]
    found = ReinforceCredit(baseline=0.5).compare(table)
    assert found.advantage.tolist() == [0.5, -0.5, 0.0, 1.5] and found.trains.all()
    assert ReinforceCredit(worth="one").compare(table).advantage.tolist() == [1.0] * 4


def test_with_the_best_of_each_group_it_is_raft():
    # The first group has two best successes; the second has none and must not be reinforced.
    table = TurnTable.of([chains([0.8, 0.2, 0.8]), chains([0.0, 0.0]), chains([0.0, 0.3])])
    found = assign(table, ReinforceCredit(worth="one"), filters=[BestFilter()])
    assert found.credit.positive.tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert found.credit.weight.tolist() == [1, 0, 1, 0, 0, 0, 1]
    assert found.denominator == 6.0, "two tokens for each of the three that are imitated"
    strict = assign(table, ReinforceCredit(worth="one"), filters=[BestFilter(above=0.5)])
    assert strict.credit.weight.tolist() == [1, 0, 1, 0, 0, 0, 0]
    every = [BestFilter(keep="successes")]
    assert assign(table, ReinforceCredit(worth="one"), filters=every).leaves.trains.sum() == 4


def test_with_groups_that_are_neither_all_right_nor_all_wrong_it_is_reinforce_rej():
    table = TurnTable.of([chains([1.0, -1.0]), chains([1.0, 1.0]), chains([-1.0, -1.0])])
    found = assign(table, ReinforceCredit(), filters=[NotConstantFilter()])
    assert found.leaves.advantage.tolist() == [1, -1, 0, 0, 0, 0]
    assert found.leaves.trains.tolist() == [True, True] + [False] * 4
    assert found.denominator == 4.0, "rejected groups are removed before the mean"
    zeros = TurnTable.of([chains([1.0, 0.0]), chains([1.0, 1.0]), chains([0.0, 0.0])])
    half = assign(zeros, ReinforceCredit(baseline=0.5), filters=[NotConstantFilter()])
    np.testing.assert_array_equal(2 * half.leaves.advantage, found.leaves.advantage)


def test_a_shared_turn_carries_its_leaves_apart():
    tree = tree_of([ROOT, 0, 0], {1: 1.0, 2: -2.0})
    credit = assign(TurnTable.of([Group("g", "t", (tree,))]), ReinforceCredit()).credit
    assert credit.positive.tolist() == [1.0, 1.0, 0.0]
    assert credit.negative.tolist() == [-2.0, 0.0, -2.0]


def test_truncated_failed_and_unscored_trajectories_train_nothing():
    trees = (
        tree_of([ROOT], {0: 3.0}, stops={0: StopReason.TRUNCATED_TIME}),
        tree_of([ROOT], {0: 3.0}, stops={0: StopReason.ENV_ERROR}),
        *chains([float("nan"), 1.0]).trees,
    )
    table = TurnTable.of([Group("g", "g", trees)])
    for worth in ("return", "one"):
        for truncated in ("mask", "exclude"):
            way = ReinforceCredit(worth=worth, truncated=truncated)
            assert assign(table, way).credit.positive.tolist() == [0, 0, 0, 1]
    assert assign(table, ReinforceCredit()).credit.weight.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("seed", range(10))
def test_on_random_trees_it_is_the_sum_over_leaves(seed):
    groups = random_groups(seed)
    credit = assign(TurnTable.of(groups), ReinforceCredit(baseline=2.0), "constant", 1.0).credit
    wanted = []
    for tree in (tree for group in groups for tree in group.trees):
        own = np.zeros((len(tree.turns), 2))
        for one in tree.trajectories():
            if not one.stop_reason.is_failure and sum(len(t.action_ids) for t in one.turns):
                a = one.episode_return - 2.0
                own[list(one.path)] += [max(a, 0.0), min(a, 0.0)]
        wanted.append(own)
    wanted = np.concatenate([np.zeros((0, 2)), *wanted])
    np.testing.assert_allclose(np.stack([credit.positive, credit.negative], 1), wanted, atol=1e-9)
