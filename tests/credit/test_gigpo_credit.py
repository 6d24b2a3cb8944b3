"""GiGPO on values worked by hand, against its definition step by step, and at its limits."""

import dataclasses
import math
from collections import defaultdict
from difflib import SequenceMatcher
from statistics import fmean, stdev

import numpy as np
import pytest
from credit_fakes import chain, stated
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GigpoCredit, GrpoCredit, TurnTable, assign, row_weights
from agentrl.credit.anchors import similar_states
from agentrl.testing.trees import random_groups, tree_of


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
    weights = row_weights(table, "sequence_mean", trains=trains).weights
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


def test_the_mean_size_of_anchor_groups_is_reported():
    # From "s" three steps, from "a" one, "" is in none: (3 + 1) / 2.
    group = Group("g", "g", (chain([0.0, 1.0], ["s", "s"]), chain([0.0, 0.0, 0.0], ["s", "a", ""])))
    credit = assign(TurnTable.of([group]), GigpoCredit()).credit
    assert credit.metrics == {"credit/anchor_size": 2.0}
    assert assign(TurnTable.of([]), GigpoCredit()).credit.metrics == {"credit/anchor_size": 0.0}


def shown(*observations, rewards):
    """A chain whose turns but the first acted on these tokens."""
    tree = chain(rewards, [""] * len(rewards))
    for node, tokens in enumerate(observations):
        seen = np.asarray(tokens, np.int32)
        tree.turns[node] = dataclasses.replace(tree.turns[node], observation_ids=seen)
    return tree


def test_steps_that_saw_almost_the_same_are_compared_by_similarity():
    # 9 of 10 tokens in common: ratio 2 * 9 / 20. The returns from there on are 1 and 0.
    near, far = [*range(9), 99], [*range(50, 60)]
    group = Group(
        "g",
        "g",
        (
            shown(range(10), rewards=[0.0, 1.0]),
            shown(near, rewards=[0.0, 0.0]),
            shown(far, rewards=[0.0, 0.5]),
        ),
    )
    table = TurnTable.of([group], with_tokens=True)

    def found(threshold):
        method = GigpoCredit(gamma=1.0, scale="none", similarity=threshold)
        credit = assign(table, method, "constant", 1.0).credit
        return credit.positive + credit.negative

    # Episode 1/2, -1/2, 0; all first steps saw one prompt: the same again.
    np.testing.assert_allclose(found(0.9), [1.0, 0.5 + 0.5, -1.0, -0.5 - 0.5, 0.0, 0.0])
    np.testing.assert_allclose(found(0.91), [1.0, 0.5, -1.0, -0.5, 0.0, 0.0])


def test_clusters_are_greedy_and_depend_on_the_order():
    # a and b share 9 of 10, b and c too, a and c 8: b finds a's cluster, or c finds b's.
    a, b, c = [*range(10)], [*range(1, 11)], [*range(2, 12)]

    def states(*order):
        trees = tuple(shown(tokens, rewards=[0.0, 0.0]) for tokens in order)
        table = TurnTable.of([Group("g", "g", trees)], with_tokens=True)
        return similar_states(table, 0.85)[1::2].tolist()

    assert states(a, b, c, a) == [1, 1, 2, 1]
    assert states(b, a, c) == [1, 1, 1]


def slow_states(table, threshold):
    """Each turn against the first member of each cluster, in order."""
    states, clusters = [], []
    for group, seen in zip(table.group, table.seen, strict=True):
        if not len(seen):
            states.append(-1)
            continue
        for number, (owner, first) in enumerate(clusters):
            ratio = SequenceMatcher(None, list(seen), list(first), autojunk=False).ratio()
            if owner == group and ratio >= threshold:
                states.append(number)
                break
        else:
            states.append(len(clusters))
            clusters.append((group, seen))
    return states


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.3, 0.5, 0.8]))
def test_clusters_are_the_greedy_definition(seed, threshold):
    rng = np.random.default_rng(seed)
    groups = random_groups(seed, n_groups=2)
    for group in groups:
        for tree in group.trees:
            tree.turns[:] = [
                dataclasses.replace(
                    turn, observation_ids=rng.integers(0, 4, rng.integers(0, 7)).astype(np.int32)
                )
                for turn in tree.turns
            ]
    table = TurnTable.of(groups, with_tokens=True)
    assert similar_states(table, threshold).tolist() == slow_states(table, threshold)


def test_similarity_asks_for_the_tokens():
    assert GigpoCredit(similarity=0.9).needs_tokens and not GigpoCredit().needs_tokens
    with pytest.raises(ContractError, match="with_tokens=True"):
        assign(TurnTable.of([Group("g", "g", (chain([1.0], ["s"]),))]), GigpoCredit(similarity=0.9))
    for wrong in (0.0, 1.0):
        with pytest.raises(ValueError, match="similarity"):
            GigpoCredit(similarity=wrong)
