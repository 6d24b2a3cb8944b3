"""Turn-level GRPO on values worked by hand, against its definitions, and at its limits."""

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GrpoCredit, RlooCredit, TurnGrpoCredit, TurnTable, assign, row_weights
from agentrl.testing.trees import chains, random_groups, tree_of

BASELINES = ["steps", "turn", "leave_one_out"]


def chain(*rewards):
    return tree_of([ROOT, *range(len(rewards) - 1)], dict(enumerate(rewards)))


def method(baseline, **given_):
    scale = {"scale": "none"} if baseline == "leave_one_out" else {}
    return TurnGrpoCredit(baseline=baseline, **scale | given_)


def worth(group, *args, **given_):
    """Advantage of each turn of chains, which all weigh the same."""
    credit = assign(TurnTable.of([group]), method(*args, **given_), "constant", 1.0).credit
    return credit.positive + credit.negative


def test_all_steps_of_a_group_are_normalised_together_by_hand():
    # Rewards 1, 0 and 0: mean 1/3, variance (4/9 + 1/9 + 1/9) / 2 = 1/3.
    group = Group("g", "g", (chain(1.0, 0.0), chain(0.0)))
    wanted = np.array([2 / 3 - 1 / 3, -1 / 3, -1 / 3])
    np.testing.assert_allclose(worth(group, "steps", scale="none"), wanted)
    np.testing.assert_allclose(worth(group, "steps"), wanted / math.sqrt(1 / 3), rtol=1e-5)
    half = np.array([2 / 3 - 1 / 6, -1 / 3, -1 / 3])
    np.testing.assert_allclose(worth(group, "steps", scale="none", gamma=0.5), half)


def test_one_more_turn_costs_the_mean_under_the_published_form():
    # Both earn 1, the longer one after a turn of reward 0, which is blamed for it. Mean 2/3.
    found = worth(Group("g", "g", (chain(1.0), chain(0.0, 1.0))), "steps", scale="none")
    np.testing.assert_allclose(found, [1 / 3, -2 / 3 + 1 / 3, 1 / 3])
    assert not worth(Group("g", "g", (chain(1.0), chain(0.0, 1.0))), "turn").any()


def test_returns_to_go_are_compared_at_the_same_index_by_hand():
    # From turn 0: 3, 1, 2 with mean 2; from turn 1: 2, 1 with mean 3/2; turn 2 alone.
    group = Group("g", "g", (chain(1.0, 2.0), chain(0.0, 1.0, 0.0), chain(2.0)))
    wanted = [1.0, 0.5, -1.0, -0.5, 0.0, 0.0]
    np.testing.assert_allclose(worth(group, "turn", scale="none"), wanted)
    scale = [1.0, math.sqrt(0.5), 1.0, math.sqrt(0.5), 1.0, 1.0]
    np.testing.assert_allclose(worth(group, "turn"), np.array(wanted) / scale, rtol=1e-5)
    # The others' mean at index 0 is 3/2, 5/2, 2; at index 1 it is 1 and 2.
    np.testing.assert_allclose(worth(group, "leave_one_out"), [1.5, 1.0, -1.5, -1.0, 0.0, 0.0])


def test_a_turn_that_alone_reached_its_index_is_0_or_raw():
    group = Group("g", "g", (chain(0.0, 3.0), chain(1.0)))
    assert worth(group, "leave_one_out").tolist() == [2.0, 0.0, -2.0]
    assert worth(group, "leave_one_out", singleton="raw").tolist() == [2.0, 3.0, -2.0]
    assert worth(group, "turn", scale="none", singleton="raw").tolist() == [1.0, 3.0, -1.0]
    alone = Group("g", "g", (chain(1.0, 2.0),))
    for baseline in BASELINES:
        assert not worth(alone, baseline).any()
        assert worth(alone, baseline, singleton="raw").tolist() == [3.0, 2.0]


def test_trajectories_of_a_shared_turn_are_not_each_others_others():
    # A fork worth 1 and 0 beside a chain worth 1/2. Index 0: the fork's turn against 1/2, the
    # chain's against (1 + 0) / 2. Index 1: 1 - 1/4, 0 - 3/4, 1/2 - 1/2.
    fork = tree_of([ROOT, 0, 0], {1: 1.0})
    table = TurnTable.of([Group("g", "g", (fork, chain(0.0, 0.5)))])
    credit = assign(table, method("leave_one_out")).credit
    assert credit.positive.tolist() == [0.5, 0.75, 0.0, 0.0, 0.0]
    assert credit.negative.tolist() == [-0.5, 0.0, -0.75, 0.0, 0.0]
    assert credit.weight.tolist() == [2.0, 1.0, 1.0, 1.0, 1.0]


def test_dividing_the_unbiased_form_by_a_spread_is_refused():
    with pytest.raises(ValueError, match="add `scale: none`"):
        TurnGrpoCredit(baseline="leave_one_out")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=7))
def test_on_one_turn_it_is_grpo_and_leave_one_out(returns):
    table = TurnTable.of([chains(returns)])
    for baseline, other in [("steps", GrpoCredit()), ("turn", GrpoCredit())]:
        found = method(baseline).compare(table).advantage
        np.testing.assert_allclose(found, other.compare(table).advantage, atol=1e-9)
    found = method("leave_one_out").compare(table).advantage
    np.testing.assert_allclose(found, RlooCredit().compare(table).advantage, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=7), st.integers(1, 4))
def test_paid_at_the_end_after_equally_many_turns_by_index_it_is_grpo(returns, turns):
    table = TurnTable.of([chains([float(one) for one in returns], turns=turns)])
    ours, grpo = assign(table, method("turn")).credit, assign(table, GrpoCredit()).credit
    np.testing.assert_allclose(ours.positive, grpo.positive, atol=1e-12)
    np.testing.assert_allclose(ours.negative, grpo.negative, atol=1e-12)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3])
def test_equal_rewards_are_exactly_zero(baseline, value):
    group = Group("g", "g", tuple(chain(value, value, value) for _ in range(7)))
    assert worth(group, baseline).tolist() == [0.0] * 21


def test_failures_and_excluded_trajectories_are_in_no_statistic():
    cut = tree_of([ROOT, 0], {0: 9.0, 1: 9.0}, stops={1: StopReason.TRUNCATED_TURNS})
    failed = tree_of([ROOT, 0], {0: 9.0, 1: 9.0}, stops={1: StopReason.ENV_ERROR})
    odd = chain(float("nan"), 1.0)
    few = (chain(1.0, 0.0), chain(0.0, 2.0))
    for baseline in BASELINES:
        alone = worth(Group("g", "g", few), baseline)
        beside = worth(Group("g", "g", (*few, cut, failed, odd)), baseline, truncated="exclude")
        np.testing.assert_allclose(beside, [*alone] + [0.0] * 6, atol=1e-12)
        masked = worth(Group("g", "g", (*few, cut)), baseline, truncated="mask")
        assert masked[4:].tolist() == [0.0, 0.0] and not np.allclose(masked[:4], alone)


def z(value, values, scale):
    if len(values) < 2 or max(values) - min(values) <= 1e-9 * max(1.0, abs(fmean(values))):
        return 0.0
    return (value - fmean(values)) / (stdev(values) + 1e-6 if scale == "std" else 1.0)


def rows_of(groups):
    """(group, nodes as rows of the table, rewards) of every trajectory, in the leaves' order."""
    base = 0
    for group in groups:
        for tree in group.trees:
            for one in tree.trajectories():
                if not one.stop_reason.is_failure:
                    nodes = [base + node for node in one.path]
                    yield group.id, nodes, [turn.reward for turn in one.turns]
            base += len(tree.turns)


def to_go(rewards, gamma):
    return [sum(gamma ** (j - k) * r for j, r in enumerate(rewards) if j >= k)
            for k in range(len(rewards))]  # fmt: skip


def slow_advantages(groups, way):
    """From the definitions: a list of advantages for every trajectory's own turns."""
    rows = list(rows_of(groups))
    for name, nodes, rewards in rows:
        others = [(ns, rs) for g, ns, rs in rows if g == name]
        if way.baseline == "steps":
            pool = [r for _, rs in others for r in rs]
            yield nodes, to_go([z(r, pool, way.scale) for r in rewards], way.gamma)
            continue
        found = []
        for k, node in enumerate(nodes):
            here = [(ns[k], to_go(rs, way.gamma)[k]) for ns, rs in others if len(ns) > k]
            value, values = to_go(rewards, way.gamma)[k], [g for _, g in here]
            apart = [g for n, g in here if n != node]
            if way.baseline == "turn":
                found.append(z(value, values, way.scale))
            elif not apart:
                found.append(value if way.singleton == "raw" else 0.0)
            else:
                found.append(value - fmean(apart))
        yield nodes, found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    baseline=st.sampled_from(BASELINES),
    gamma=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_on_random_trees_it_is_the_definition(seed, baseline, gamma):
    groups = random_groups(seed, n_groups=2, max_turns=8)
    way, table = method(baseline, gamma=gamma), TurnTable.of(groups)
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


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("groups", [[], [Group("g", "g", ())]])
def test_nothing_has_no_credit(baseline, groups):
    assert len(assign(TurnTable.of(groups), method(baseline)).credit.weight) == 0
