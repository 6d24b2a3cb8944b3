"""HGPO on values worked by hand, against its definition step by step, and at its limits."""

import dataclasses
from collections import defaultdict
from statistics import fmean, pstdev

import numpy as np
import pytest
from credit_fakes import chain, stated
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GigpoCredit, GrpoCredit, HgpoCredit, TurnTable, assign, row_weights
from agentrl.testing.trees import chains, random_groups, tree_of


def worth(group, **given):
    """Advantage of each turn of chains whose tokens weigh the same."""
    credit = assign(TurnTable.of([group]), HgpoCredit(**given), "constant", 1.0).credit
    return credit.positive + credit.negative


def three():
    """Three chains through "s", the first two from "a", the third from "b"; they earn 1, 0, 0."""
    return Group(
        "g",
        "g",
        (
            chain([0.0, 1.0], ["a", "s"]),
            chain([0.0, 0.0], ["a", "s"]),
            chain([0.0, 0.0], ["b", "s"]),
        ),
    )


def test_two_levels_by_hand():
    # From "a": 1, 0, so a_0 = +-1/2; "b" stands alone. From "s": a_0 = 2/3, -1/3, -1/3; after "a":
    # a_1 = +-1/2 with twice the weight; the third has no level 1.
    found = worth(three(), gamma=1.0, scale="none", history=1)
    one, two = (2 / 3 + 2 * 1 / 2) / 3, (-1 / 3 - 2 * 1 / 2) / 3
    np.testing.assert_allclose(found, [1 / 2, one, -1 / 2, two, 0.0, -1 / 3])
    # Alpha 0 weighs the levels alike, alpha 2 the second four times.
    alike = worth(three(), gamma=1.0, scale="none", history=1, alpha=0.0)
    np.testing.assert_allclose(alike[[1, 3]], [(2 / 3 + 1 / 2) / 2, (-1 / 3 - 1 / 2) / 2])
    steep = worth(three(), gamma=1.0, scale="none", history=1, alpha=2.0)
    np.testing.assert_allclose(steep[1], (2 / 3 + 4 / 2) / 5)
    # No step has two predecessors, so a longer history changes nothing.
    np.testing.assert_allclose(worth(three(), gamma=1.0, scale="none", history=5), found)


def test_the_population_s_standard_deviation_divides():
    # 1, 0, 0: mean 1/3, population variance 2/9. A pair is at +-1.
    spread = (2 / 9) ** 0.5
    found = worth(three(), gamma=1.0, history=1)
    one, two = (2 / 3 / spread + 2) / 3, (-1 / 3 / spread - 2) / 3
    np.testing.assert_allclose(found, [1, one, -1, two, 0, -1 / 3 / spread], atol=1e-5)


def test_a_discount_counts_from_the_step_on():
    group = Group("g", "g", (chain([1.0, 1.0], ["s", "a"]), chain([0.0, 0.0], ["s", "b"])))
    found = worth(group, gamma=0.5, scale="none", history=0)
    np.testing.assert_allclose(found, [0.75, 0, -0.75, 0])


@pytest.mark.parametrize(("zeros", "jump"), [("count", 1 / 4 / 3), ("drop", 1 / 4)])
def test_dropping_zeros_makes_the_advantage_jump_and_counting_them_does_not(zeros, jump):
    # From "s": 0, 1/2, 1/2 + delta, 0, so the second has a_0 = 1/4. After "a", where it was with
    # the third, a_1 is -delta / 2: for delta = 0 it is exactly 0.
    def second(delta):
        returns, states = [0.0, 0.5, 0.5 + delta, 0.0], ["b", "a", "a", "c"]
        pairs = zip(returns, states, strict=True)
        group = Group("g", "g", tuple(chain([0.0, r], [state, "s"]) for r, state in pairs))
        return worth(group, gamma=1.0, scale="none", history=1, zeros=zeros)[3]

    assert second(1e-6) == pytest.approx(1 / 4 / 3, abs=1e-5)
    assert second(0.0) == pytest.approx(jump)


def slow(groups, method, weights, trains):
    """The definition: every trajectory a list of its own steps, groups by tuples of states."""
    members, steps, base, leaf_at = defaultdict(list), [], 0, 0
    for g, group in enumerate(groups):
        for tree in group.trees:
            for leaf, reason in sorted(tree.leaves.items()):
                if reason.is_failure:
                    continue
                path, value = tree.path(leaf), 0.0
                states = [tree.turns[node].state_key for node in path]
                for at in reversed(range(len(path))):
                    value = tree.turns[path[at]].reward + method.gamma * value
                    keys = []
                    for k in range(min(method.history, at) + 1):
                        context = tuple(states[at - k : at + 1])
                        if all(context):
                            keys.append((k, (g, k, context)))
                            members[g, k, context].append(value)
                    steps.append((base + path[at], leaf_at, keys, value))
                leaf_at += 1
            base += len(tree.turns)
    found = np.zeros((base, 3))
    for turn, leaf, keys, value in steps:
        gain = total = 0.0
        for k, key in keys:
            others = members[key]
            if len(others) < 2:
                continue
            spread = pstdev(others)
            a = 0.0 if spread < 1e-12 else (value - fmean(others)) / (spread + 1e-6)
            a = 0.0 if abs(a) < 1e-12 else a
            if method.zeros == "drop" and a == 0.0:
                continue
            gain += (k + 1) ** method.alpha * a
            total += (k + 1) ** method.alpha
        advantage, w = gain / total if total else 0.0, weights[leaf] * trains[leaf]
        found[turn] += [w * max(advantage, 0.0), w * min(advantage, 0.0), w]
    return found


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    history=st.integers(0, 3),
    gamma=st.sampled_from([0.0, 0.5, 1.0]),
    alpha=st.sampled_from([0.0, 1.0, 1.5]),
)
def test_on_random_trees_it_is_the_definition(seed, history, gamma, alpha):
    groups = random_groups(seed, n_groups=2, max_turns=9)
    for group in groups:
        for tree in group.trees:  # Three states in all, so that histories meet; one is not known.
            stated(tree, [str(len(turn.observation_ids) % 3 or "") for turn in tree.turns])
    method = HgpoCredit(history=history, gamma=gamma, alpha=alpha)
    table = TurnTable.of(groups)
    trains = method.compare(table).trains
    weights = row_weights(table, "sequence_mean", trains=trains).weights
    credit = method(table, weights)
    wanted = slow(groups, method, weights, trains)
    np.testing.assert_allclose(credit.positive, wanted[:, 0], atol=1e-6)
    np.testing.assert_allclose(credit.negative, wanted[:, 1], atol=1e-6)
    np.testing.assert_allclose(credit.weight, wanted[:, 2], atol=1e-12)


def test_a_state_that_is_not_known_is_in_no_group_and_ends_every_history():
    group = Group("g", "g", (chain([0.0, 1.0], ["", "s"]), chain([0.0, 0.0], ["", "s"])))
    found = worth(group, gamma=1.0, scale="none", history=1)
    np.testing.assert_allclose(found, [0.0, 0.5, 0.0, -0.5])
    # "t" after "s" after "": level 1 holds, level 2 does not.
    longer = [chain([0.0, 0.0, r], ["", "s", "t"]) for r in (1.0, 0.0)]
    found = worth(Group("g", "g", tuple(longer)), gamma=1.0, scale="none", history=2)
    np.testing.assert_allclose(found, [0.0, 0.5, 0.5, 0.0, -0.5, -0.5])


def test_tasks_are_never_compared_and_ties_are_exactly_zero():
    groups = [
        Group(name, name, (chain([0.1, value], ["s", "t"]), chain([0.1, value], ["s", "t"])))
        for name, value in [("a", 1.0), ("b", 0.2)]
    ]
    credit = assign(TurnTable.of(groups), HgpoCredit()).credit
    assert not credit.positive.any() and not credit.negative.any()
    assert (credit.weight > 0).all()


def test_a_group_of_one_and_excluded_trajectories_are_in_nothing():
    alone = assign(TurnTable.of([chains([1.0], turns=2)]), HgpoCredit())
    assert not alone.credit.weight.any()
    with pytest.raises(ContractError, match="one trajectory left"):
        assign(TurnTable.of([chains([1.0])]), HgpoCredit(singleton="error"))
    cut = tree_of([ROOT], {0: 5.0}, stops={0: StopReason.TRUNCATED_TURNS})
    group = Group("g", "g", (chain([1.0], ["s"]), chain([0.0], ["s"]), stated(cut, ["s"])))
    found = worth(group, scale="none", truncated="exclude")
    np.testing.assert_allclose(found, [0.5, -0.5, 0.0])
    masked = worth(group, scale="none", truncated="mask")
    np.testing.assert_allclose(masked, [-1.0, -2.0, 0.0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_trees_does_not_matter(seed):
    (group,) = random_groups(seed, n_groups=1)

    def credit(one):
        found = assign(TurnTable.of([one]), HgpoCredit()).credit
        return np.stack([found.positive, found.negative, found.weight])

    sizes = [len(tree.turns) for tree in group.trees]
    parts = np.split(credit(group), np.cumsum(sizes)[:-1], axis=1)
    turned = dataclasses.replace(group, trees=group.trees[::-1])
    np.testing.assert_allclose(credit(turned), np.hstack(parts[::-1]), atol=1e-9)


@pytest.mark.parametrize("groups", [[], [Group("g", "g", ())]])
def test_nothing_has_no_credit(groups):
    assert len(assign(TurnTable.of(groups), HgpoCredit()).credit.weight) == 0


@pytest.mark.parametrize("seed", range(4))
def test_without_history_and_scale_it_is_gigpo_without_its_episodes(seed):
    table = TurnTable.of(random_groups(seed))
    plain = {"scale": "none", "gamma": 0.9}
    steps = HgpoCredit(history=0, **plain)
    both, episodes = GigpoCredit(**plain), GrpoCredit(scale="none")
    found, gigpo, grpo = (
        (one.positive + one.negative)
        for one in (assign(table, method).credit for method in (steps, both, episodes))
    )
    np.testing.assert_allclose(found, gigpo - grpo, atol=1e-9)
