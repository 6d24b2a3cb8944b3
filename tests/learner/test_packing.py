"""Packed groups train each sampled token once, after the context that it was sampled in."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason, TrajectoryTree
from agentrl.credit import ArpoCredit, GrpoCredit, TurnTable, assign
from agentrl.credit.table import Credit
from agentrl.learner.batch import Batch, Row, gather, scatter
from agentrl.learner.packing import pack_groups, split_groups
from agentrl.testing.trees import chains, random_groups, tree_of


def packed(groups: list[Group], *, pack_tokens: int = 40) -> Batch:
    table = TurnTable.of(groups)
    assigned = assign(table, ArpoCredit())
    credit, denominator = assigned.credit, assigned.denominator
    return pack_groups(groups, table, credit, denominator=denominator, pack_tokens=pack_tokens)


def path_of(row: Row, index: int) -> list[int]:
    """Indices of the tokens that the token at `index` is read after, itself included."""
    path = [index]
    while row.previous[path[-1]] >= 0:
        path.append(int(row.previous[path[-1]]))
    return path[::-1]


def ends(row: Row) -> list[int]:
    """Indices of tokens that nothing continues."""
    return sorted(set(range(len(row))) - set(row.previous.tolist()))


def test_a_fork_by_hand() -> None:
    """Prompt 1 2 3; turn 0 is shared by leaves 1 and 2; observations are one token, 7."""
    group = Group("g", "g", (tree_of([ROOT, 0, 0], {1: 1.0}),))
    table = TurnTable.of([group])
    assigned = assign(table, GrpoCredit(scale="none"))
    credit, denominator = assigned.credit, assigned.denominator
    (row,) = pack_groups([group], table, credit, denominator=denominator, pack_tokens=100).rows
    assert row.token_ids.tolist() == [1, 2, 3, 0, 1, 7, 10, 11, 20, 21]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 6, 7]
    assert row.segments.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]
    assert row.parents.tolist() == [-1, 0, 0]
    assert row.previous.tolist() == [-1, 0, 1, 2, 3, 4, 5, 6, 5, 8]
    assert row.weight.tolist() == [0, 0, 0, 2, 2, 0, 1, 1, 1, 1]
    assert row.positive.tolist() == [0, 0, 0, 0.5, 0.5, 0, 0.5, 0.5, 0, 0]
    assert row.negative.tolist() == [0, 0, 0, -0.5, -0.5, 0, 0, 0, -0.5, -0.5]
    assert row.behavior_logprobs.tolist() == [0, 0, 0, -0.5, -0.5, 0, -0.5, -0.5, -0.5, -0.5]
    assert denominator == 8.0


def test_chains_of_one_prompt_share_it_and_others_do_not() -> None:
    one, two = chains([1.0, 0.0]).trees
    other = tree_of([ROOT], {0: 0.0})
    other.prompt_ids = np.asarray([4, 5], np.int32)
    group = Group("task", "task", (one, other, two))
    (row,) = packed([group]).rows
    assert row.token_ids.tolist() == [1, 2, 3, 0, 1, 0, 1, 4, 5, 0, 1]
    assert row.parents.tolist() == [-1, 0, 0, -1]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 3, 4, 0, 1, 2, 3]


def test_a_tree_that_is_too_long_is_cut_and_what_is_shared_is_trained_once() -> None:
    """Prompt of 3, a shared turn of 2 with 1 observed, four leaves of 2: 6 + 4 * 2 tokens."""
    group = Group("g", "g", (tree_of([ROOT, 0, 0, 0, 0], {1: 1.0, 3: 0.5}),))
    rows = packed([group], pack_tokens=11).rows
    assert [row.token_ids.tolist() for row in rows] == [
        [1, 2, 3, 0, 1, 7, 10, 11, 20, 21],
        [1, 2, 3, 0, 1, 7, 30, 31, 40, 41],
    ]
    assert (rows[0].weight[3:5] == 4).all() and (rows[1].weight[3:5] == 0).all()
    assert [row.parents.tolist() for row in rows] == [[-1, 0, 0], [-1, 0, 0]]


def test_turns_without_tokens_are_no_segments() -> None:
    """Turn 0 is empty, unseen and forks; turn 1 is empty and goes on in turn 2."""
    tree = tree_of([ROOT, 0, 1, 0], {2: 1.0}, tokens=[0, 0, 2, 2])
    for node in (0, 1):
        tree.turns[node] = dataclasses.replace(
            tree.turns[node], observation_ids=np.zeros(0, np.int32)
        )
    (row,) = packed([Group("g", "g", (tree,))]).rows
    assert row.token_ids.tolist() == [1, 2, 3, 20, 21, 30, 31]
    assert row.parents.tolist() == [-1, 0, 0]
    assert row.positions.tolist() == [0, 1, 2, 3, 4, 3, 4]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), pack_tokens=st.sampled_from([1, 20, 1000]))
def test_every_turn_with_a_weight_is_trained_exactly_once(seed: int, pack_tokens: int) -> None:
    groups = numbered(random_groups(seed))
    table = TurnTable.of(groups)
    assigned = assign(table, ArpoCredit())
    credit, denominator = assigned.credit, assigned.denominator
    batch = pack_groups(groups, table, credit, denominator=denominator, pack_tokens=pack_tokens)
    trained = np.concatenate(
        [np.zeros(0, np.int32)] + [row.token_ids[row.weight != 0] for row in batch.rows]
    )
    turns = [turn for group in groups for tree in group.trees for turn in tree.turns]
    expected = [
        turn.action_ids for turn, weight in zip(turns, credit.weight, strict=True) if weight
    ]
    assert sorted(trained) == sorted(np.concatenate([np.zeros(0, np.int32), *expected]))
    for name in ("positive", "negative", "weight"):
        total = sum(float(getattr(row, name).sum()) for row in batch.rows)
        assert total == pytest.approx(
            float((getattr(credit, name) * table.tokens).sum()), rel=1e-5, abs=1e-5
        )
    for row in batch.rows:
        assert len(row) <= pack_tokens or row.segments.max() == 0
        assert row.weight[row.previous < 0].sum() == 0


def numbered(groups: list[Group]) -> list[Group]:
    """The same groups with every action token a different number."""
    count = 10_000
    result = []
    for group in groups:
        trees = []
        for tree in group.trees:
            copy = TrajectoryTree(tree.task_id, tree.prompt_ids)
            for parent, turn in zip(tree.parents, tree.turns, strict=True):
                size = len(turn.action_ids)
                fresh = np.arange(count, count + size, dtype=np.int32)
                copy.add(parent, dataclasses.replace(turn, action_ids=fresh))
                count += size
            for node, reason in tree.leaves.items():
                copy.end(node, reason)
            trees.append(copy)
        result.append(dataclasses.replace(group, trees=tuple(trees)))
    return result


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), pack_tokens=st.sampled_from([1, 25, 1000]))
def test_each_path_is_a_prefix_of_a_trajectory_and_ends_with_a_trained_token(
    seed: int, pack_tokens: int
) -> None:
    groups = random_groups(seed)
    paths = {
        tuple(tree.context_ids(leaf).tolist())
        for group in groups
        for tree in group.trees
        for leaf in tree.leaves
    }
    for row in packed(groups, pack_tokens=pack_tokens).rows:
        for end in ends(row):
            path = path_of(row, end)
            ids = tuple(row.token_ids[path].tolist())
            assert any(whole[: len(ids)] == ids for whole in paths)
            assert row.positions[path].tolist() == list(range(len(path)))
            assert row.weight[end] != 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_in_a_row_that_is_long_enough_every_turn_stands_once(seed: int) -> None:
    groups = numbered(random_groups(seed))
    for row in packed(groups, pack_tokens=10_000).rows:
        sampled = row.token_ids[row.token_ids >= 10_000]
        assert len(set(sampled.tolist())) == len(sampled)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_garbage_where_nothing_is_trained_changes_no_credit(seed: int) -> None:
    groups = random_groups(seed)
    garbage = []
    for group in groups:
        for tree in group.trees:
            copy = TrajectoryTree(tree.task_id, tree.prompt_ids + 1)
            for parent, turn in zip(tree.parents, tree.turns, strict=True):
                seen = turn.observation_ids + 1
                copy.add(parent, dataclasses.replace(turn, observation_ids=seen))
            for node, reason in tree.leaves.items():
                copy.end(node, reason)
            garbage.append(copy)
    trees = iter(garbage)
    other = [
        dataclasses.replace(group, trees=tuple(next(trees) for _ in group.trees))
        for group in groups
    ]
    here, there = packed(groups), packed(other)
    assert here.denominator == there.denominator
    for ours, theirs in zip(here.rows, there.rows, strict=True):
        for name in ("positive", "negative", "weight", "behavior_logprobs", "positions"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        trained = ours.weight != 0
        np.testing.assert_array_equal(ours.token_ids[trained], theirs.token_ids[trained])


def test_a_trajectory_that_trains_nothing_is_no_sequence() -> None:
    stops = {2: StopReason.TRUNCATED_TURNS, 3: StopReason.ENV_ERROR}
    group = Group("g", "g", (tree_of([ROOT] * 4, {0: 1.0}, stops=stops),))
    table = TurnTable.of([group])
    assigned = assign(table, GrpoCredit(truncated="mask"))
    credit, denominator = assigned.credit, assigned.denominator
    batch = pack_groups([group], table, credit, denominator=denominator, pack_tokens=100)
    assert sum(len(ends(row)) for row in batch.rows) == 2
    assert denominator == 4.0
    empty = pack_groups([], TurnTable.of([]), credit_of([]), denominator=1.0, pack_tokens=9)
    assert empty.rows == ()


def credit_of(groups: list[Group]):
    return assign(TurnTable.of(groups), GrpoCredit()).credit


def test_a_logprob_that_is_no_number_is_refused_by_task_and_turn() -> None:
    group = chains([0.0, 1.0])
    tree = group.trees[1]
    tree.turns[0] = dataclasses.replace(
        tree.turns[0], logprobs=np.asarray([0.0, np.nan], np.float32)
    )
    with pytest.raises(ContractError, match=r"turn 0 of task 'task' .* is not finite"):
        packed([group])


def test_credit_of_other_groups_is_refused() -> None:
    group = chains([0.0, 1.0])
    table = TurnTable.of([group])
    with pytest.raises(ContractError, match="the groups have 4 turns and their table 2"):
        pack_groups([group, group], table, credit_of([group]), denominator=1.0, pack_tokens=9)
    with pytest.raises(ContractError, match="credit of 4 turns is not of a table of 2"):
        pack_groups([group], table, credit_of([group, group]), denominator=1.0, pack_tokens=9)


@pytest.mark.parametrize("pack_tokens", [30, 1000])
def test_credit_of_tokens_reaches_its_own_tokens_and_comes_back(pack_tokens: int) -> None:
    groups = random_groups(11, n_groups=4)
    table = TurnTable.of(groups, with_tokens=True)
    n = int(table.tokens.sum())
    rng = np.random.default_rng(0)
    weight = (rng.random(n) < 0.7) * rng.random(n)
    credit = Credit(rng.random(n) * (weight > 0), -rng.random(n) * (weight > 0), weight, "token")
    rows = pack_groups(groups, table, credit, denominator=1.0, pack_tokens=pack_tokens).rows
    trained = weight > 0
    assert table.logprobs is not None
    for name, wanted in [
        ("positive", credit.positive),
        ("negative", credit.negative),
        ("weight", weight),
        ("behavior_logprobs", table.logprobs),
    ]:
        found = gather(rows, [getattr(row, name) for row in rows], n)
        np.testing.assert_allclose(found[trained], wanted[trained], rtol=1e-6)
        assert np.isnan(found[~trained]).all()
    doubled = scatter(rows, positive=2 * credit.positive)
    again = gather(doubled, [row.positive for row in doubled], n)
    np.testing.assert_allclose(again[trained], 2 * credit.positive[trained], rtol=1e-6)
    assert all((a.weight == b.weight).all() for a, b in zip(rows, doubled, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    returns=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), max_size=7),
    n=st.integers(1, 5),
)
def test_steps_hold_whole_groups_in_even_numbers_and_none_is_empty(
    returns: list[list[int]], n: int
) -> None:
    groups = [chains([float(value) for value in values]) for values in returns]
    trains = np.array([len(group.trees) > 1 for group in groups], np.bool_)
    parts = [[groups[index] for index in part] for part in split_groups(groups, trains, n=n)]
    training = [group for group in groups if len(group.trees) > 1]
    assert [id(group) for part in parts for group in part] == [id(group) for group in training]
    assert len(parts) == min(n, len(training))
    sizes = [len(part) for part in parts]
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert all(packed(part).rows for part in parts)
