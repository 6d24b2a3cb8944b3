"""RLOO's leave-one-out baseline on values worked by hand and against its definition."""

from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GrpoCredit, RlooCredit, TurnTable, assign
from agentrl.testing.trees import chains, random_groups, tree_of


def advantage(group, **given):
    return RlooCredit(**given).compare(TurnTable.of([group])).advantage


def test_each_is_held_against_the_mean_of_the_others():
    # 1 - (0 + 0 + 0.5) / 3, 0 - (1 + 0 + 0.5) / 3, the same, 0.5 - (1 + 0 + 0) / 3
    found = advantage(chains([1.0, 0.0, 0.0, 0.5]))
    np.testing.assert_allclose(found, [5 / 6, -1 / 2, -1 / 2, 1 / 6], rtol=1e-15)


def test_equal_returns_are_exactly_zero_and_one_alone_says_nothing():
    assert advantage(chains([0.1] * 7)).tolist() == [0.0] * 7
    alone = RlooCredit().compare(TurnTable.of([chains([1.0])]))
    assert alone.advantage.tolist() == [0.0] and not alone.trains.any()
    assert advantage(chains([0.7]), singleton="raw").tolist() == [0.7]
    with pytest.raises(ContractError, match="groups have one trajectory"):
        advantage(chains([1.0]), singleton="error")


def test_a_masked_trajectory_is_among_the_others_and_an_excluded_one_is_not():
    trees = [
        tree_of([ROOT], {0: value}, stops={0: StopReason.TRUNCATED_TURNS} if cut else None)
        for value, cut in [(1.0, False), (0.0, False), (0.5, True)]
    ]
    group = Group("g", "t", tuple(trees))
    np.testing.assert_allclose(advantage(group, truncated="mask"), [0.75, -0.75, 0.0])
    np.testing.assert_allclose(advantage(group, truncated="exclude"), [1.0, -1.0, 0.0])


def test_a_shared_turn_carries_its_leaves_apart_by_hand():
    tree = tree_of([ROOT, 0, 0], {1: 1.0, 2: 0.0})
    credit = assign(TurnTable.of([Group("g", "t", (tree,))]), RlooCredit()).credit
    assert credit.positive.tolist() == [1.0, 1.0, 0.0]
    assert credit.negative.tolist() == [-1.0, 0.0, -1.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=9))
def test_it_is_the_definition_and_a_multiple_of_the_difference_from_the_mean(returns):
    found = advantage(chains(returns))
    slow = [
        one - fmean(returns[:place] + returns[place + 1 :]) for place, one in enumerate(returns)
    ]
    np.testing.assert_allclose(found, slow, atol=1e-8)
    plain = GrpoCredit(scale="none").compare(TurnTable.of([chains(returns)])).advantage
    np.testing.assert_allclose(found, plain * len(returns) / (len(returns) - 1), atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_on_random_trees_each_group_sums_to_zero(seed):
    table = TurnTable.of(random_groups(seed))
    leaves = RlooCredit().compare(table)
    sums = np.bincount(table.leaf_group, leaves.advantage, table.n_groups)
    np.testing.assert_allclose(sums, 0.0, atol=1e-9)


def test_dividing_by_the_spread_is_refused():
    with pytest.raises(ValueError, match="scale"):
        RlooCredit(scale="std")
