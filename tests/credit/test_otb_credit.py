"""The optimal token baseline on values worked by hand and against its definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group
from agentrl.credit import GrpoCredit, OtbCredit, TurnTable, assign, row_weights
from agentrl.learner.kl_reward import charged
from agentrl.testing.trees import chains, random_groups, tree_of


def weighed(groups, norms):
    return replace(TurnTable.of(groups), logit_norms=np.asarray(norms, np.float64))


def worth(table, **given_):
    """Advantage of each token of chains."""
    credit = assign(table, OtbCredit(**given_), "constant", 1.0).credit
    assert credit.unit == "token"
    return credit.positive + credit.negative


def test_two_chains_by_hand():
    # The first has two tokens and earns 1, the second one token and 0. W: 1/2, 3/2 and 1/4.
    # b_1 = (1/2 * 1 + 1/4 * 0) / (3/4) = 2/3; the second index is the first chain's alone.
    group = Group("g", "g", (tree_of([ROOT], {0: 1.0}), tree_of([ROOT], {}, tokens=1)))
    table = weighed([group], [0.5, 1.0, 0.25])
    np.testing.assert_allclose(worth(table), [1 / 3, 0.0, -2 / 3])
    np.testing.assert_allclose(worth(table, singleton="raw"), [1 / 3, 1.0, -2 / 3])


def test_the_index_counts_action_tokens_over_turns_by_hand():
    # One chain of two turns of a token each, paid 1 and 2; one of one turn of two tokens, paid 1.
    # To go: 3, 2; 1, 1. Norms 1, 1; 1, 3: W 1, 2; 1, 4. b: (3 + 1) / 2 = 2, (4 + 4) / 6 = 4/3.
    first = tree_of([ROOT, 0], {0: 1.0, 1: 2.0}, tokens=1)
    table = weighed([Group("g", "g", (first, tree_of([ROOT], {0: 1.0})))], [1.0, 1.0, 1.0, 3.0])
    np.testing.assert_allclose(worth(table), [1.0, 2 / 3, -1.0, -1 / 3])


def test_a_shared_token_is_a_token_of_each_of_its_trajectories_by_hand():
    # A fork worth 1 and 0 after one token of norm 1; then tokens of norm 1 and 3: W 1; 2, 4.
    # b: (1 + 0) / 2 = 1/2, then (2 * 1 + 4 * 0) / 6 = 1/3.
    tree = tree_of([ROOT, 0, 0], {1: 1.0}, tokens=1)
    credit = assign(weighed([Group("g", "g", (tree,))], [1.0, 1.0, 3.0]), OtbCredit()).credit
    np.testing.assert_allclose(credit.positive, [1 / 2, 2 / 3, 0.0])
    np.testing.assert_allclose(credit.negative, [-1 / 2, 0.0, -1 / 3])
    assert credit.weight.tolist() == [2.0, 1.0, 1.0]


def test_tokens_that_are_charged_by_hand():
    # Two chains of two tokens of norm 1, worth 1 and 0; the first one's cost 1/2 and 1/4. To go:
    # 1/4, 3/4 and 0, 0. b: 1/8, then (2 * 3/4 + 2 * 0) / 4 = 3/8.
    table = charged(weighed([chains([1.0, 0.0])], np.ones(4)), np.array([0.5, 0.25, 0, 0]))
    np.testing.assert_allclose(worth(table), [1 / 8, 3 / 8, -1 / 8, -3 / 8])


@settings(max_examples=30, deadline=None)
# The smallest numbers that a float can hold have no halves: a mean with such weights is rounded.
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=7), st.just(0.0) | st.floats(1e-6, 2))
def test_where_all_norms_are_equal_it_is_the_difference_from_the_mean(returns, norm):
    groups = [chains(returns)]
    table = weighed(groups, np.full(2 * len(returns), norm))
    plain = assign(table, GrpoCredit(scale="none"), "constant", 1.0).credit.at_tokens(table)
    np.testing.assert_allclose(worth(table), plain.positive + plain.negative, atol=1e-8)


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3])
def test_equal_returns_are_exactly_zero_and_one_alone_says_nothing(value):
    norms = np.random.default_rng(0).random(14)
    assert worth(weighed([chains([value] * 7)], norms)).tolist() == [0.0] * 14
    alone = assign(weighed([chains([value])], norms[:2]), OtbCredit()).credit
    assert not alone.weight.any()
    raw = worth(weighed([chains([value])], norms[:2]), singleton="raw")
    assert raw.tolist() == [value, value]


def test_without_norms_it_says_what_is_missing():
    with pytest.raises(ContractError, match=r"TurnTable\.logit_norms"):
        assign(TurnTable.of([chains([1.0, 0.0])]), OtbCredit())


def slow(groups, norms, method, weights, trains, costs):
    """From the definition: every trajectory the list of its own action tokens and their `costs`."""
    starts, at = {}, 0
    rows, name = [], {}
    for g, group in enumerate(groups):
        for tree in group.trees:
            for node, turn in enumerate(tree.turns):
                starts[id(tree), node] = at
                at += len(turn.action_ids)
            for one in tree.trajectories():
                if not one.stop_reason.is_failure:
                    tokens, to_go = [], []
                    for k, (node, turn) in enumerate(zip(one.path, one.turns, strict=True)):
                        first = starts[id(tree), node]
                        own = range(first, first + len(turn.action_ids))
                        tokens += own
                        to_go += [sum(later.reward for later in one.turns[k:])] * len(own)
                    name[len(rows)] = g
                    to_go = [g - sum(costs[tokens[t:]]) for t, g in enumerate(to_go)]
                    rows.append((tokens, to_go, np.cumsum(norms[tokens]) if tokens else []))
    wanted = np.zeros((at, 3))
    for i, (tokens, to_go, _) in enumerate(rows):
        for t, token in enumerate(tokens):
            peers = [row for j, row in enumerate(rows) if name[j] == name[i] and len(row[0]) > t]
            base = sum(w[t] * g[t] for _, g, w in peers) / sum(w[t] for _, _, w in peers)
            lone = to_go[t] if method.singleton == "raw" else 0.0
            a = lone if len(peers) < 2 else to_go[t] - base
            a = 0.0 if abs(a) < 1e-9 else a
            weight = weights[i] * trains[i]
            wanted[token] += [weight * max(a, 0.0), weight * min(a, 0.0), weight]
    return wanted


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000), singleton=st.sampled_from(["zero", "raw"]), charges=st.booleans()
)
def test_on_random_trees_it_is_the_definition(seed, singleton, charges):
    groups = random_groups(seed, n_groups=2, max_turns=8)
    tokens = int(TurnTable.of(groups).tokens.sum())
    norms = np.random.default_rng(seed).random(tokens) + 0.01
    costs = np.random.default_rng(seed + 1).normal(size=tokens) * charges
    table, method = weighed(groups, norms), OtbCredit(singleton=singleton)
    if charges:
        table = charged(table, costs)
    trains = method.compare(table).trains
    weights = row_weights(table, "sequence_mean", trains=trains).weights
    credit = method(table, weights)
    wanted = slow(groups, norms, method, weights, trains, costs)
    np.testing.assert_allclose(credit.positive, wanted[:, 0], atol=1e-7)
    np.testing.assert_allclose(credit.negative, wanted[:, 1], atol=1e-7)
    np.testing.assert_allclose(credit.weight, wanted[:, 2], atol=1e-12)


@pytest.mark.parametrize("groups", [[], [Group("g", "g", ())]])
def test_nothing_has_no_credit(groups):
    assert len(assign(weighed(groups, []), OtbCredit()).credit.weight) == 0
