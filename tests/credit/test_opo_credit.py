"""OPO's baseline on values worked by hand and against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GrpoCredit, OpoCredit, TurnTable
from agentrl.testing.trees import chains, random_groups, tree_of


def sized(*rows):
    """Chains of one turn, (return, tokens) each."""
    return Group("g", "g", tuple(tree_of([ROOT], {0: r}, tokens=n) for r, n in rows))


def advantage(group, **given_):
    return OpoCredit(**given_).compare(TurnTable.of([group])).advantage


def test_long_trajectories_weigh_more_by_hand():
    # Baseline (1 * 1 + 0 * 3) / 4 = 1/4.
    np.testing.assert_allclose(advantage(sized((1.0, 1), (0.0, 3))), [0.75, -0.25])
    # Two of one length and one of twice that: (1 + 0 + 2 * 1) / 4 = 3/4.
    np.testing.assert_allclose(advantage(sized((1.0, 2), (0.0, 2), (1.0, 4))), [0.25, -0.75, 0.25])


def test_equal_returns_are_exactly_zero_and_one_alone_says_nothing():
    assert advantage(sized(*((0.1, n) for n in range(1, 8)))).tolist() == [0.0] * 7
    assert advantage(sized((0.7, 3))).tolist() == [0.0]
    assert advantage(sized((0.7, 3)), singleton="raw").tolist() == [0.7]
    with pytest.raises(ContractError, match="one trajectory left"):
        advantage(sized((0.7, 3)), singleton="error")


def test_a_masked_trajectory_is_in_the_baseline_and_an_excluded_one_is_not():
    trees = [
        tree_of([ROOT], {0: r}, stops={0: StopReason.TRUNCATED_TURNS} if cut else None, tokens=n)
        for r, n, cut in [(1.0, 1, False), (0.0, 1, False), (1.0, 2, True)]
    ]
    group = Group("g", "g", tuple(trees))
    np.testing.assert_allclose(advantage(group, truncated="mask"), [0.25, -0.75, 0.0])
    np.testing.assert_allclose(advantage(group, truncated="exclude"), [0.5, -0.5, 0.0])


def test_trajectories_without_any_token_have_no_say():
    np.testing.assert_allclose(advantage(sized((1.0, 0), (0.0, 0))), [0.5, -0.5])
    np.testing.assert_allclose(advantage(sized((9.0, 0), (0.0, 2), (1.0, 2))), [8.5, -0.5, 0.5])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_with_equal_lengths_it_is_the_difference_from_the_mean(returns):
    table = TurnTable.of([chains(returns)])
    plain = GrpoCredit(scale="none").compare(table).advantage
    np.testing.assert_allclose(OpoCredit().compare(table).advantage, plain, atol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_on_random_trees_it_is_the_definition(seed):
    groups, wanted = random_groups(seed), []
    for group in groups:
        kept = [one for one in group.trajectories() if not one.stop_reason.is_failure]
        n = [sum(len(turn.action_ids) for turn in one.turns) for one in kept]
        r = [one.episode_return for one in kept]
        mean = np.average(r, weights=n) if sum(n) else np.mean(r) if r else 0.0
        wanted += [0.0 if len(r) < 2 else value - mean for value in r]
    found = OpoCredit().compare(TurnTable.of(groups)).advantage
    np.testing.assert_allclose(found, wanted, atol=1e-9)
