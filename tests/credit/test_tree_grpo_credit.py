"""Tree-GRPO's two terms on values worked by hand and against a slow second implementation."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group
from agentrl.credit import GrpoCredit, TreeGrpoCredit, TurnTable, assign
from agentrl.testing.trees import chains, random_groups, tree_of

EPSILON = 1e-6


def fork(*returns):
    """A shared first turn, then one turn for each return."""
    count = len(returns)
    return tree_of([ROOT, *[0] * count], {n + 1: value for n, value in enumerate(returns)})


def advantage(group, **settings):
    return TreeGrpoCredit(**settings).compare(TurnTable.of([group])).advantage


def test_the_sum_of_both_terms_by_hand():
    group = Group("g", "t", (fork(1.0, 0.0), fork(0.0, 0.0)))
    # Intra: tree 1 has mean 1/2 and std 1/sqrt(2): +-1/sqrt(2); tree 2 is all equal: 0.
    # Inter: mean 1/4, std 1/2: 1.5 and -0.5.
    half = math.sqrt(0.5)
    np.testing.assert_allclose(advantage(group), [half + 1.5, -half - 0.5, -0.5, -0.5], atol=1e-5)
    np.testing.assert_allclose(advantage(group, terms="intra"), [half, -half, 0, 0], atol=1e-5)
    np.testing.assert_allclose(
        advantage(group, terms="inter"), GrpoCredit().compare(TurnTable.of([group])).advantage
    )
    np.testing.assert_allclose(
        advantage(group, scale="none"), [0.5 + 0.75, -0.5 - 0.25, -0.25, -0.25]
    )


def test_a_shared_turn_carries_its_leaves_apart():
    group = Group("g", "t", (fork(1.0, 0.0), fork(0.0, 0.0)))
    credit = assign(TurnTable.of([group]), TreeGrpoCredit(scale="none")).credit
    np.testing.assert_allclose(credit.positive, [1.25, 1.25, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(credit.negative, [-0.75, 0.0, -0.75, -0.5, -0.25, -0.25])
    np.testing.assert_allclose(credit.weight, [2, 1, 1, 2, 1, 1])


@pytest.mark.parametrize("scale", ["std", "none"])
def test_chains_are_grpo_and_one_tree_is_twice_grpo(scale):
    table = TurnTable.of([chains([1.0, 0.0, 0.25, 0.0], turns=3)])
    np.testing.assert_array_equal(
        TreeGrpoCredit(scale=scale).compare(table).advantage,
        GrpoCredit(scale=scale).compare(table).advantage,
    )
    alone = TurnTable.of([Group("g", "t", (fork(1.0, 0.5, 0.0),))])
    np.testing.assert_allclose(
        TreeGrpoCredit(scale=scale).compare(alone).advantage,
        2 * GrpoCredit(scale=scale).compare(alone).advantage,
    )


def test_a_tree_of_one_leaf_adds_nothing_its_raw_return_or_no_error():
    group = Group("g", "t", (fork(0.3), fork(1.0)))
    inter = GrpoCredit().compare(TurnTable.of([group])).advantage
    np.testing.assert_array_equal(advantage(group), inter)
    np.testing.assert_array_equal(advantage(group, singleton="error"), inter)
    np.testing.assert_allclose(advantage(group, singleton="raw"), inter + np.asarray([0.3, 1.0]))
    with pytest.raises(ContractError, match="one trajectory left"):
        advantage(Group("g", "t", (fork(1.0),)), singleton="error")
    intra = TreeGrpoCredit(terms="intra").compare(TurnTable.of([group]))
    assert not intra.trains.any() and intra.groups_dropped == 2


def z(values, scale):
    if len(values) < 2 or max(values) - min(values) <= 1e-9 * max(1.0, abs(fmean(values))):
        return [0.0] * len(values)
    spread = stdev(values) + EPSILON if scale == "std" else 1.0
    return [(value - fmean(values)) / spread for value in values]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from(["std", "none"]))
def test_it_equals_plain_loops_over_leaves(seed, scale):
    groups = random_groups(seed)
    expected = []
    for group in groups:
        kept = [
            [one.episode_return for one in tree.trajectories() if not one.stop_reason.is_failure]
            for tree in group.trees
        ]
        every = [value for values in kept for value in values]
        inter = iter(z(every, scale))
        for values in kept:
            expected += [term + next(inter) for term in z(values, scale)]
    got = TreeGrpoCredit(scale=scale).compare(TurnTable.of(groups))
    np.testing.assert_allclose(got.advantage, expected, atol=1e-9)


def test_a_table_without_turns_is_no_error():
    assert len(TreeGrpoCredit().compare(TurnTable.of([])).advantage) == 0
