"""What turn-level methods have in common: steps, returns-to-go, and the batch's scale."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.types import ROOT, Group
from agentrl.credit import GrpoCredit, TurnTable
from agentrl.credit.steps import Steps
from agentrl.testing.trees import chains, random_groups, tree_of


def test_the_steps_of_a_fork_are_those_of_two_chains():
    # Turn 0 is shared by leaves 1 and 3 (through 2): leaf 0 has turns 0, 1, leaf 1 has 0, 2, 3.
    tree = tree_of([ROOT, 0, 0, 2], {0: 1.0, 1: 2.0, 2: 4.0, 3: 8.0})
    table = TurnTable.of([Group("g", "g", (tree,))])
    steps = Steps.of(table)
    assert steps.turn.tolist() == [1, 3, 0, 2, 0]
    assert steps.leaf.tolist() == [0, 1, 0, 1, 1]
    assert steps.after.tolist() == [0, 1, 0, 1, 3]
    # Leaf 0: 2, then 1 + 2 / 2 = 2. Leaf 1: 8, then 4 + 8 / 2 = 8, then 1 + 8 / 2 = 5.
    assert steps.to_go(table.reward[steps.turn], 0.5).tolist() == [2, 8, 2, 8, 5]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.sampled_from([0.0, 0.3, 1.0]))
def test_returns_to_go_are_those_of_walking_each_trajectory(seed, gamma):
    groups = random_groups(seed)
    table = TurnTable.of(groups)
    steps = Steps.of(table)
    found = dict(
        zip(
            zip(steps.leaf.tolist(), steps.turn.tolist(), strict=True),
            steps.to_go(table.reward[steps.turn], gamma),
            strict=True,
        )
    )
    wanted = {}
    for leaf, row in enumerate(table.leaf_turn):
        value = 0.0
        while row != ROOT:
            value = table.reward[row] + gamma * value
            wanted[leaf, int(row)] = value
            row = table.parent[row]
    assert found == pytest.approx(wanted)


def test_the_spread_of_the_batch_divides_every_group_alike():
    # Means 1/2 and 2; all values 0, 1, 1, 3: mean 5/4, variance (25 + 1 + 1 + 49) / 16 / 3.
    table = TurnTable.of([chains([0.0, 1.0]), chains([1.0, 3.0])])
    found = GrpoCredit(scale="batch").compare(table).advantage
    spread = np.sqrt(76 / 48)
    np.testing.assert_allclose(found, np.array([-0.5, 0.5, -1.0, 1.0]) / spread, rtol=1e-5)


def test_equal_groups_are_exactly_zero_under_the_spread_of_the_batch():
    groups = [chains([0.1] * 7), chains([0.3] * 7)]
    assert not GrpoCredit(scale="batch").compare(TurnTable.of(groups)).advantage.any()
    assert not GrpoCredit(scale="batch").compare(TurnTable.of(groups[:1])).advantage.any()
    one = GrpoCredit(scale="batch").compare(TurnTable.of([chains([0.3])]))
    assert one.advantage.tolist() == [0.0]


@pytest.mark.parametrize("groups", [[], [Group("g", "g", ())]])
def test_nothing_has_no_steps(groups):
    table = TurnTable.of(groups)
    steps = Steps.of(table)
    assert len(steps.leaf) == len(steps.to_go(table.reward[steps.turn])) == 0
