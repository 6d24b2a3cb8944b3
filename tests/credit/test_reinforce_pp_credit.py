"""REINFORCE++ on values worked by hand, against its form over padded rows, and at its limits."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import ReinforcePPCredit, TurnTable, assign, row_weights
from agentrl.credit.reinforce_pp import whitened
from agentrl.learner.kl_reward import charged
from agentrl.testing.trees import chains, random_groups, tree_of

GAMMAS = st.sampled_from([0.0, 0.5, 1.0])


def worth(groups, **given_):
    """Advantage of each turn of chains, whose turns have one trajectory each."""
    credit = assign(TurnTable.of(groups), ReinforcePPCredit(**given_)).credit
    return credit.positive + credit.negative


def test_whitening_by_hand():
    # 4 twice and 1 once: mean 3, variance (1 + 1 + 4) / 2 = 3.
    found = whitened(np.array([4.0, 1.0, 9.0]), np.array([2.0, 1.0, 0.0]))
    np.testing.assert_allclose(found, np.array([1.0, -2.0, 0.0]) / math.sqrt(3), rtol=1e-7)


def test_two_chains_of_different_lengths_by_hand():
    # Chain 1: turns of 1 and 3 tokens, rewards 1 and 2; chain 2: a turn of 2 tokens, reward 0.
    # Returns-to-go at gamma 1/2: 1 + 2/2 = 2, 2; 0. Over the tokens: 2 2 2 2 0 0, mean 4/3,
    # variance (4 * 4/9 + 2 * 16/9) / 5 = 16/15.
    first = tree_of([ROOT, 0], {0: 1.0, 1: 2.0}, tokens=[1, 3])
    group = Group("g", "g", (first, tree_of([ROOT], {}, tokens=2)))
    spread = math.sqrt(16 / 15)
    wanted = np.array([2 / 3, 2 / 3, -4 / 3]) / spread
    np.testing.assert_allclose(worth([group], gamma=0.5), wanted, rtol=1e-7)


def test_tokens_that_are_charged_by_hand():
    # Chains of one turn of two tokens, worth 1 and 0. The first one's tokens cost 1/2 and 1/4: it
    # has 1/4 to go at the first, 3/4 at the second; the other 0 and 0. Mean 1/4, variance
    # (0 + 1/4 + 1/16 + 1/16) / 3 = 1/8.
    table = TurnTable.of([chains([1.0]), chains([0.0])])
    credit = assign(charged(table, np.array([0.5, 0.25, 0, 0])), ReinforcePPCredit()).credit
    wanted = np.array([0, 0.5, -0.25, -0.25]) / math.sqrt(1 / 8)
    np.testing.assert_allclose(credit.positive + credit.negative, wanted, atol=1e-7)
    assert credit.unit == "token"
    # Charges of nothing change nothing.
    free = assign(charged(table, np.zeros(4)), ReinforcePPCredit()).credit
    plain = assign(table, ReinforcePPCredit()).credit.at_tokens(table)
    np.testing.assert_allclose(free.positive + free.negative, plain.positive + plain.negative)


def test_groups_of_one_learn_from_each_other():
    found = worth([chains([1.0]), chains([0.0])])  # Tokens 1 1 0 0: variance 1/3.
    np.testing.assert_allclose(found, np.array([0.5, -0.5]) / math.sqrt(1 / 3), rtol=1e-7)


def test_an_observation_does_not_wipe_the_return_of_earlier_turns():
    # The trap of the released code: the reward at the end must reach the turn before the
    # observation undiminished, whatever the observation's length.
    paid, unpaid = tree_of([ROOT, 0], {1: 1.0}), tree_of([ROOT, 0], {})
    found = worth([Group("g", "g", (paid, unpaid))])
    assert found[0] == found[1] > 0 > found[2] == found[3]
    long = [
        dataclasses.replace(turn, observation_ids=np.arange(50, dtype=np.int32))
        for turn in paid.turns
    ]
    paid.turns[:] = long
    np.testing.assert_array_equal(worth([Group("g", "g", (paid, unpaid))]), found)


def test_with_the_baseline_of_the_group_by_hand():
    # Groups (1, 0) and (5, 3): differences 1/2, -1/2, 1, -1, two tokens each.
    # Mean 0, variance 2 * (1/4 + 1/4 + 1 + 1) / 7 = 5/7.
    groups = [chains([1.0, 0.0]), chains([5.0, 3.0])]
    wanted = np.array([0.5, -0.5, 1.0, -1.0]) / math.sqrt(5 / 7)
    np.testing.assert_allclose(worth(groups, baseline="group"), wanted, rtol=1e-7)
    # A constant added to a group's rewards changes nothing; without the baseline it does.
    shifted = [chains([1.0, 0.0]), chains([15.0, 13.0])]
    np.testing.assert_allclose(worth(shifted, baseline="group"), wanted, rtol=1e-7)


def test_the_baseline_sits_on_the_last_reward_and_is_discounted_with_it():
    # Returns 3 and 1, mean 2: last rewards 1 - 2 = -1 and 1 - 2 = -1. At gamma 1/2 the first
    # turns are worth 2 - 1/2 and 0 - 1/2. Tokens: 3/2 3/2 -1 -1 -1/2 -1/2 -1 -1, mean -1/4,
    # variance 2 * (49 + 9 + 1 + 9) / 16 / 7 = 17/14.
    trees = (tree_of([ROOT, 0], {0: 2.0, 1: 1.0}), tree_of([ROOT, 0], {1: 1.0}))
    found = worth([Group("g", "g", trees)], baseline="group", gamma=0.5)
    wanted = np.array([7, -3, -1, -3]) / 4 / math.sqrt(17 / 14)
    np.testing.assert_allclose(found, wanted, rtol=1e-7)


def test_a_group_of_one_has_no_baseline():
    groups = [chains([1.0, 0.0]), chains([9.0])]
    alone = assign(TurnTable.of(groups), ReinforcePPCredit(baseline="group"))
    assert alone.leaves.trains.tolist() == [True, True, False]
    # It is in no statistic either: tokens 1/2 1/2 -1/2 -1/2, variance 1/3.
    spread = math.sqrt(1 / 3)
    np.testing.assert_allclose(alone.leaves.advantage, np.array([0.5, -0.5, 0]) / spread)
    raw = worth(groups, baseline="group", singleton="raw")
    assert raw[2] > 0 > raw[0] > raw[1]  # 9, 1/2, -1/2 around a mean of 3
    with pytest.raises(ContractError, match="one trajectory left"):
        worth(groups, baseline="group", singleton="error")


@pytest.mark.parametrize("baseline", ["none", "group"])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1 / 3])
def test_equal_returns_are_exactly_zero(baseline, value):
    groups = [chains([value] * 5), chains([value] * 3)]
    credit = assign(TurnTable.of(groups), ReinforcePPCredit(baseline=baseline)).credit
    assert not credit.positive.any() and not credit.negative.any()
    assert credit.weight.all(), "an advantage of 0 still trains"


def test_a_shared_turn_counts_for_each_of_its_trajectories():
    # One fork: returns 1 and 0. Tokens (two a turn): 1 0 at the shared turn, 1, 0: mean 1/2,
    # variance 8 * 1/4 / 7.
    tree = tree_of([ROOT, 0, 0], {1: 1.0})
    credit = assign(TurnTable.of([Group("g", "g", (tree,))]), ReinforcePPCredit()).credit
    a = 0.5 / math.sqrt(2 / 7)
    np.testing.assert_allclose(credit.positive, [a, a, 0], rtol=1e-7)
    np.testing.assert_allclose(credit.negative, [-a, 0, -a], rtol=1e-7)
    assert credit.weight.tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("truncated", "trains", "spread"),
    [("mask", [True, True, False], 1.0), ("exclude", [True, True, False], 0.5)],
)
def test_a_truncated_trajectory_is_masked_or_excluded(truncated, trains, spread):
    trees = [
        tree_of([ROOT], {0: value}, stops={0: StopReason.TRUNCATED_TURNS} if cut else None)
        for value, cut in [(1.0, False), (0.0, False), (2.0, True)]
    ]
    group = Group("g", "g", tuple(trees))
    found = assign(TurnTable.of([group]), ReinforcePPCredit(truncated=truncated))
    assert found.leaves.trains.tolist() == trains
    # Masked: tokens 1 0 2, mean 1; excluded: 1 0, mean 1/2.
    assert found.leaves.advantage[0] == pytest.approx(
        (1 - spread) / math.sqrt(0.8 if truncated == "mask" else 1 / 3)
    )


def test_a_failure_and_a_return_that_is_no_number_are_in_no_statistic():
    failed = tree_of([ROOT], {0: 50.0}, stops={0: StopReason.ENV_ERROR})
    more = Group("h", "h", (failed, *chains([float("nan")]).trees))
    alone, beside = worth([chains([1.0, 0.0])]), worth([chains([1.0, 0.0]), more])
    np.testing.assert_array_equal(beside, [*alone, 0.0, 0.0])


def slow(groups, method, weights):
    """Rows of tokens, observations between them, each row read from its end."""
    kept = []
    for group in groups:
        own = [one for one in group.trajectories() if not one.stop_reason.is_failure]
        cut = [method.truncated == "exclude" and one.stop_reason.is_truncation for one in own]
        counted = [one.episode_return for one, out in zip(own, cut, strict=True) if not out]
        grouped = method.baseline == "group"
        alone = grouped and len(counted) < 2 and method.singleton != "raw"
        base = sum(counted) / len(counted) if grouped and len(counted) > 1 else 0.0
        kept += [(one, base, not out and not alone) for one, out in zip(own, cut, strict=True)]
    rows, tokens = [], []
    for one, base, counts in kept:
        running, values = 0.0, {}
        for node, turn in reversed(list(zip(one.path, one.turns, strict=True))):
            running = turn.reward - base * (node == one.path[-1]) + method.gamma * running
            values[node] = running
            tokens += [running] * len(turn.action_ids) * counts
        rows.append((one, values, counts))
    flat = not tokens or max(tokens) - min(tokens) < 1e-9
    mean, spread = (0.0, 1.0) if flat else (np.mean(tokens), (np.var(tokens, ddof=1) + 1e-8) ** 0.5)
    through = {}
    for (one, values, counts), weight in zip(rows, weights, strict=True):
        for node, value in values.items():
            advantage = 0.0 if flat or not counts else (value - mean) / spread
            found = through.setdefault((id(one.tree), node), [0.0, 0.0, 0.0])
            if len(one.tree.turns[node].action_ids):
                found[int(advantage < 0)] += weight * advantage
            found[2] += weight * counts
    turns = [(id(t), node) for g in groups for t in g.trees for node in range(len(t.turns))]
    return np.array([through.get(key, [0.0, 0.0, 0.0]) for key in turns]).reshape(-1, 3)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    gamma=GAMMAS,
    baseline=st.sampled_from(["none", "group"]),
    singleton=st.sampled_from(["zero", "raw"]),
    truncated=st.sampled_from(["keep", "exclude"]),
)
def test_on_random_trees_it_is_the_form_over_rows(seed, gamma, baseline, singleton, truncated):
    groups = random_groups(seed, n_groups=3, max_turns=8)
    method = ReinforcePPCredit(
        gamma=gamma, baseline=baseline, singleton=singleton, truncated=truncated
    )
    table = TurnTable.of(groups)
    trains = method.compare(table).trains
    rows = row_weights(table, "sequence_mean", trains=trains)
    credit = method(table, rows.weights)
    wanted = slow(groups, method, rows.weights)
    np.testing.assert_allclose(credit.positive, wanted[:, 0], atol=1e-9)
    np.testing.assert_allclose(credit.negative, wanted[:, 1], atol=1e-9)
    np.testing.assert_allclose(credit.weight, wanted[:, 2], atol=1e-12)


def slow_tokens(table, method, weights, trains):
    """Every trajectory the list of its own tokens, read from its end: the published recursion."""
    own, starts = table.token_rewards, table.token_starts
    returns, paths = [], []
    for leaf in table.leaf_turn:
        path = [leaf]
        while table.parent[path[-1]] != ROOT:
            path.append(table.parent[path[-1]])
        paths.append(path)
        returns.append(sum(table.reward[k] for k in path))
    rows = []
    for leaf, path in enumerate(paths):
        mates = [
            r for r, g in zip(returns, table.leaf_group, strict=True) if g == table.leaf_group[leaf]
        ]
        grouped = method.baseline == "group" and len(mates) > 1
        running, found = -np.mean(mates) if grouped else 0.0, {}
        for k in path:
            tokens = range(starts[k], starts[k + 1])
            running += table.reward[k] - sum(own[t] for t in tokens)
            for t in reversed(tokens):
                running += own[t]
                found[t] = running
            running *= method.gamma
        rows.append(found)
    every = [value for row, ok in zip(rows, trains, strict=True) if ok for value in row.values()]
    mean, spread = np.mean(every), (np.var(every, ddof=1) + 1e-8) ** 0.5
    wanted = np.zeros((3, len(own)))
    for row, weight, ok in zip(rows, weights, trains, strict=True):
        for t, value in row.items() if ok else ():
            gain = weight * (value - mean) / spread
            wanted[:, t] += max(gain, 0.0), min(gain, 0.0), weight
    return wanted


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=GAMMAS, baseline=st.sampled_from(["none", "group"]))
def test_with_charges_it_is_the_recursion_over_tokens(seed, gamma, baseline):
    table = TurnTable.of(random_groups(seed, n_groups=3, max_turns=8))
    costs = np.random.default_rng(seed).normal(size=int(table.tokens.sum()))
    table, method = charged(table, costs), ReinforcePPCredit(gamma=gamma, baseline=baseline)
    trains = method.compare(table).trains
    weights = row_weights(table, "sequence_mean", trains=trains).weights
    if sum(weights > 0) < 2:
        return
    credit = method(table, weights)
    wanted = slow_tokens(table, method, weights, trains)
    np.testing.assert_allclose(credit.positive, wanted[0], atol=1e-8)
    np.testing.assert_allclose(credit.negative, wanted[1], atol=1e-8)
    np.testing.assert_allclose(credit.weight, wanted[2], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(4)))
def test_the_order_of_groups_changes_nothing(seed, order):
    groups = random_groups(seed, n_groups=4)

    def per_turn(some):
        credit = assign(TurnTable.of(some), ReinforcePPCredit(gamma=0.9)).credit
        turns = [id(turn) for group in some for tree in group.trees for turn in tree.turns]
        return dict(zip(turns, credit.positive + credit.negative, strict=True))

    assert per_turn(groups) == pytest.approx(per_turn([groups[one] for one in order]), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=8), st.integers(1, 4))
def test_over_the_tokens_that_train_the_mean_is_0_and_the_variance_1(returns, turns):
    table = TurnTable.of([chains([float(one)], turns=turns) for one in returns])
    credit = assign(table, ReinforcePPCredit()).credit.at_tokens(table)
    values = credit.positive + credit.negative
    assert abs(values.mean()) < 1e-9
    assert len(set(returns)) == 1 or values.var(ddof=1) == pytest.approx(1.0, abs=1e-6)
