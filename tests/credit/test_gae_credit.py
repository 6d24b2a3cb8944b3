"""GAE over tokens, over turns and over both, by hand and against their definitions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import BilevelGaeCredit, GaeCredit, TurnGaeCredit, TurnTable, assign
from agentrl.credit.aggregate import row_weights
from agentrl.credit.values import ValueTargets
from agentrl.learner.kl_reward import charged
from agentrl.testing.trees import chains, random_groups, tree_of

METHODS = [GaeCredit, TurnGaeCredit, BilevelGaeCredit]
CUT = StopReason.TRUNCATED_TURNS


def valued(groups, values=None, bootstrap=None, seed=0):
    """The groups' table with these values, or random ones."""
    table = TurnTable.of(groups)
    rng = np.random.default_rng(seed)
    size, leaves = int(table.tokens.sum()), len(table.leaf_turn)
    return replace(
        table,
        values=rng.normal(size=size) if values is None else np.asarray(values, float),
        bootstrap=rng.normal(size=leaves) if bootstrap is None else np.asarray(bootstrap, float),
    )


def with_costs(table, seed):
    """`table` with tokens charged at random, as by KL in the reward."""
    return charged(table, np.random.default_rng(seed).normal(size=int(table.tokens.sum())))


def plain(method, **given):
    return method(whiten=False, **given)


def advantages(table, method):
    """A of each token of a table of chains, where positive and negative are one number."""
    credit = assign(table, method).credit
    return credit.positive + credit.negative


def chain(reward, *, turns=1, tokens=2, stop=StopReason.TERMINATED):
    tree = tree_of([ROOT, *range(turns - 1)], reward, tokens=tokens, stops={turns - 1: stop})
    return Group("g", "t", (tree,))


# -- by hand ---------------------------------------------------------------------------------------


def test_three_tokens_by_hand():
    # gamma 1, lam 1/2, V = .5 .2 .4, reward 1 at the end: deltas .2 - .5, .4 - .2, 1 - .4
    # A_3 = .6, A_2 = .2 + .5 * .6 = .5, A_1 = -.3 + .5 * .5 = -.05
    table = valued([chain({0: 1.0}, tokens=3)], [0.5, 0.2, 0.4])
    method = plain(GaeCredit, lam=0.5)
    np.testing.assert_allclose(advantages(table, method), [-0.05, 0.5, 0.6])
    targets = method.targets(table, np.ones(1), method.compare(table))
    np.testing.assert_allclose(targets.target, [0.45, 0.7, 1.0])


def test_tokens_that_are_charged_by_hand():
    # V = 0, reward 1 at the end, charges .1 .2 .3: r = -.1, -.2, .7; gamma 1, lam 1/2:
    # A_3 = .7, A_2 = -.2 + .5 * .7 = .15, A_1 = -.1 + .5 * .15 = -.025
    table = charged(valued([chain({0: 1.0}, tokens=3)], [0, 0, 0]), np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(advantages(table, plain(GaeCredit, lam=0.5)), [-0.025, 0.15, 0.7])
    # All at the turn's end it would be 1 - .6 there, and .2 and .1 before it.
    late = replace(table, token_rewards=None)
    np.testing.assert_allclose(advantages(late, plain(GaeCredit, lam=0.5)), [0.1, 0.2, 0.4])
    # One action of a turn pays all of it at once.
    np.testing.assert_allclose(advantages(table, plain(TurnGaeCredit)), [0.4, 0.4, 0.4])


def test_both_levels_with_charges_by_hand():
    # Two turns of two tokens, V = 0, rewards 0 and 1, charges .1 .2 .3 .4; gamma_turn 1/2.
    # Between turns: A(e_2) = 1 - .4 = .6, A(e_1) = -.2 + .5 * (-.3) + .5 * .6 = -.05
    # Inside: A_3 = -.3 + .6 = .3, A_1 = -.1 - .05 = -.15
    table = charged(
        valued([chain({1: 1.0}, turns=2)], [0, 0, 0, 0]), np.array([0.1, 0.2, 0.3, 0.4])
    )
    found = advantages(table, plain(BilevelGaeCredit, gamma_turn=0.5))
    np.testing.assert_allclose(found, [-0.15, -0.05, 0.3, 0.6])


def test_two_turns_by_hand_discount_nothing_on_what_the_environment_says():
    # gamma .5, lam 1, two turns of two tokens, V = 1 2 3 4, rewards 1 and 2 at their ends:
    # deltas .5*2 - 1 = 0, 1 + .5*3 - 2 = .5, .5*4 - 3 = -1, 2 - 4 = -2
    # A = -2, -1 - 1 = -2, .5 - 1 = -.5, 0 - .25 = -.25
    table = valued([chain({0: 1.0, 1: 2.0}, turns=2)], [1, 2, 3, 4])
    method = plain(GaeCredit, gamma=0.5, lam=1.0)
    np.testing.assert_allclose(advantages(table, method), [-0.25, -0.5, -2.0, -2.0])


def test_a_turn_has_one_advantage_by_hand():
    # V of the turns' first tokens 1 and 3, gamma .5, lam .5: delta_2 = 2 - 3 = -1,
    # delta_1 = 1 + .5 * 3 - 1 = 1.5, A_1 = 1.5 + .25 * -1 = 1.25; the other values are not read
    table = valued([chain({0: 1.0, 1: 2.0}, turns=2)], [1, 99, 3, -99])
    method = plain(TurnGaeCredit, gamma=0.5, lam=0.5)
    np.testing.assert_allclose(advantages(table, method), [1.25, 1.25, -1.0, -1.0])
    targets = method.targets(table, np.ones(1), method.compare(table))
    np.testing.assert_allclose(targets.weight, [1, 0, 1, 0])
    np.testing.assert_allclose(targets.target, [2.25, 0, 2.0, 0])


def test_both_levels_by_hand_where_a_turn_earns_nothing():
    # Turns of two tokens, V = 1 2 3 4, rewards 0 and 2, gamma_turn .5, gamma 1, lam 1.
    # Turns: A_2 = 2 - 4 = -2, A_1 = 0 + .5 * 4 - 2 + .5 * -2 = -1; G = 2 and 1.
    # Tokens: 2 - 4 = -2 and 4 - 3 - 2 = -1; 1 - 2 = -1 and 2 - 1 - 1 = 0.
    table = valued([chain({1: 2.0}, turns=2)], [1, 2, 3, 4])
    method = plain(BilevelGaeCredit, gamma_turn=0.5)
    np.testing.assert_allclose(advantages(table, method), [0.0, -1.0, -1.0, -2.0])


def test_a_shared_turn_carries_each_leafs_advantage_by_hand():
    # A root turn and two answers of one token, paid 1 and 0; V = .5 everywhere, lam 1:
    # the leaves' A are .5 and -.5 at every token.
    tree = tree_of([ROOT, 0, 0], {1: 1.0}, tokens=1)
    table = valued([Group("g", "t", (tree,))], [0.5] * 3)
    method = plain(GaeCredit, lam=1.0)
    credit = assign(table, method).credit
    np.testing.assert_allclose(credit.positive, [0.5, 0.5, 0.0])
    np.testing.assert_allclose(credit.negative, [-0.5, 0.0, -0.5])
    targets = method.targets(table, np.ones(2), method.compare(table))
    # Targets 1 and 0 at the root: mean 1/2, sum of squares around it 1/2.
    np.testing.assert_allclose(targets.weight, [2, 1, 1])
    np.testing.assert_allclose(targets.target, [0.5, 1.0, 0.0])
    np.testing.assert_allclose(targets.spread, [0.5, 0.0, 0.0])


def test_a_limit_is_bootstrapped_or_is_the_end_or_is_left_out():
    group = chain({0: 1.0}, tokens=1, stop=CUT)
    table = valued([group], [0.25], bootstrap=[4.0])
    method = plain(GaeCredit, gamma=0.5)
    assert advantages(table, method).tolist() == [1.0 + 0.5 * 4.0 - 0.25]
    assert advantages(table, plain(GaeCredit, truncated="terminal")).tolist() == [0.75]
    masked = assign(table, plain(GaeCredit, truncated="mask"))
    assert masked.credit.weight.tolist() == [0.0] and not masked.leaves.trains.any()
    ended = valued([chain({0: 1.0}, tokens=1)], [0.25], bootstrap=[4.0])
    assert advantages(ended, method).tolist() == [0.75]


def test_whitening_by_hand():
    # A = 1 and 0 and -4: mean -1, unbiased variance (4 + 1 + 9) / 2 = 7.
    groups = [chain({0: value}, tokens=1) for value in (1.0, 0.0, -4.0)]
    found = advantages(valued(groups, [0, 0, 0]), GaeCredit())
    np.testing.assert_allclose(found, np.array([2.0, 1.0, -3.0]) / np.sqrt(7 + 1e-8))


def test_one_token_and_advantages_that_are_all_equal():
    assert advantages(valued([chain({0: 1.0}, tokens=1)], [0.0]), GaeCredit()).tolist() == [0.0]
    groups = [chain({0: 0.1}, tokens=1) for _ in range(7)]
    table = valued(groups, [0.0] * 7)
    assert advantages(table, GaeCredit()).tolist() == [0.0] * 7
    assert advantages(table, plain(GaeCredit)).tolist() == [0.1] * 7


def test_the_reward_of_a_turn_without_tokens_goes_to_the_token_before_it():
    # The second turn has no token; its reward 2 belongs to the first turn's last one. What a path
    # earns before its first token is nobody's.
    tree = tree_of([ROOT, 0, 1, 2], {0: 5.0, 2: 2.0, 3: 1.0}, tokens=[0, 2, 0, 1])
    table = valued([Group("g", "t", (tree,))], np.zeros(3))
    np.testing.assert_allclose(
        advantages(table, plain(GaeCredit, gamma=0.5, lam=1.0)), [1.25, 2.5, 1.0]
    )
    np.testing.assert_allclose(
        advantages(table, plain(TurnGaeCredit, gamma=0.5, lam=1.0)), [2.5, 2.5, 1.0]
    )


def test_a_table_without_values_says_what_to_do():
    table = TurnTable.of([chain({0: 1.0}, stop=CUT)])
    with pytest.raises(ContractError, match=r"set learner\.critic"):
        assign(table, GaeCredit())
    table = replace(table, values=np.zeros(2))
    with pytest.raises(ContractError, match="last states"):
        assign(table, GaeCredit())
    assign(table, GaeCredit(truncated="terminal"))


# -- identities ------------------------------------------------------------------------------------


def test_without_values_and_discounts_it_is_the_return_to_go():
    rewards = {0: 1.0, 1: -2.0, 2: 0.5}
    for method in METHODS:
        given = {"gamma_turn": 1.0} if method is BilevelGaeCredit else {}
        table = valued([chain(rewards, turns=3)], np.zeros(6))
        found = advantages(table, plain(method, gamma=1.0, lam=1.0, **given))
        np.testing.assert_allclose(found, [-0.5, -0.5, -1.5, -1.5, 0.5, 0.5])


def test_a_reward_on_the_first_token_reaches_no_later_one():
    table = valued([chain({0: 3.0}, turns=3, tokens=1)], np.zeros(3))
    assert advantages(table, plain(GaeCredit)).tolist() == [3.0, 0.0, 0.0]


@pytest.mark.parametrize("seed", range(4))
def test_with_lam_0_it_is_delta(seed):
    table = valued([chain({1: 1.0, 3: 2.0}, turns=4, tokens=3)], seed=seed)
    reward = np.zeros(12)
    reward[[5, 11]] = 1.0, 2.0
    delta = reward + 0.9 * np.append(table.values[1:], 0.0) - table.values
    np.testing.assert_allclose(advantages(table, plain(GaeCredit, gamma=0.9, lam=0.0)), delta)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_it_is_the_double_sum_over_the_sequence_without_observations(sizes, gamma, lam, seed):
    rng = np.random.default_rng(seed)
    rewards = {node: float(rng.normal()) for node, size in enumerate(sizes) if size}
    tree = tree_of([ROOT, *range(len(sizes) - 1)], rewards, tokens=sizes)
    table = valued([Group("g", "t", (tree,))], seed=seed)
    ends = np.cumsum(sizes) - 1
    reward = np.zeros(sum(sizes))
    for node, value in rewards.items():
        reward[ends[node]] += value
    delta = reward + gamma * np.append(table.values[1:], 0.0)[: len(reward)] - table.values
    slow = [
        sum((gamma * lam) ** (later - t) * delta[later] for later in range(t, len(delta)))
        for t in range(len(delta))
    ]
    found = advantages(table, plain(GaeCredit, gamma=gamma, lam=lam))
    np.testing.assert_allclose(found, slow, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_with_one_token_to_a_turn_all_forms_are_one(seed):
    table = valued([chain({2: 1.0, 4: -1.0}, turns=5, tokens=1, stop=CUT)], seed=seed)
    found = advantages(table, plain(GaeCredit, gamma=0.9, lam=0.8))
    for method in (
        TurnGaeCredit(gamma=0.9, lam=0.8, whiten=False),
        BilevelGaeCredit(gamma_turn=0.9, lam=0.8, whiten=False),
    ):
        np.testing.assert_allclose(advantages(table, method), found, atol=1e-12)


def test_both_levels_without_discounts_are_the_token_form():
    table = with_costs(valued(random_groups(3), seed=3), 3)
    one = assign(table, BilevelGaeCredit(gamma_turn=1.0)).credit
    other = assign(table, GaeCredit(lam=1.0)).credit
    np.testing.assert_allclose(one.positive, other.positive, atol=1e-12)
    np.testing.assert_allclose(one.negative, other.negative, atol=1e-12)


# -- against the definition, one flat row for each trajectory --------------------------------------


def flat_rows(table, values, boot):
    """Of each leaf: the tokens along its path, their turns' first and last, and what each is paid.

    What single tokens are not paid of a turn's reward stands at its end.
    """
    alone = np.zeros(len(values)) if table.token_rewards is None else table.token_rewards
    starts = table.token_starts
    for leaf, turn in enumerate(table.leaf_turn):
        path = []
        while turn != ROOT:
            path.append(turn)
            turn = table.parent[turn]
        tokens, spans, rewards = [], [], []
        for one in reversed(path):
            own = list(range(starts[one], starts[one + 1]))
            if own:
                spans.append((len(tokens), len(tokens) + len(own) - 1))
                tokens += own
                rewards += [*alone[own]]
                rewards[-1] += table.reward[one] - alone[own].sum()
            elif rewards:
                rewards[-1] += table.reward[one]
        last = boot[leaf] if table.leaf_truncated[leaf] else 0.0
        yield leaf, tokens, spans, rewards, values[tokens], last


def slow_advantages(method, spans, rewards, values, last):
    """The formulas of the docstrings, token by token."""
    found = np.zeros(len(values))
    if isinstance(method, GaeCredit):
        after = 0.0
        for t in reversed(range(len(values))):
            following = values[t + 1] if t + 1 < len(values) else last
            after = (
                rewards[t]
                + method.gamma * following
                - values[t]
                + method.gamma * method.lam * after
            )
            found[t] = after
        return found
    turn_gamma = method.gamma if isinstance(method, TurnGaeCredit) else method.gamma_turn
    after, following = 0.0, last
    for start, end in reversed(spans):
        at = start if isinstance(method, TurnGaeCredit) else end
        reward = sum(rewards[at : end + 1])
        after = reward + turn_gamma * following - values[at] + turn_gamma * method.lam * after
        following = sum(rewards[start:at]) + values[at]
        if isinstance(method, TurnGaeCredit):
            found[start : end + 1] = after
            continue
        inner = after
        found[end] = inner
        for t in reversed(range(start, end)):
            delta = rewards[t] + method.gamma * values[t + 1] - values[t]
            inner = delta + method.gamma * method.lam * inner
            found[t] = inner
    return found


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_on_random_trees_it_is_the_definition_on_flat_rows(seed, method, aggregation, whiten):
    table = valued(random_groups(seed, max_turns=14), seed=seed)
    if seed:
        table = with_costs(table, seed)
    given = {"gamma": 0.9, "lam": 0.7}
    credit_method = method(whiten=whiten, **given)
    rows = list(flat_rows(table, table.values, table.bootstrap))
    flat = [slow_advantages(credit_method, *row[2:]) for row in rows]
    every = np.concatenate(flat)
    center, scale = 0.0, 1.0
    if whiten:
        center, scale = every.mean(), 1 / np.sqrt(every.var(ddof=1) + 1e-8)
    wanted = np.zeros((3, len(table.values)))
    squares = np.zeros((3, len(table.values)))
    weights = row_weights(table, aggregation).weights
    for (leaf, tokens, spans, *_), raw in zip(rows, flat, strict=True):
        found = (raw - center) * scale
        w = weights[leaf]
        wanted[0, tokens] += w * np.maximum(found, 0)
        wanted[1, tokens] += w * np.minimum(found, 0)
        wanted[2, tokens] += w
        read = [
            t for at, t in enumerate(tokens) if method is not TurnGaeCredit or at in dict(spans)
        ]
        own = dict(zip(tokens, raw + table.values[tokens], strict=True))
        for t in read:
            squares[:, t] += w, w * own[t], w * own[t] ** 2
    assigned = assign(table, credit_method, aggregation)
    np.testing.assert_allclose(assigned.credit.positive, wanted[0], atol=1e-10)
    np.testing.assert_allclose(assigned.credit.negative, wanted[1], atol=1e-10)
    np.testing.assert_allclose(assigned.credit.weight, wanted[2], atol=1e-12)
    targets = credit_method.targets(table, assigned.rows.weights, assigned.leaves)
    np.testing.assert_allclose(targets.weight, squares[0], atol=1e-12)
    np.testing.assert_allclose(targets.weight * targets.target, squares[1], atol=1e-10)
    np.testing.assert_allclose(
        targets.spread + targets.weight * targets.target**2, squares[2], atol=1e-10
    )
    # A whole trajectory is judged by its first turn.
    first = [
        (raw[0] if method is not BilevelGaeCredit else raw[spans[0][1]]) if len(raw) else 0.0
        for (_, _, spans, *_), raw in zip(rows, flat, strict=True)
    ]
    np.testing.assert_allclose(assigned.leaves.advantage, first, atol=1e-10)


def test_the_three_sums_are_a_squared_error_over_leaves_for_every_value():
    rng = np.random.default_rng(0)
    w, r = rng.random(5), rng.normal(size=5)
    target = (w * r).sum() / w.sum()
    sums = ValueTargets(w.sum(), target, (w * (r - target) ** 2).sum())
    for v in (-2.0, 0.0, 3.0):
        exact = (w * (v - r) ** 2).sum()
        assert sums.weight * (v - sums.target) ** 2 + sums.spread == pytest.approx(exact)


# -- properties ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_groups_in_another_order_have_the_same_credit(method):
    groups = random_groups(5, n_groups=4)
    table = valued(groups, seed=1)
    one = assign(table, method()).credit
    order = [2, 0, 3, 1]
    group_of_token = np.repeat(table.group, table.tokens)
    shuffled = np.concatenate([np.flatnonzero(group_of_token == g) for g in order])
    leaves = np.concatenate([np.flatnonzero(table.leaf_group == g) for g in order])
    other = valued(
        [groups[g] for g in order], table.values[shuffled], bootstrap=table.bootstrap[leaves]
    )
    again = assign(other, method()).credit
    np.testing.assert_allclose(again.positive, one.positive[shuffled], atol=1e-12)
    np.testing.assert_allclose(again.negative, one.negative[shuffled], atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_what_no_trajectory_reads_does_not_matter(method):
    """Values below failures alone, rewards that are no number, last states of ended episodes."""
    broken = tree_of(
        [ROOT, 0, 0, 0], {1: 1.0, 3: float("nan")}, stops={2: StopReason.ENV_ERROR}, tokens=2
    )
    groups = [Group("g", "t", (broken,)), chains([1.0, 0.0])]
    table = valued(groups, seed=2)
    one = assign(table, method())
    garbage = table.values.copy()
    garbage[4:8] = np.nan  # the failed leaf's turn and the unscored one's
    other = assign(replace(table, values=garbage, bootstrap=np.full(4, np.inf)), method())
    assert one.leaves.trains.tolist() == [True, False, True, True]
    assert one.leaves.leaves_unscored == 1
    for name in ("positive", "negative", "weight"):
        assert getattr(one.credit, name).tolist() == getattr(other.credit, name).tolist()
    targets = method().targets(
        replace(table, values=garbage), np.asarray([1.0, 0, 1, 1]), other.leaves
    )
    assert np.isfinite(targets.target).all() and targets.weight[4:8].tolist() == [0.0] * 4


@pytest.mark.parametrize("method", METHODS)
def test_tables_with_nothing_in_them(method):
    assert len(assign(valued([]), method()).credit.weight) == 0
    lost = tree_of([ROOT], {}, stops={0: StopReason.CANCELLED})
    found = assign(valued([Group("g", "t", (lost,))]), method())
    assert found.credit.weight.tolist() == [0.0, 0.0]
    empty = tree_of([ROOT], {0: 1.0}, tokens=0)
    found = assign(valued([Group("g", "t", (empty,))]), method())
    assert len(found.credit.weight) == 0 and found.denominator == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_a_leafs_copies_are_the_chain_of_it_alone(method):
    """A tree's credit is the sum of its trajectories' as chains, each with a copy of its values."""
    tree = tree_of([ROOT, 0, 0, 1], {1: 0.5, 2: 1.0, 3: -1.0}, tokens=[2, 1, 3, 2])
    whole = valued([Group("g", "t", (tree,))], seed=4)
    found = assign(whole, plain(method)).credit
    starts = whole.token_starts
    positive, negative = np.zeros((2, 8))
    for path in ((0, 2), (0, 1, 3)):
        rewards = {at: tree.turns[node].reward for at, node in enumerate(path)}
        sizes = [len(tree.turns[node].action_ids) for node in path]
        alone = tree_of([ROOT, *range(len(path) - 1)], rewards, tokens=sizes)
        tokens = np.concatenate([np.arange(starts[n], starts[n + 1]) for n in path])
        part = assign(valued([Group("g", "t", (alone,))], whole.values[tokens]), plain(method))
        positive[tokens] += part.credit.positive
        negative[tokens] += part.credit.negative
    np.testing.assert_allclose(found.positive, positive, atol=1e-12)
    np.testing.assert_allclose(found.negative, negative, atol=1e-12)
