"""Credit where actions were sampled in segments: TreePO, SPO and TreeRL as their papers have it.

Methods that compare whole trajectories do not see segments at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.types import ROOT, Group, TrajectoryTree, Turn
from agentrl.credit import (
    ArpoCredit,
    GaeCredit,
    GrpoCredit,
    OpoCredit,
    OtbCredit,
    PassAtKCredit,
    ReinforceCredit,
    ReinforcePPCredit,
    RlooCredit,
    SpoCredit,
    TreeGrpoCredit,
    TreePoCredit,
    TreeRlCredit,
    TurnTable,
    assign,
)
from agentrl.learner.packing import pack_groups
from agentrl.rollout.segments import whole_turns
from agentrl.testing.trees import random_groups, tree_of


def in_segments(group: Group, seed: int) -> Group:
    """`group` with every action cut in one to three segments."""
    rng = np.random.default_rng(seed)
    trees = []
    for tree in group.trees:
        cut = TrajectoryTree(tree.task_id, tree.prompt_ids, group_id=tree.group_id)
        last = {ROOT: ROOT}
        for node, (above, turn) in enumerate(zip(tree.parents, tree.turns, strict=True)):
            parent = last[above]
            for piece in pieces(turn, rng):
                parent = cut.add(parent, piece)
            last[node] = parent
        for leaf, reason in tree.leaves.items():
            cut.end(last[leaf], reason)
        trees.append(cut)
    return replace(group, trees=tuple(trees))


def pieces(turn: Turn, rng: np.random.Generator) -> list[Turn]:
    size = len(turn.action_ids)
    cuts = sorted(set(rng.integers(1, size, 2).tolist())) if size > 1 else []
    found = []
    for start, end in zip([0, *cuts], [*cuts, size], strict=True):
        part = replace(
            turn,
            action_ids=turn.action_ids[start:end],
            logprobs=turn.logprobs[start:end],
            entropies=turn.entropies[start:end],
            versions=None if turn.versions is None else turn.versions[start:end],
            state_key="" if start else turn.state_key,
        )
        if end < size:
            part = replace(
                part,
                goes_on=True,
                observation_ids=turn.observation_ids[:0],
                reward=0.0,
                rewards={},
                metrics={},
                tool_calls=(),
                malformed_calls=0,
                env_seconds=0.0,
            )
        found.append(part)
    return found


def told(table: TurnTable, seed: int) -> TurnTable:
    """`table` with a critic's values and norms of logits, drawn for each token."""
    rng = np.random.default_rng(seed)
    tokens = int(table.tokens.sum())
    return replace(
        table,
        values=rng.normal(size=tokens),
        bootstrap=np.zeros(len(table.leaf_turn)),
        logit_norms=rng.random(tokens),
    )


WHOLE = [
    GrpoCredit(),
    RlooCredit(),
    OpoCredit(),
    OtbCredit(),
    PassAtKCredit(),
    ReinforceCredit(),
    ReinforcePPCredit(),
    ArpoCredit(),
    ArpoCredit(attribution="hard"),
    TreeGrpoCredit(),
    GaeCredit(lam=0.9),
]


@pytest.mark.parametrize("method", WHOLE, ids=lambda one: one.type)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_methods_of_trajectories_and_of_tokens_do_not_see_segments(method, seed):
    whole = random_groups(seed, n_groups=3)
    cut = [in_segments(group, seed) for group in whole]
    tables = [told(TurnTable.of(one, with_tokens=True), seed) for one in (whole, cut)]
    expected, found = (assign(table, method, "sequence_mean") for table in tables)
    assert found.denominator == pytest.approx(expected.denominator)
    for name in ("positive", "negative", "weight"):
        np.testing.assert_allclose(
            getattr(found.credit.at_tokens(tables[1]), name),
            getattr(expected.credit.at_tokens(tables[0]), name),
            rtol=1e-9,
            atol=1e-12,
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), pack_tokens=st.integers(20, 200))
def test_rows_of_the_learner_are_those_of_whole_turns(seed, pack_tokens):
    whole = random_groups(seed, n_groups=2)
    cut = [in_segments(group, seed) for group in whole]
    rows = []
    for groups in (whole, cut):
        table = TurnTable.of(groups)
        found = assign(table, GrpoCredit(singleton="raw"))
        batch = pack_groups(groups, table, found.credit, denominator=1.0, pack_tokens=pack_tokens)
        rows.append(batch.rows)
    for one, other in zip(*rows, strict=True):
        for name in ("token_ids", "positions", "segments", "parents", "positive", "negative"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
        assert one.sources.tolist() == other.sources.tolist()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_segments_are_joined_to_the_turns_that_they_were_cut_from(seed):
    for group in random_groups(seed, n_groups=2):
        for one, other in zip(group.trees, in_segments(group, seed).trees, strict=True):
            cut = {leaf.path: leaf for leaf in other.trajectories()}
            for whole, found in zip(one.trajectories(), cut.values(), strict=True):
                for a, b in zip(whole.turns, whole_turns(found.turns), strict=True):
                    assert a.action_ids.tolist() == b.action_ids.tolist()
                    assert a.token_versions.tolist() == b.token_versions.tolist()
                    assert (a.reward, a.state_key, a.tool_calls) == (
                        b.reward,
                        b.state_key,
                        b.tool_calls,
                    )


def one_turn() -> Group:
    """One turn, five ways: two first segments, of which one forks twice.

    Trajectories are ace (paid 1), acf (0), ad (1) and b (0); a has 3 tokens, b 4, c 1, d 5, e 2,
    f 6.
    """
    tree = tree_of(
        [ROOT, ROOT, 0, 0, 2, 2], {4: 1.0, 3: 1.0}, tokens=[3, 4, 1, 5, 2, 6], task_id="t"
    )
    for node in (0, 2):
        tree.turns[node] = replace(tree.turns[node], goes_on=True)
    return Group("g", "t", (tree,))


def test_spo_within_a_turn_by_hand():
    # V(c) = 1/2, V(a) = (V(c) + V(d)) / 2 = 3/4, V(prompt) = (V(a) + V(b)) / 2 = 3/8.
    table = TurnTable.of([one_turn()])
    found = assign(table, SpoCredit())
    gain = found.credit.positive + found.credit.negative
    np.testing.assert_allclose(gain, [3 / 8, -3 / 8, -1 / 4, 1 / 4, 1 / 2, -1 / 2])
    # Every token of every segment once.
    assert found.credit.weight.tolist() == [1] * 6 and found.denominator == pytest.approx(21)
    tokens = found.credit.at_tokens(table)
    np.testing.assert_allclose((tokens.positive + tokens.negative)[:7], [3 / 8] * 3 + [-3 / 8] * 4)


def test_tree_po_within_a_turn_by_hand():
    # Mean of all 1/2, of what begins with a 2/3, with ac 1/2; b shares the prompt alone.
    ace = (1 - 1 / 2 + 1 - 2 / 3 + 1 - 1 / 2) / 3
    acf = -(1 / 2 + 2 / 3 + 1 / 2) / 3
    ad = (1 - 1 / 2 + 1 - 2 / 3) / 2
    found = TreePoCredit(scale="none").compare(TurnTable.of([one_turn()]))
    # Leaves in the order of their nodes: b, ad, ace, acf.
    np.testing.assert_allclose(found.advantage, [-1 / 2, ad, ace, acf])


def slow_spo(rows: list[tuple[tuple[int, ...], ...]], value: Callable[[int], float]):
    """V of what is said so far: the mean over the segments that went on from there."""

    def v(prefix: tuple[tuple[int, ...], ...]) -> float:
        below = [i for i, row in enumerate(rows) if row[: len(prefix)] == prefix]
        ended = [i for i in below if rows[i] == prefix]
        if ended:
            return value(ended[0])
        following = {rows[i][: len(prefix) + 1] for i in below}
        return sum(map(v, following)) / len(following)

    return lambda prefix: v(prefix) - v(prefix[:-1])


def slow_tree_rl(rows: list[tuple[tuple[int, ...], ...]], value: Callable[[int], float]):
    returns = [value(i) for i in range(len(rows))]
    total, size = sum(returns), len(rows)
    apart = [r - (total - r) / (size - 1) for r in returns]

    def v(prefix: tuple[tuple[int, ...], ...]) -> tuple[float, int]:
        below = [apart[i] for i, row in enumerate(rows) if row[: len(prefix)] == prefix]
        return sum(below) / len(below), len(below)

    def gain(prefix: tuple[tuple[int, ...], ...]) -> float:
        (own, count), (root, _), (above, _) = v(prefix), v(()), v(prefix[:-1])
        return ((own - root) + (own - above)) / math.sqrt(count)

    return gain


def slow_tree_po(rows: list[tuple[tuple[int, ...], ...]], value: Callable[[int], float]):
    """A of each row: the mean of its return beside those that share 0, 1, ... of its segments."""
    found = []
    for i, row in enumerate(rows):
        beside = []
        for depth in range(len(row)):
            sharing = [j for j, other in enumerate(rows) if other[:depth] == row[:depth]]
            if depth == 0 or len(sharing) > 1:
                beside.append(value(i) - sum(map(value, sharing)) / len(sharing))
        found.append(sum(beside) / len(beside))
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(2, 14))
def test_spo_treerl_and_treepo_are_the_papers_on_rows_of_whole_answers(seed, nodes):
    rng = np.random.default_rng(seed)
    parents = [ROOT] + [int(rng.integers(-1, node)) for node in range(1, nodes)]
    leaves = sorted(set(range(nodes)) - set(parents))
    paid = {leaf: float(rng.integers(0, 3)) for leaf in leaves}
    tree = tree_of(parents, paid, tokens=[int(one) for one in rng.integers(1, 5, nodes)])
    for node in set(parents) - {ROOT}:
        tree.turns[node] = replace(tree.turns[node], goes_on=True)
    group = Group("g", "task", (tree,))
    rows = [
        tuple(tuple(tree.turns[node].action_ids.tolist()) for node in tree.path(leaf))
        for leaf in leaves
    ]
    if len(leaves) < 2:
        return
    plain = TreePoCredit(scale="none").compare(TurnTable.of([group])).advantage
    by_row = slow_tree_po(rows, lambda i: paid[leaves[i]])
    np.testing.assert_allclose(plain, by_row, atol=1e-9)
    for method, slow in ((SpoCredit(), slow_spo), (TreeRlCredit(), slow_tree_rl)):
        advantage = slow(rows, lambda i: paid[leaves[i]])
        expected = []
        for node in range(nodes):
            path = tuple(tuple(tree.turns[one].action_ids.tolist()) for one in tree.path(node))
            expected.append(advantage(path))
        credit = assign(TurnTable.of([group]), method).credit
        weight = np.where(credit.weight > 0, credit.weight, 1.0)
        np.testing.assert_allclose(
            (credit.positive + credit.negative) / weight, expected, atol=1e-9
        )
