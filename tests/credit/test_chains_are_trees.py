"""Every credit method of the union on chains, on the same chains as one tree, and on copies."""

import dataclasses
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.types import ROOT, Group, TrajectoryTree
from agentrl.credit import (
    AnyCredit,
    ArpoCredit,
    At2poCredit,
    GrpoCredit,
    RlooCredit,
    SpoCredit,
    TreeGrpoCredit,
    TreePoCredit,
    TreeRlCredit,
    TurnTable,
    assign,
)
from agentrl.credit.groups import against_group
from agentrl.testing.trees import chains, random_groups, tree_of

METHODS = [cls() for cls in get_args(get_args(AnyCredit)[0])]
COMPARING_TREES = {"tree_grpo", "tree_po"}
"""Trajectories have one advantage there, but it depends on which of them share turns."""


def table_of(groups):
    """All columns; a critic's values and norms that follow the tokens wherever they stand."""
    table = TurnTable.of(groups, with_tokens=True)
    surprise = -table.logprobs.astype(np.float64)
    return dataclasses.replace(
        table,
        values=0.5 + 2.0 * surprise,
        logit_norms=0.1 + surprise,
        bootstrap=np.full(len(table.leaf_turn), 0.3),
    )


def columns(table, assigned):
    """The three sums of every turn, (3, K)."""
    credit = assigned.credit.at_turns(table)
    return np.stack([credit.positive, credit.negative, credit.weight])


def laid_out(groups):
    """Each trajectory a chain with copies of its turns, and which turn each copy is of."""
    flat, source, base = [], [], 0
    for group in groups:
        trees = []
        for tree in group.trees:
            for leaf, reason in sorted(tree.leaves.items()):
                if reason.is_failure:
                    continue
                chain, node = TrajectoryTree(tree.task_id, tree.prompt_ids), ROOT
                for turn in tree.path(leaf):
                    node = chain.add(node, tree.turns[turn])
                    source.append(base + turn)
                chain.end(node, reason)
                trees.append(chain)
            base += len(tree.turns)
        flat.append(dataclasses.replace(group, trees=tuple(trees)))
    return flat, np.asarray(source, np.int64), base


def as_one_tree(group):
    """The chains of `group` as branches of one tree."""
    whole = TrajectoryTree(group.task_id, [1])
    for tree in group.trees:
        node = ROOT
        for turn in tree.turns:
            node = whole.add(node, turn)
        ((_, reason),) = tree.leaves.items()
        whole.end(node, reason)
    return dataclasses.replace(group, trees=(whole,))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.type)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_chains_are_worth_the_same_as_branches_of_one_tree(method, seed):
    if isinstance(method, TreeGrpoCredit):
        method = method.model_copy(update={"terms": "inter"})  # The other term is about trees.
    apart, _, _ = laid_out(random_groups(seed))
    apart = [group for group in apart if group.trees]
    whole = [as_one_tree(group) for group in apart]
    for aggregation in ("token_mean", "turn_mean", "turn_sum", "sequence_mean"):
        one, other = (
            (columns(table, assigned), assigned.denominator)
            for table in (table_of(apart), table_of(whole))
            for assigned in [assign(table, method, aggregation)]
        )
        np.testing.assert_allclose(one[0], other[0], atol=1e-9)
        assert one[1] == pytest.approx(other[1])


@pytest.mark.parametrize(
    "method",
    [one for one in METHODS if one.grain != "turn" and one.type not in COMPARING_TREES],
    ids=lambda method: method.type,
)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_shared_turn_has_the_sums_of_its_copies_in_chains(method, seed):
    groups = random_groups(seed)
    flat, source, turns = laid_out(groups)
    for aggregation in ("token_mean", "turn_mean", "turn_sum", "sequence_mean"):
        trees, copies = table_of(groups), table_of(flat)
        shared, apart = (assign(table, method, aggregation) for table in (trees, copies))
        summed = np.stack([np.bincount(source, one, turns) for one in columns(copies, apart)])
        np.testing.assert_allclose(columns(trees, shared), summed, atol=1e-9)
        assert shared.denominator == pytest.approx(apart.denominator)


RETURNS = np.array([1.0, 0.0, 0.25, 0.25])


def difference(scale="none", ddof=1):
    """Returns beside their mean, for both turns of each chain."""
    group, counted = np.zeros(4, np.int64), np.ones(4, bool)
    found = against_group(RETURNS, group, counted, 1, scale=scale, ddof=ddof)
    return np.repeat(found.advantage, 2)


FIRST = np.tile([1.0, 0.0], 4)
ON_CHAINS = {
    "grpo": difference("std"),
    "arpo": difference("std"),
    "tree_grpo": difference("std"),  # One leaf a tree: nothing inside of trees to compare.
    "at2po": difference("std", ddof=0),
    "rloo": difference() * 4 / 3,
    "tree_rl": difference() * 4 / 3 * (1 + FIRST),  # Globally, and to the prompt before it.
    "tree_po": difference() / np.sqrt(np.var(difference(), ddof=1) + 1e-8),  # One token a turn.
    "spo": difference() * FIRST,  # Later turns have no sibling.
    "gigpo": difference("std"),  # No state is met twice.
    "hgpo": np.zeros(8),
    "opo": difference(),  # All are of one length.
}
"""A of each turn of four chains of two turns, paid at the end, where no state is known."""


@pytest.mark.parametrize("name", ON_CHAINS)
def test_on_chains_a_method_of_trees_is_its_chain_form(name):
    (method,) = (one for one in METHODS if one.type == name)
    table = table_of([chains(RETURNS.tolist(), tokens=1, turns=2)])
    positive, negative, weight = columns(table, assign(table, method, "constant", 1.0))
    np.testing.assert_allclose(positive + negative, ON_CHAINS[name], atol=1e-12)
    assert ((weight > 0) | (ON_CHAINS[name] == 0)).all()


def test_every_method_that_looks_at_trees_or_states_has_its_chain_form_here():
    about_trees = {one.type for one in METHODS if one.grain == "turn"} | COMPARING_TREES
    assert about_trees | {"arpo", "gigpo", "hgpo"} <= ON_CHAINS.keys()


@pytest.mark.parametrize("seed", range(6))
def test_tree_grpo_is_grpo_on_trees_of_one_leaf_and_twice_that_on_one_tree(seed):
    apart, _, _ = laid_out(random_groups(seed))
    apart = [group for group in apart if group.trees]
    whole = [as_one_tree(group) for group in apart]
    for groups, factor in ((apart, 1.0), (whole, 2.0)):
        table = table_of(groups)
        tree, plain = (assign(table, one).leaves for one in (TreeGrpoCredit(), GrpoCredit()))
        np.testing.assert_allclose(tree.advantage, factor * plain.advantage, atol=1e-12)


def test_a_fork_at_the_prompt_is_no_fork_and_one_below_it_is():
    # Two leaves after a shared turn: only below it does a method of trees see a choice.
    forked = tree_of([ROOT, 0, 0], {1: 1.0})
    branches = tree_of([ROOT, 0, ROOT, 2], {1: 1.0})
    shared, apart = (table_of([Group("g", "t", (tree,))]) for tree in (forked, branches))
    expected = {
        At2poCredit(scale="none"): ([0, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5]),
        SpoCredit(): ([0, 0.5, -0.5], [0.5, 0, -0.5, 0]),
        TreeRlCredit(): ([0, 2, -2], [2, 1, -2, -1]),
        TreePoCredit(scale="none"): ([0, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5]),
        RlooCredit(): ([0, 1, -1], [1, 1, -1, -1]),
        ArpoCredit(scale="none", attribution="hard"): ([0, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5]),
    }
    for method, wanted in expected.items():
        for table, values in zip((shared, apart), wanted, strict=True):
            positive, negative, _ = columns(table, assign(table, method, "constant", 1.0))
            np.testing.assert_allclose(positive + negative, values, atol=1e-12)
