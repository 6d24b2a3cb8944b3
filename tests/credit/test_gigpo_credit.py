"""GiGPO on values worked by hand, against its definition step by step, and at its limits."""

import dataclasses
import math
from collections import defaultdict
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GigpoCredit, GrpoCredit, TurnTable, assign, row_weights
from agentrl.testing.trees import random_groups, tree_of


def chain(rewards, states):
    """A chain whose steps are paid and stood as given; "" is a state that is not known."""
    parents = [ROOT, *range(len(rewards) - 1)]
    return stated(tree_of(parents, dict(enumerate(rewards))), states)


def stated(tree, states):
    for node, state in enumerate(states):
        tree.turns[node] = dataclasses.replace(tree.turns[node], state_key=state)
    return tree


def worth(group, **given):
    """Advantage of each turn of chains whose tokens weigh the same."""
    credit = assign(TurnTable.of([group]), GigpoCredit(**given), "constant", 1.0).credit
    return credit.positive + credit.negative


def test_two_chains_that_meet_in_one_state_by_hand():
    # Returns 1 and 0: episode +-1/2 without scale. From "s" (first steps) G = 0 + 1/2 * 1 = 0.5
    # and 0: step +-1/4. From "a", "b" alone: 0.
    group = Group("g", "g", (chain([0.0, 1.0], ["s", "a"]), chain([0.0, 0.0], ["s", "b"])))
    found = worth(group, gamma=0.5, scale="none")
    np.testing.assert_allclose(found, [0.5 + 0.25, 0.5, -0.5 - 0.25, -0.5])
    np.testing.assert_allclose(
        worth(group, gamma=0.5, scale="none", omega=2.0), [1.0, 0.5, -1.0, -0.5]
    )
    half = math.sqrt(0.5)  # a pair is at +- 1 / sqrt(2) whatever its gap
    np.testing.assert_allclose(worth(group), [2 * half, half, -2 * half, -half], atol=1e-5)


def test_a_state_that_is_met_again_joins_its_group():
    # One chain stands in "s" twice, with returns 1 and 1, the other once, with 0: mean 2/3.
    group = Group("g", "g", (chain([0.0, 1.0], ["s", "s"]), chain([0.0], ["s"])))
    found = worth(group, gamma=1.0, scale="none")
    np.testing.assert_allclose(found, [0.5 + 1 / 3, 0.5 + 1 / 3, -0.5 - 2 / 3])


def test_states_of_two_tasks_are_never_compared():
    groups = [
        Group(name, name, (chain([value], ["s"]), chain([value], ["s"])))
        for name, value in [("a", 1.0), ("b", 0.0)]
    ]
    credit = assign(TurnTable.of(groups), GigpoCredit()).credit
    assert credit.positive.tolist() == [0.0] * 4 and credit.negative.tolist() == [0.0] * 4
    assert (credit.weight > 0).all()


def test_without_a_repeated_state_and_with_omega_0_it_is_grpo():
    unknown = Group("g", "g", (chain([0.0, 1.0], ["", ""]), chain([0.5, 0.0], ["", ""])))
    apart = Group("g", "g", (chain([0.0, 1.0], ["a", "b"]), chain([0.5, 0.0], ["c", "d"])))
    met = Group("g", "g", (chain([0.0, 1.0], ["s", "t"]), chain([0.5, 0.0], ["s", "t"])))
    for group, given_ in ((unknown, {}), (apart, {}), (met, {"omega": 0.0})):
        table = TurnTable.of([group])
        ours, grpo = assign(table, GigpoCredit(**given_)), assign(table, GrpoCredit())
        np.testing.assert_array_equal(ours.credit.positive, grpo.credit.positive)
        np.testing.assert_array_equal(ours.credit.negative, grpo.credit.negative)


def test_a_shared_step_is_a_step_of_each_of_its_trajectories():
    # Turn 0 in "s" is shared by leaves worth 1 and 0; a chain beside it starts in "s", worth 0.
    tree = stated(tree_of([ROOT, 0, 0], {1: 1.0, 2: 0.0}), ["s", "a", "a"])
    group = Group("g", "g", (tree, chain([0.0], ["s"])))
    credit = assign(
        TurnTable.of([group]), GigpoCredit(scale="none", gamma=1.0), "constant", 1.0
    ).credit
    # Episode: 2/3, -1/3, -1/3. From "s": 2/3, -1/3, -1/3. From "a": 1/2, -1/2.
    np.testing.assert_allclose(credit.positive, [4 / 3, 2 / 3 + 1 / 2, 0, 0])
    np.testing.assert_allclose(credit.negative, [-2 / 3, 0, -1 / 3 - 1 / 2, -2 / 3])
    assert credit.weight.tolist() == [2, 1, 1, 1]


def slow(groups, method, weights):
    """The definition: every trajectory a list of its own steps."""
    leaves = method.compare(TurnTable.of(groups)).advantage
    anchors, found, at, base = defaultdict(list), defaultdict(lambda: [0.0, 0.0, 0.0]), 0, 0
    steps = []
    for g, group in enumerate(groups):
        for tree in group.trees:
            for leaf, reason in sorted(tree.leaves.items()):
                if reason.is_failure:
                    continue
                value = 0.0
                for node in reversed(tree.path(leaf)):
                    value = tree.turns[node].reward + method.gamma * value
                    key = (g, tree.turns[node].state_key)
                    anchors[key].append(value)
                    steps.append((base + node, at, key, value))
                at += 1
            base += len(tree.turns)
    for turn, leaf, key, value in steps:
        others = anchors[key]
        spread = stdev(others) if len(others) > 1 else 0.0
        step = (value - fmean(others)) / (spread + 1e-6) if spread > 1e-12 else 0.0
        advantage = leaves[leaf] + method.omega * step
        trains = method.compare(TurnTable.of(groups)).trains[leaf]
        w = weights[leaf] * trains
        found[turn][0] += w * max(advantage, 0.0)
        found[turn][1] += w * min(advantage, 0.0)
        found[turn][2] += w
    return np.array([found[turn] for turn in range(base)]).reshape(-1, 3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_on_random_trees_it_is_the_definition(seed, gamma):
    groups, method = random_groups(seed, n_groups=2, max_turns=8), GigpoCredit(gamma=gamma)
    table = TurnTable.of(groups)
    trains = method.compare(table).trains
    weights, _ = row_weights(table, "sequence_mean", trains=trains)
    credit = method(table, weights)
    wanted = slow(groups, method, weights)
    np.testing.assert_allclose(credit.positive, wanted[:, 0], atol=1e-6)
    np.testing.assert_allclose(credit.negative, wanted[:, 1], atol=1e-6)
    np.testing.assert_allclose(credit.weight, wanted[:, 2], atol=1e-12)


def test_an_excluded_trajectory_is_in_no_anchor_group():
    cut = tree_of([ROOT], {0: 5.0}, stops={0: StopReason.TRUNCATED_TURNS})
    group = Group("g", "g", (chain([1.0], ["s"]), chain([0.0], ["s"]), stated(cut, ["s"])))
    found = worth(group, scale="none", truncated="exclude")
    np.testing.assert_allclose(found, [1.0, -1.0, 0.0])


@pytest.mark.parametrize("groups", [[], [Group("g", "g", ())]])
def test_nothing_has_no_credit(groups):
    assert len(assign(TurnTable.of(groups), GigpoCredit()).credit.weight) == 0
