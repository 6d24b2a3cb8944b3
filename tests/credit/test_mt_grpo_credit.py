"""MT-GRPO on values worked by hand, against its definition, and at its limits."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GrpoCredit, MtGrpoCredit, TurnTable, assign, row_weights
from agentrl.testing.trees import chains, random_groups, tree_of


def chain(*rewards):
    return tree_of([ROOT, *range(len(rewards) - 1)], dict(enumerate(rewards)))


def worth(group, **given_):
    """Advantage of each turn of chains, which all weigh the same."""
    credit = assign(TurnTable.of([group]), MtGrpoCredit(**given_), "constant", 1.0).credit
    return credit.positive + credit.negative


def test_two_turns_are_the_paper_by_hand():
    # Turn rewards 1, 0, 1 with mean 2/3 and std sqrt(1/3); outcomes 0, 1, 1 likewise.
    group = Group("g", "g", (chain(1.0, 0.0), chain(0.0, 1.0), chain(1.0, 1.0)))
    third = 1 / 3 / math.sqrt(1 / 3)
    turn, outcome = np.array([1, -2, 1]) * third, np.array([-2, 1, 1]) * third
    wanted = np.stack([outcome + turn, outcome], 1).ravel()
    np.testing.assert_allclose(worth(group), wanted, rtol=1e-5, atol=1e-12)
    half = np.stack([outcome + 0.5 * turn, outcome], 1).ravel()
    np.testing.assert_allclose(worth(group, turn_weight=0.5), half, rtol=1e-5, atol=1e-12)


def test_later_turn_rewards_count_for_the_turns_before_them_by_hand():
    # T_0: 1 and 0, T_1: 0 and 4, outcomes 3 and 1: without scale +-1/2, -+2, +-1.
    group = Group("g", "g", (chain(1.0, 0.0, 3.0), chain(0.0, 4.0, 1.0)))
    wanted = [1 + 0.5 - 2, 1 - 2, 1, -1 - 0.5 + 2, -1 + 2, -1]
    np.testing.assert_allclose(worth(group, scale="none"), wanted)


def test_a_trajectory_that_skips_the_tool_has_a_turn_reward_of_0():
    # T_0 is 1 for the two that went on, 0 for the one that answered: mean 2/3.
    group = Group("g", "g", (chain(1.0, 1.0), chain(1.0, 1.0), chain(1.0)))
    np.testing.assert_allclose(worth(group, scale="none"), [1 / 3, 0, 1 / 3, 0, -2 / 3], atol=1e-12)


def test_a_shared_turn_is_a_turn_of_each_of_its_trajectories():
    # The shared turn is paid 1, the chain's first 0: T_0 is 1, 1, 0 with mean 2/3.
    # Outcomes 1, 0, 2 with mean 1.
    fork = tree_of([ROOT, 0, 0], {0: 1.0, 1: 1.0})
    table = TurnTable.of([Group("g", "g", (fork, chain(0.0, 2.0)))])
    credit = assign(table, MtGrpoCredit(scale="none"), "constant", 1.0).credit
    np.testing.assert_allclose(credit.positive, [1 / 3, 0, 0, 1 - 2 / 3, 1], atol=1e-12)
    np.testing.assert_allclose(credit.negative, [-1 + 1 / 3, 0, -1, 0, 0], atol=1e-12)


def test_a_trajectory_alone_says_nothing_or_its_rewards_to_go():
    alone = Group("g", "g", (chain(1.0, 2.0),))
    assert worth(alone).tolist() == [0.0, 0.0]
    assert worth(alone, singleton="raw").tolist() == [3.0, 2.0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=7), st.integers(1, 4))
def test_paid_at_the_end_alone_it_is_grpo(returns, turns):
    table = TurnTable.of([chains([float(one) for one in returns], turns=turns)])
    ours, grpo = assign(table, MtGrpoCredit()).credit, assign(table, GrpoCredit()).credit
    for one, other in [(ours.positive, grpo.positive), (ours.negative, grpo.negative)]:
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(ours.weight, grpo.weight)


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3])
def test_equal_rewards_are_exactly_zero(value):
    group = Group("g", "g", tuple(chain(value, value, value) for _ in range(7)))
    assert worth(group).tolist() == [0.0] * 21


def test_failures_and_excluded_trajectories_are_in_no_statistic():
    cut = tree_of([ROOT, 0], {0: 9.0, 1: 9.0}, stops={1: StopReason.TRUNCATED_TURNS})
    failed = tree_of([ROOT, 0], {0: 9.0, 1: 9.0}, stops={1: StopReason.ENV_ERROR})
    few = (chain(1.0, 0.0), chain(0.0, 2.0))
    alone = worth(Group("g", "g", few))
    odd = chain(float("nan"), 1.0)
    beside = worth(Group("g", "g", (*few, cut, failed, odd)), truncated="exclude")
    np.testing.assert_allclose(beside, [*alone] + [0.0] * 6, atol=1e-12)
    masked = worth(Group("g", "g", (*few, cut)), truncated="mask")
    assert masked[4:].tolist() == [0.0, 0.0] and not np.allclose(masked[:4], alone)


def z(value, values, scale):
    if len(values) < 2 or max(values) - min(values) <= 1e-9 * max(1.0, abs(fmean(values))):
        return 0.0
    return (value - fmean(values)) / (stdev(values) + 1e-6 if scale == "std" else 1.0)


def slow_advantages(groups, way):
    """From the definition: the turns of every trajectory as rows of the table, and their A."""
    base, rows = 0, []
    for group in groups:
        for tree in group.trees:
            for one in tree.trajectories():
                if not one.stop_reason.is_failure:
                    *turn, outcome = [item.reward for item in one.turns]
                    rows.append((group.id, [base + n for n in one.path], [*turn, 0.0], outcome))
            base += len(tree.turns)
    for name, nodes, turn, outcome in rows:
        others = [row for row in rows if row[0] == name]
        total = z(outcome, [row[3] for row in others], way.scale)
        own = [
            z(paid, [row[2][k] for row in others if len(row[2]) > k], way.scale)
            for k, paid in enumerate(turn)
        ]
        yield nodes, [total + way.turn_weight * sum(own[k:]) for k in range(len(nodes))]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    weight=st.sampled_from([0.0, 0.5, 1.0]),
    scale=st.sampled_from(["std", "none"]),
)
def test_on_random_trees_it_is_the_definition(seed, weight, scale):
    groups = random_groups(seed, n_groups=2, max_turns=8)
    way, table = MtGrpoCredit(turn_weight=weight, scale=scale), TurnTable.of(groups)
    trains = way.compare(table).trains
    weights = row_weights(table, "sequence_mean", trains=trains).weights
    credit = way(table, weights)
    wanted = np.zeros((len(table.parent), 3))
    for (nodes, found), w in zip(slow_advantages(groups, way), weights * trains, strict=True):
        for node, a in zip(nodes, found, strict=True):
            wanted[node] += [w * max(a, 0.0), w * min(a, 0.0), w]
    np.testing.assert_allclose(credit.positive, wanted[:, 0], atol=1e-9)
    np.testing.assert_allclose(credit.negative, wanted[:, 1], atol=1e-9)
    np.testing.assert_allclose(credit.weight, wanted[:, 2], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(4)))
def test_the_order_of_groups_changes_nothing(seed, order):
    groups = random_groups(seed, n_groups=4)

    def per_turn(some):
        credit = assign(TurnTable.of(some), MtGrpoCredit()).credit
        turns = [id(turn) for group in some for tree in group.trees for turn in tree.turns]
        return dict(zip(turns, credit.positive + credit.negative, strict=True))

    assert per_turn(groups) == pytest.approx(per_turn([groups[one] for one in order]), abs=1e-9)


@pytest.mark.parametrize("groups", [[], [Group("g", "g", ())]])
def test_nothing_has_no_credit(groups):
    assert len(assign(TurnTable.of(groups), MtGrpoCredit()).credit.weight) == 0
