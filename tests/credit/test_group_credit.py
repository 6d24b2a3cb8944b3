"""GRPO and ARPO on values worked by hand, against a slow oracle, and under permutation."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason, TrajectoryTree
from agentrl.credit import ArpoCredit, GrpoCredit, TurnTable, assign, row_weights
from agentrl.credit.groups import against_group
from agentrl.credit.subtree import Levels, at_leaves, path_sums, subtree_sums, trajectory_sums
from agentrl.testing.trees import chains, random_groups, tree_of

AGGREGATIONS = [
    ("token_mean", None),
    ("token_sum", None),
    ("turn_mean", None),
    ("turn_sum", None),
    ("sequence_mean", None),
    ("sequence_sum", None),
    ("constant", 7.0),
]


def advantages(returns: list[float], **settings: str) -> np.ndarray:
    return GrpoCredit(**settings).compare(TurnTable.of([chains(returns)])).advantage


def test_one_success_in_eight_is_worth_2_4749() -> None:
    got = advantages([1.0, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(got, [2.4749] + 7 * [-0.3536], atol=5e-5)
    assert abs(got.sum()) < 1e-12


def test_two_trajectories_use_the_sample_standard_deviation() -> None:
    np.testing.assert_allclose(advantages([0.0, 1.0]), [-0.7071, 0.7071], atol=5e-5)


def test_without_scale_the_advantage_is_the_difference_from_the_mean() -> None:
    np.testing.assert_allclose(advantages([0.0, 1.0, 0.5], scale="none"), [-0.5, 0.5, 0.0])


@pytest.mark.parametrize("value", [0.1, 0.2, 0.3, 0.4, 0.7, 0.9, 0.98, 1 / 3])
@pytest.mark.parametrize("size", [2, 7, 15])
def test_equal_returns_give_exactly_zero(value: float, size: int) -> None:
    assert (advantages([float(np.float32(value))] * size) == 0.0).all()


def test_returns_that_differ_by_rounding_alone_are_equal() -> None:
    group = Group(
        "g",
        "g",
        (
            tree_of([ROOT, 0], {0: 0.1, 1: 0.3}),
            tree_of([ROOT, 0], {0: 0.3, 1: 0.1}),
            tree_of([ROOT, 0, 1], {0: 0.1, 1: 0.1, 2: 0.2}),
        ),
    )
    leaves = GrpoCredit().compare(TurnTable.of([group]))
    assert (leaves.advantage == 0.0).all()
    assert leaves.groups_equal == 1
    assert leaves.trains.all(), "an advantage of 0 still trains"


def test_a_group_of_one_trains_nothing_is_raw_or_is_an_error() -> None:
    table = TurnTable.of([chains([0.5]), chains([0.0, 1.0])])
    zero = assign(table, GrpoCredit())
    assert zero.leaves.groups_dropped == 1
    assert zero.credit.weight.tolist() == [0.0, 1.0, 1.0]
    assert zero.denominator == 4.0, "the dropped group's two tokens are not counted"
    raw = assign(table, GrpoCredit(singleton="raw"))
    assert raw.leaves.advantage[0] == 0.5
    assert raw.denominator == 6.0
    with pytest.raises(ContractError, match="1 of 2 groups have one trajectory left"):
        assign(table, GrpoCredit(singleton="error"))


def cut_tree() -> Group:
    """Returns 1 (terminated), 0 (terminated), 4 (truncated)."""
    stops = {2: StopReason.TRUNCATED_TOKENS}
    return Group("g", "g", (tree_of([ROOT] * 3, {0: 1.0, 2: 4.0}, stops=stops),))


@pytest.mark.parametrize(
    ("truncated", "expected", "trains"),
    [
        ("keep", [-2 / 3, -5 / 3, 7 / 3], [True, True, True]),
        ("mask", [-2 / 3, -5 / 3, 0.0], [True, True, False]),
        ("exclude", [0.5, -0.5, 0.0], [True, True, False]),
    ],
)
def test_truncated_trajectories_are_kept_masked_or_excluded(
    truncated: str, expected: list[float], trains: list[bool]
) -> None:
    method = GrpoCredit(scale="none", truncated=truncated)
    table = TurnTable.of([cut_tree()])
    got = assign(table, method)
    np.testing.assert_allclose(got.leaves.advantage, expected)
    assert got.leaves.trains.tolist() == trains
    assert got.denominator == 2.0 * sum(trains)
    assert (got.credit.weight > 0).tolist() == trains


def test_failures_are_in_no_statistic_and_a_group_with_one_survivor_is_dropped() -> None:
    stops = {1: StopReason.ENV_ERROR, 2: StopReason.ENGINE_ERROR}
    group = Group("g", "g", (tree_of([ROOT] * 3, {0: 1.0, 2: 9.0}, stops=stops),))
    got = assign(TurnTable.of([group]), GrpoCredit())
    assert got.leaves.groups_dropped == 1
    assert not got.credit.weight.any()
    assert got.denominator == 1.0


def test_a_trajectory_without_a_finite_return_takes_no_part() -> None:
    got = assign(TurnTable.of([chains([1.0, float("nan"), 0.0])]), GrpoCredit(scale="none"))
    assert got.leaves.leaves_unscored == 1
    assert got.leaves.advantage.tolist() == [0.5, 0.0, -0.5]
    assert got.credit.weight.tolist() == [1.0, 0.0, 1.0]


def two_forks() -> TurnTable:
    """Node 0 is shared by leaves 1, 3, 4; node 2 by leaves 3 and 4; leaf 5 is a chain of one.

    Returns: leaf 1: 1, leaf 3: 0, leaf 4: 0, leaf 5: 1, so a = 1/2, -1/2, -1/2, 1/2 unscaled.
    Path tokens: 3 + 1 = 4; 3 + 2 + 4 = 9; 3 + 2 + 5 = 10; 6.
    """
    tree = tree_of([ROOT, 0, 0, 2, 2, ROOT], {1: 1.0, 5: 1.0}, tokens=[3, 1, 2, 4, 5, 6])
    return TurnTable.of([Group("g", "g", (tree,))])


def test_soft_attribution_on_two_forks_by_hand() -> None:
    for method in (GrpoCredit(scale="none"), ArpoCredit(scale="none")):
        assigned = assign(two_forks(), method)
        credit, denominator = assigned.credit, assigned.denominator
        assert credit.positive.tolist() == [0.5, 0.5, 0.0, 0.0, 0.0, 0.5]
        assert credit.negative.tolist() == [-1.0, 0.0, -1.0, -0.5, -0.5, 0.0]
        assert credit.weight.tolist() == [3.0, 1.0, 2.0, 1.0, 1.0, 1.0]
        assert denominator == 29.0


def test_hard_attribution_on_two_forks_by_hand() -> None:
    credit = assign(two_forks(), ArpoCredit(scale="none", attribution="hard")).credit
    np.testing.assert_allclose(credit.positive, [0.0, 0.5, 0.0, 0.0, 0.0, 0.5])
    np.testing.assert_allclose(credit.negative, [-0.5, 0.0, -1.0, -0.5, -0.5, 0.0])
    assert credit.weight.tolist() == [3.0, 1.0, 2.0, 1.0, 1.0, 1.0]


def test_sequence_mean_on_two_forks_by_hand() -> None:
    method = ArpoCredit(scale="none")
    assigned = assign(two_forks(), method, aggregation="sequence_mean")
    credit, denominator = assigned.credit, assigned.denominator
    assert denominator == 4.0
    np.testing.assert_allclose(credit.weight[0], 1 / 4 + 1 / 9 + 1 / 10)
    np.testing.assert_allclose(credit.positive[0], 0.5 / 4)
    np.testing.assert_allclose(credit.negative[0], -0.5 * (1 / 9 + 1 / 10))
    hard = assign(
        two_forks(), ArpoCredit(scale="none", attribution="hard"), aggregation="sequence_mean"
    ).credit
    np.testing.assert_allclose(hard.negative[0], -(1 / 4 + 1 / 9 + 1 / 10) / 6)


def test_means_over_turns_on_two_forks_by_hand() -> None:
    # Trajectories of 2, 3, 3 and 1 turns: 9 turns, the first one of them three times.
    soft = ArpoCredit(scale="none")
    found = assign(two_forks(), soft, aggregation="turn_mean")
    assert found.denominator == 9.0
    # One over the turn's tokens (3, 1, 2, 4, 5, 6), once for each trajectory through it.
    np.testing.assert_allclose(found.credit.weight, [3 / 3, 1, 2 / 2, 1 / 4, 1 / 5, 1 / 6])
    np.testing.assert_allclose(found.credit.positive, [0.5 / 3, 0.5, 0, 0, 0, 0.5 / 6])
    np.testing.assert_allclose(found.credit.negative, [-1 / 3, 0, -1 / 2, -0.5 / 4, -0.1, 0])
    hard = assign(two_forks(), ArpoCredit(scale="none", attribution="hard"), "turn_mean").credit
    # The mean advantage of the three is -1/6, three times, over three tokens.
    np.testing.assert_allclose(hard.negative[0], -3 / 6 / 3)
    summed = assign(two_forks(), soft, aggregation="turn_sum")
    assert summed.denominator == 9.0
    assert summed.credit.weight.tolist() == [3.0, 1.0, 2.0, 1.0, 1.0, 1.0]
    bare = assign(two_forks(), soft, aggregation="token_sum")
    assert bare.denominator == 1.0
    assert bare.credit.weight.tolist() == [3.0, 1.0, 2.0, 1.0, 1.0, 1.0]


def test_a_turn_without_tokens_is_no_turn_of_the_mean() -> None:
    tree = tree_of([ROOT, 0, 0], {1: 1.0}, tokens=[0, 2, 4])
    found = assign(TurnTable.of([Group("g", "g", (tree,))]), GrpoCredit(), aggregation="turn_mean")
    assert found.denominator == 2.0
    np.testing.assert_allclose(found.credit.weight[1:], [1 / 2, 1 / 4])


def test_turns_of_equal_length_are_means_over_tokens() -> None:
    tree = tree_of([ROOT, 0, 0, 2, 2, ROOT], {1: 1.0, 5: 1.0}, tokens=[4] * 6)
    table = TurnTable.of([Group("g", "g", (tree,))])
    turns, tokens = (assign(table, GrpoCredit(), name) for name in ("turn_mean", "token_mean"))
    for name in ("positive", "negative", "weight"):
        np.testing.assert_allclose(
            getattr(turns.credit, name) / turns.denominator,
            getattr(tokens.credit, name) / tokens.denominator,
        )


def test_the_constant_aggregation_divides_by_trajectories_times_the_constant() -> None:
    found = row_weights(two_forks(), "constant", 100.0)
    weights, denominator = found.weights, found.denominator
    assert weights.tolist() == [1.0] * 4
    assert denominator == 400.0
    with pytest.raises(ValueError, match="needs a constant above 0"):
        row_weights(two_forks(), "constant", None)


def slow_credit(groups, method, aggregation, constant):
    """Every trajectory as a row of copied turns: an oracle that shares no code with the room."""
    rows = []
    for group in groups:
        kept = [t for t in group.trajectories() if not t.stop_reason.is_failure]
        in_statistics = [
            t for t in kept if not (method.truncated == "exclude" and t.stop_reason.is_truncation)
        ]
        returns = [sum(turn.reward for turn in t.turns) for t in in_statistics]
        if len(returns) < 2 and not (method.singleton == "raw" and returns):
            continue
        mean = sum(returns) / len(returns)
        variance = sum((r - mean) ** 2 for r in returns) / max(len(returns) - 1, 1)
        for trajectory, value in zip(in_statistics, returns, strict=True):
            advantage = value - mean
            if max(returns) - min(returns) <= 1e-9 * max(1, abs(mean)):
                advantage = 0.0
            elif method.scale == "std":
                advantage /= variance**0.5 + 1e-6
            if len(returns) == 1:
                advantage = value
            if method.truncated == "mask" and trajectory.stop_reason.is_truncation:
                continue
            rows.append((trajectory, advantage))
    lengths = [sum(len(turn.action_ids) for turn in row.turns) for row, _ in rows]
    full = [n for n in lengths if n]
    turns = sum(len(turn.action_ids) > 0 for row, _ in rows for turn in row.turns)
    denominators = {
        "token_mean": sum(full),
        "token_sum": 1.0,
        "turn_mean": turns,
        "turn_sum": turns,
        "sequence_sum": len(full),
        "sequence_mean": len(full),
        "constant": len(full) * (constant or 0),
    }
    through = {}
    for (row, advantage), n in zip(rows, lengths, strict=True):
        weight = 0.0 if n == 0 else 1 / n if aggregation == "sequence_mean" else 1.0
        for node in row.path:
            through.setdefault((id(row.tree), node), []).append((weight, advantage))
    columns = []
    for group in groups:
        for tree in group.trees:
            for node in range(len(tree.turns)):
                copies = [x for x in through.get((id(tree), node), []) if x[0] > 0]
                total = sum(w for w, _ in copies)
                if getattr(method, "attribution", "soft") == "hard" and copies:
                    mean = sum(a for _, a in copies) / len(copies)
                    copies = [(w, mean) for w, _ in copies]
                own = max(len(tree.turns[node].action_ids), 1)
                factor = 1 / own if aggregation == "turn_mean" else 1.0
                copies, total = [(w * factor, a) for w, a in copies], total * factor
                gains = [w * a for w, a in copies]
                columns.append(
                    (sum(x for x in gains if x > 0), sum(x for x in gains if x < 0), total)
                )
    return np.array(columns).reshape(-1, 3), denominators[aggregation] or 1.0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    aggregation=st.sampled_from(AGGREGATIONS),
    truncated=st.sampled_from(["keep", "mask", "exclude"]),
    singleton=st.sampled_from(["zero", "raw"]),
    scale=st.sampled_from(["std", "none"]),
    attribution=st.sampled_from([None, "soft", "hard"]),
)
def test_credit_equals_that_of_flattened_rows(
    seed, aggregation, truncated, singleton, scale, attribution
) -> None:
    common = {"truncated": truncated, "singleton": singleton, "scale": scale}
    method = (
        GrpoCredit(**common)
        if attribution is None
        else ArpoCredit(attribution=attribution, **common)
    )
    groups = random_groups(seed)
    name, constant = aggregation
    got = assign(TurnTable.of(groups), method, aggregation=name, constant=constant)
    expected, denominator = slow_credit(groups, method, name, constant)
    assert got.denominator == pytest.approx(denominator)
    columns = (got.credit.positive, got.credit.negative, got.credit.weight)
    np.testing.assert_allclose(np.stack(columns, 1), expected, atol=1e-9, rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(4)))
def test_the_order_of_groups_changes_nothing(seed: int, order: list[int]) -> None:
    groups = random_groups(seed, n_groups=4)
    shuffled = [groups[index] for index in order]
    for method in (GrpoCredit(), ArpoCredit(attribution="hard")):
        here = per_turn(groups, method)
        there = per_turn(shuffled, method)
        assert here.keys() == there.keys()
        for key, value in here.items():
            np.testing.assert_allclose(value, there[key], atol=1e-12)


def per_turn(groups, method):
    credit = assign(TurnTable.of(groups), method).credit
    turns = [turn for group in groups for tree in group.trees for turn in tree.turns]
    columns = np.stack([credit.positive, credit.negative, credit.weight], 1)
    return {id(turn): row for turn, row in zip(turns, columns, strict=True)}


@settings(max_examples=25, deadline=None)
@given(returns=st.lists(st.integers(0, 5), min_size=2, max_size=9), data=st.data())
def test_the_order_of_leaves_changes_nothing(returns: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(returns))))
    here = advantages([float(value) for value in returns])
    there = advantages([float(returns[index]) for index in order])
    np.testing.assert_allclose(here[order], there, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_observation_tokens_change_no_credit(seed: int) -> None:
    groups = random_groups(seed)
    longer = []
    for group in groups:
        trees = tuple(with_longer_observations(tree) for tree in group.trees)
        longer.append(dataclasses.replace(group, trees=trees))
    for aggregation, constant in AGGREGATIONS:
        here, there = (
            assign(TurnTable.of(some), ArpoCredit(), aggregation=aggregation, constant=constant)
            for some in (groups, longer)
        )
        assert here.denominator == there.denominator
        np.testing.assert_array_equal(here.credit.positive, there.credit.positive)
        np.testing.assert_array_equal(here.credit.weight, there.credit.weight)


def with_longer_observations(tree: TrajectoryTree) -> TrajectoryTree:
    copy = TrajectoryTree(tree.task_id, tree.prompt_ids)
    for parent, turn in zip(tree.parents, tree.turns, strict=True):
        padded = np.concatenate([turn.observation_ids, np.arange(5, dtype=np.int32)])
        copy.add(parent, dataclasses.replace(turn, observation_ids=padded))
    for node, reason in tree.leaves.items():
        copy.end(node, reason)
    return copy


@settings(max_examples=25, deadline=None)
@given(returns=st.lists(st.integers(0, 3), min_size=2, max_size=8), turns=st.integers(1, 4))
def test_on_chains_arpo_is_grpo(returns: list[int], turns: int) -> None:
    table = TurnTable.of([chains([float(value) for value in returns], turns=turns)])
    plain = assign(table, GrpoCredit()).credit
    for attribution in ("soft", "hard"):
        credit = assign(table, ArpoCredit(attribution=attribution)).credit
        np.testing.assert_allclose(credit.positive, plain.positive, atol=1e-12)
        np.testing.assert_allclose(credit.negative, plain.negative, atol=1e-12)
        np.testing.assert_array_equal(credit.weight, plain.weight)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
@example(seed=813)  # a trajectory without any action token beside others
def test_hard_and_soft_agree_in_sum_and_soft_is_never_smaller(seed: int) -> None:
    table = TurnTable.of(random_groups(seed))
    soft = assign(table, ArpoCredit()).credit
    hard = assign(table, ArpoCredit(attribution="hard")).credit
    np.testing.assert_allclose(
        soft.positive + soft.negative, hard.positive + hard.negative, atol=1e-9
    )
    assert (soft.positive >= hard.positive - 1e-9).all()


def test_scaling_rewards_leaves_the_standardised_advantage_unchanged() -> None:
    values = [0.0, 1.0, 3.0, 5.0]
    np.testing.assert_allclose(
        advantages([1000 * value for value in values]), advantages(values), rtol=1e-5
    )


def test_an_empty_table_has_no_credit() -> None:
    for groups in ([], [Group("g", "g", (TrajectoryTree("t", [1]),))]):
        got = assign(TurnTable.of(groups), ArpoCredit(attribution="hard"))
        assert got.denominator == 1.0
        assert got.credit.weight.shape == (0,)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_path_and_subtree_sums_are_those_of_walking_the_tree(seed: int) -> None:
    table = TurnTable.of(random_groups(seed))
    levels = Levels.of(table)
    down = table.reward.copy()
    up = table.reward.copy()
    for row, parent in enumerate(table.parent):
        if parent != ROOT:
            down[row] += down[parent]
    for row in range(len(up) - 1, -1, -1):
        if table.parent[row] != ROOT:
            up[table.parent[row]] += up[row]
    np.testing.assert_allclose(path_sums(levels, table.reward), down, atol=1e-12)
    np.testing.assert_allclose(subtree_sums(levels, table.reward), up, atol=1e-12)
    at_ends = [down[turn] for turn in table.leaf_turn]
    np.testing.assert_allclose(trajectory_sums(table, levels, table.reward), at_ends, atol=1e-12)


def test_trajectories_of_one_turn_are_their_own_sums_unless_one_failed() -> None:
    stops = {0: StopReason.ENV_ERROR}
    trees = [
        tree_of([ROOT], {0: float(paid)}, stops=stops if paid == 2 else None) for paid in (1, 2, 3)
    ]
    whole, failed = (TurnTable.of([Group("g", "g", tuple(some))]) for some in (trees[::2], trees))
    for table in (whole, failed):
        assert trajectory_sums(table, Levels.of(table), table.reward).tolist() == [1.0, 3.0]
    assert at_leaves(whole, np.asarray([5.0, 7.0])).tolist() == [5.0, 7.0]
    assert at_leaves(failed, np.asarray([5.0, 7.0])).tolist() == [5.0, 0.0, 7.0]


def test_a_chain_of_five_thousand_turns_is_credited() -> None:
    parents = [ROOT, *range(4999)]
    trees = (tree_of(parents, {4999: 1.0}), tree_of([ROOT], {}))
    credit = assign(TurnTable.of([Group("g", "g", trees)]), GrpoCredit(scale="none")).credit
    assert (credit.positive[:5000] == 0.5).all()
    assert credit.negative[5000] == -0.5


@settings(max_examples=60, deadline=None)
@given(
    base=st.floats(-1e6, 1e6),
    gaps=st.lists(st.sampled_from([0.0, 1e-12, 3e-10, 2e-9, 1e-3]), min_size=2, max_size=9),
)
def test_groups_are_equal_where_their_spread_is_within_a_billionth_of_their_size(base, gaps):
    values = np.array([base + gap * max(1.0, abs(base)) for gap in gaps])
    group = np.zeros(len(values), np.int64)
    found = against_group(values, group, np.ones(len(values), bool), 1, scale="none")
    spread, allowed = np.ptp(values), 1e-9 * max(1.0, abs(values.mean()))
    if abs(spread / allowed - 1) > 1e-3:
        assert found.equal.tolist() == [spread <= allowed]
    assert found.equal[0] == (found.advantage == 0.0).all()


def test_the_population_s_standard_deviation_divides_by_the_number():
    # Mean 1/4, squares 9/16 + 3/16 = 3/4: over 3 the sample's 1/2, over 4 the population's.
    values, group = np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(4, np.int64)
    found = against_group(values, group, np.ones(4, bool), 1, scale="std", ddof=0)
    np.testing.assert_allclose(found.advantage, np.array([3, -1, -1, -1]) / 4 / 0.1875**0.5, 1e-5)
