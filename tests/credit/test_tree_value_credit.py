"""AT2PO, TreeRL, SPO and TreePO on a tree worked by hand, against recursion, and on chains."""

import dataclasses
import math
from statistics import fmean, pstdev, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit.aggregate import assign, row_weights
from agentrl.credit.at2po import At2poCredit
from agentrl.credit.grpo import GrpoCredit
from agentrl.credit.rloo import RlooCredit
from agentrl.credit.spo import SpoCredit
from agentrl.credit.subtree import Levels, at_leaves, subtree_sums
from agentrl.credit.table import TurnTable
from agentrl.credit.tree_po import TreePoCredit
from agentrl.credit.tree_rl import TreeRlCredit
from agentrl.testing.trees import chains, random_groups, tree_of

PARENTS = [ROOT, 0, 0, 2, 2, ROOT]
EVERY = [
    At2poCredit(),
    At2poCredit(node_value="children", against="both", prefix_weighting="node_once"),
    At2poCredit(node_value="leaves", against="parent"),
    TreeRlCredit(),
    SpoCredit(),
    TreePoCredit(),
    TreePoCredit(scale="none", weighting="leaves"),
]


def two_forks(**given):
    """0 forks into leaf 1 (paid 1) and 2, which forks into leaves 3 (1) and 4 (0); 5 is alone (0).

    Returns 1, 1, 0, 0 of leaves 1, 3, 4, 5: mean 1/2, population std 1/2, z = 1, 1, -1, -1.
    """
    return Group("g", "t", (tree_of(PARENTS, {1: 1.0, 3: 1.0}, **given),))


def worth(group, method):
    """Advantage of each turn where every token of every trajectory weighs the same."""
    table = TurnTable.of([group], with_tokens=True)
    credit = assign(table, method, "constant", 1.0).credit
    weight = np.where(credit.weight > 0, credit.weight, 1.0)
    return (credit.positive + credit.negative) / weight


def test_at2po_s_values_by_hand():
    # V(2) = (1 - 1) / 2 = 0. Children: V(0) = (1 + 0) / 2; leaves: V(0) = (1 + 1 - 1) / 3.
    children = worth(two_forks(), At2poCredit(node_value="children"))
    np.testing.assert_allclose(children, [1 / 2, 1, 0, 1, -1, -1], atol=1e-5)
    leaves = worth(two_forks(), At2poCredit(node_value="leaves"))
    np.testing.assert_allclose(leaves, [1 / 3, 1, 0, 1, -1, -1], atol=1e-5)
    # All turns are as uncertain as each other: the softmax is the mean over children.
    np.testing.assert_allclose(worth(two_forks(), At2poCredit()), children)


def test_an_uncertain_branch_weighs_more_in_at2po_s_softmax():
    group = two_forks()
    tree = group.trees[0]
    # H(1) = ln 3 + 0.5 and H(2) = 0.5, so w = 3/4 and 1/4: V(0) = 3/4 * 1 + 1/4 * 0.
    tree.turns[1] = dataclasses.replace(
        tree.turns[1], logprobs=np.full(2, -0.5 - math.log(3), np.float32)
    )
    found = worth(group, At2poCredit())
    np.testing.assert_allclose(found, [3 / 4, 1, 0, 1, -1, -1], atol=1e-5)


def test_at2po_s_differences_by_hand():
    # Children: V(root) = (V(0) + V(5)) / 2 = (1/2 - 1) / 2 = -1/4.
    def found(against):
        return worth(two_forks(), At2poCredit(node_value="children", against=against))

    parent = [3 / 4, 1 / 2, -1 / 2, 1, -1, -3 / 4]
    root = [3 / 4, 5 / 4, 1 / 4, 5 / 4, -3 / 4, -3 / 4]
    np.testing.assert_allclose(found("parent"), parent, atol=1e-5)
    np.testing.assert_allclose(found("root"), root, atol=1e-5)
    np.testing.assert_allclose(found("both"), np.add(parent, root), atol=1e-5)


def test_a_shared_turn_counts_for_each_leaf_or_once():
    table = TurnTable.of([two_forks(tokens=[3, 1, 2, 4, 5, 6])])
    often = assign(table, At2poCredit(node_value="children"))
    once = assign(table, At2poCredit(node_value="children", prefix_weighting="node_once"))
    assert often.credit.weight.tolist() == [3, 1, 2, 1, 1, 1]
    assert once.credit.weight.tolist() == [1] * 6
    np.testing.assert_allclose(often.credit.positive, once.credit.positive * [3, 1, 2, 1, 1, 1])
    assert often.denominator == (3 + 1) + (3 + 2 + 4) + (3 + 2 + 5) + 6
    assert once.denominator == pytest.approx(3 + 1 + 2 + 4 + 5 + 6)
    # Each leaf's share: 3/3 + 1, 3/3 + 2/2 + 4, 3/3 + 2/2 + 5, 6.
    np.testing.assert_allclose(once.rows.shares, [2, 6, 7, 6])
    fixed = assign(
        table, At2poCredit(prefix_weighting="node_once", node_value="leaves"), "constant", 9
    )
    assert fixed.denominator == 4 * 9


def test_under_sequence_means_a_turn_that_counts_once_has_the_mean_of_its_row_weights():
    table = TurnTable.of([two_forks(tokens=[3, 1, 2, 4, 5, 6])])
    method = At2poCredit(node_value="children", prefix_weighting="node_once")
    found = assign(table, method, "sequence_mean")
    by_leaf = [1 / 4, 1 / 9, 1 / 10, 1 / 6]
    wanted = [fmean(by_leaf[:3]), 1 / 4, fmean(by_leaf[1:3]), 1 / 9, 1 / 10, 1 / 6]
    np.testing.assert_allclose(found.credit.weight, wanted)
    assert found.denominator == pytest.approx(np.dot(wanted, [3, 1, 2, 4, 5, 6]))


def test_treerl_by_hand():
    # a = R - mean of the others = 2/3, 2/3, -2/3, -2/3; V(0) = 2/9, V(2) = 0, V(root) = 0.
    wanted = [4 / 9 / math.sqrt(3), 2 / 3 + 4 / 9, -2 / 9 / math.sqrt(2), 4 / 3, -4 / 3, -4 / 3]
    np.testing.assert_allclose(worth(two_forks(), TreeRlCredit()), wanted, atol=1e-12)


def test_spo_by_hand():
    # V(2) = 1/2, V(0) = 3/4, V(root) = 3/8.
    group = two_forks(tokens=[3, 1, 2, 4, 5, 6])
    wanted = [3 / 8, 1 / 4, -1 / 4, 1 / 2, -1 / 2, -3 / 8]
    np.testing.assert_allclose(worth(group, SpoCredit()), wanted)
    # The sample's standard deviation of 1, 1, 0, 0 is 1 / sqrt(3).
    scaled = worth(group, SpoCredit(scale="std"))
    np.testing.assert_allclose(scaled, np.array(wanted) * math.sqrt(3), rtol=1e-5)
    found = assign(TurnTable.of([group]), SpoCredit())
    assert found.credit.weight.tolist() == [1] * 6 and found.denominator == pytest.approx(21)


def test_spo_drops_turns_that_change_nothing_from_the_loss_and_its_denominator():
    # 0 is followed by 1 alone, which forks into 2 (paid 1) and 3 (0): A(1) = 1/2 - 1/2.
    tree = tree_of([ROOT, 0, 1, 1, ROOT], {2: 1.0, 4: 1.0}, tokens=[1, 2, 4, 8, 16])
    found = assign(TurnTable.of([Group("g", "t", (tree,))]), SpoCredit())
    assert found.credit.weight.tolist() == [1, 0, 1, 1, 1]
    assert found.denominator == pytest.approx(1 + 4 + 8 + 16)


def test_treepo_by_hand():
    # Leaf 1: root 1 - 1/2; node 0 (mean 2/3): 1 - 2/3. Leaf 3 also node 2 (mean 1/2): 1/2.
    plain = TreePoCredit(scale="none").compare(TurnTable.of([two_forks()])).advantage
    wanted = [
        fmean([1 / 2, 1 / 3]),
        fmean([1 / 2, 1 / 3, 1 / 2]),
        fmean([-1 / 2, -2 / 3, -1 / 2]),
        -1 / 2,
    ]
    np.testing.assert_allclose(plain, wanted)
    sized = TreePoCredit(scale="none", weighting="leaves").compare(TurnTable.of([two_forks()]))
    by_size = [
        (4 / 2 + 3 / 3) / 7,
        (4 / 2 + 3 / 3 + 2 / 2) / 9,
        (-4 / 2 - 3 * 2 / 3 - 2 / 2) / 9,
        -1 / 2,
    ]
    np.testing.assert_allclose(sized.advantage, by_size)


def test_treepo_whitens_over_the_tokens_of_the_iteration():
    groups = [chains([1.0, 0.0], tokens=3), chains([4.0, 0.0, 2.0], tokens=1)]
    found = TreePoCredit().compare(TurnTable.of(groups)).advantage
    tokens = [0.5] * 3 + [-0.5] * 3 + [2.0, -2.0, 0.0]
    spread = math.sqrt(stdev(tokens) ** 2 + 1e-8)
    np.testing.assert_allclose(found, np.array([0.5, -0.5, 2, -2, 0]) / spread)


def test_what_is_masked_is_still_in_treepo_s_whitening():
    # Returns 1, 0, 5 with the mean 2, two tokens each: -1, -2, 3 with variance 28 / 5.
    trees = (
        tree_of([ROOT], {0: 1.0}),
        tree_of([ROOT], {0: 0.0}),
        tree_of([ROOT], {0: 5.0}, stops={0: StopReason.TRUNCATED_TURNS}),
    )
    table = TurnTable.of([Group("g", "t", trees)])
    masked = TreePoCredit(truncated="mask").compare(table)
    wanted = np.array([-1.0, -2.0, 0.0]) / math.sqrt(28 / 5 + 1e-8)
    np.testing.assert_allclose(masked.advantage, wanted, rtol=1e-12)
    # Nor is it in them where its group has one left to train and none beside it.
    alone = TurnTable.of([Group("g", "t", trees), chains([9.0])])
    np.testing.assert_allclose(TreePoCredit(truncated="mask").compare(alone).advantage[:3], wanted)


def test_a_deep_fork_decides_more_by_tree_values_than_by_grpo():
    # Only the second turn matters: its advantage is all, the first turn's none.
    parents = [ROOT, 0, 0, ROOT, 3, 3]
    group = Group("g", "t", (tree_of(parents, {1: 1.0, 4: 1.0}),))
    for method in (
        At2poCredit(),
        At2poCredit(against="parent"),
        SpoCredit(),
        TreeRlCredit(),
    ):
        found = np.abs(worth(group, method))
        assert found[[0, 3]].sum() == 0 and (found[[1, 2, 4, 5]] > 0).all()


# -- the definitions, by recursion -------------------------------------------------------------


class Node:
    """A node of a task's tree: its turn, its children, the values of the leaves below."""

    def __init__(self, row, uncertainty=0.0, value=None):
        self.row, self.uncertainty, self.value, self.children = row, uncertainty, value, []

    def leaves(self):
        own = [] if self.value is None else [self.value]
        return own + [value for child in self.children for value in child.leaves()]

    def mean(self, how):
        if self.value is not None:
            return self.value
        living = [child for child in self.children if child.leaves()]
        if not living:
            return 0.0
        if how == "leaves":
            return fmean(self.leaves())
        logits = [child.uncertainty if how == "softmax" else 0.0 for child in living]
        shares = [math.exp(one) for one in logits]
        return sum(s * child.mean(how) for s, child in zip(shares, living, strict=True)) / sum(
            shares
        )


def task_tree(group, values, start):
    """The root of all trees of `group`, whose leaves (not failed) have `values`; all its nodes."""
    root, nodes, values = Node(ROOT), {}, iter(values)
    parents = {}
    for tree in group.trees:
        for index, (above, turn) in enumerate(zip(tree.parents, tree.turns, strict=True)):
            surprise = fmean(-float(one) for one in turn.logprobs) if len(turn.logprobs) else 0.0
            node = Node(start + index, surprise)
            reason = tree.leaves.get(index)
            if reason is not None and not reason.is_failure:
                node.value = next(values)
            parent = root if above == ROOT else nodes[start + above]
            parent.children.append(node)
            nodes[node.row], parents[node.row] = node, parent
        start += len(tree.turns)
    return root, nodes, parents


def returns_of(group):
    return [
        one.episode_return
        for tree in group.trees
        for one in tree.trajectories()
        if not one.stop_reason.is_failure
    ]


def slow(groups, kind, how, against):
    """The advantages of all turns by the methods' definitions."""
    found, start = [], 0
    for group in groups:
        returns = returns_of(group)
        values = returns
        if kind == "at2po":
            spread = pstdev(returns) if returns else 0.0
            tie = spread < 1e-12
            values = [0.0 if tie else (r - fmean(returns)) / (spread + 1e-6) for r in returns]
        if kind == "tree_rl":
            n = len(returns)
            values = [(r - fmean(returns)) * n / (n - 1) if n > 1 else 0.0 for r in returns]
        root, nodes, parents = task_tree(group, values, start)
        for row, node in nodes.items():
            value, above, top = (one.mean(how) for one in (node, parents[row], root))
            if kind == "spo":
                worth = value - above if len(returns) > 1 else 0.0
            elif kind == "tree_rl":
                worth = (value - top + value - above) / math.sqrt(max(len(node.leaves()), 1))
            else:
                worth = {
                    "nothing": value,
                    "parent": value - above,
                    "root": value - top,
                    "both": 2 * value - above - top,
                }[against]
            found.append(worth if node.leaves() else 0.0)
        start += sum(len(tree.turns) for tree in group.trees)
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    how=st.sampled_from(["softmax", "children", "leaves"]),
    against=st.sampled_from(["nothing", "parent", "root", "both"]),
)
def test_at2po_is_its_definition_on_random_trees(seed, how, against):
    groups = random_groups(seed, n_groups=2)
    table = TurnTable.of(groups, with_tokens=True)
    method = At2poCredit(node_value=how, against=against)
    credit = method(table, np.ones(len(table.leaf_turn)))
    wanted = np.array(slow(groups, "at2po", how, against))
    np.testing.assert_allclose(credit.positive + credit.negative, wanted * credit.weight, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["tree_rl", "spo"]))
def test_treerl_and_spo_are_their_definitions_on_random_trees(seed, kind):
    groups = random_groups(seed, n_groups=2)
    table = TurnTable.of(groups)
    method, how = (TreeRlCredit(), "leaves") if kind == "tree_rl" else (SpoCredit(), "children")
    wanted = np.array(slow(groups, kind, how, ""))
    ones = method(table, np.ones(len(table.leaf_turn)))
    copies = 1.0 if kind == "spo" else ones.weight
    np.testing.assert_allclose(ones.positive + ones.negative, wanted * copies, atol=1e-9)
    # Under other weights a turn has the sum of those of its leaves, or with SPO their mean.
    trains = method.compare(table).trains
    weights = row_weights(table, "sequence_mean", trains=trains).weights
    credit, levels = method(table, weights), Levels.of(table)
    total, leaves = (subtree_sums(levels, at_leaves(table, one)) for one in (weights, 1.0 * trains))
    if kind == "spo":
        total = np.where(np.abs(wanted) < 1e-9, 0.0, total / np.maximum(leaves, 1.0))
    np.testing.assert_allclose(credit.weight, total, atol=1e-12)
    np.testing.assert_allclose(credit.positive + credit.negative, wanted * total, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), weighting=st.sampled_from(["alike", "leaves"]))
def test_treepo_is_its_definition_on_random_trees(seed, weighting):
    groups = random_groups(seed, n_groups=2)
    wanted = []
    for group in groups:
        every = [
            (number, one)
            for number, tree in enumerate(group.trees)
            for one in tree.trajectories()
            if not one.stop_reason.is_failure
        ]
        for number, one in every:
            terms = []
            for depth in range(len(one.path)):
                share = [
                    other.episode_return
                    for tree, other in every
                    if depth == 0 or (tree == number and other.path[:depth] == one.path[:depth])
                ]
                if depth == 0 or len(share) > 1:
                    size = len(share) if weighting == "leaves" else 1
                    terms.append((size, one.episode_return - fmean(share)))
            total = sum(size for size, _ in terms)
            wanted.append(sum(size * x for size, x in terms) / total if len(every) > 1 else 0.0)
    method = TreePoCredit(scale="none", weighting=weighting)
    found = method.compare(TurnTable.of(groups)).advantage
    np.testing.assert_allclose(found, wanted, atol=1e-9)


# -- what all of them keep ---------------------------------------------------------------------


@pytest.mark.parametrize("method", EVERY, ids=str)
def test_equal_returns_are_exactly_zero_and_one_alone_trains_nothing(method):
    tree = tree_of([ROOT, 0, 0, 0, 1, 1, 1], dict.fromkeys([2, 3, 4, 5, 6], 0.1))
    found = assign(TurnTable.of([Group("g", "t", (tree,))], with_tokens=True), method)
    assert not found.credit.positive.any() and not found.credit.negative.any()
    alone = assign(TurnTable.of([chains([0.7], turns=3)], with_tokens=True), method)
    assert not alone.credit.weight.any() and alone.denominator == 1.0
    strict = method.model_copy(update={"singleton": "error"})
    with pytest.raises(ContractError, match="one trajectory left"):
        assign(TurnTable.of([chains([0.7])], with_tokens=True), strict)


def test_equal_returns_of_a_subtree_leave_its_turns_without_difference():
    # Three leaves of 0.1 below node 0: their mean is 0.1 but for rounding.
    tree = tree_of([ROOT, 0, 0, 0, ROOT], dict.fromkeys([1, 2, 3], 0.1) | {4: 0.9})
    found = assign(TurnTable.of([Group("g", "t", (tree,))]), SpoCredit())
    assert found.credit.weight.tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("method", EVERY, ids=str)
def test_a_failed_leaf_is_as_if_it_had_never_been_and_garbage_in_it_does_not_matter(method):
    method = method.model_copy(update={"scale": "none"})  # Whitening counts tokens of others.
    stops = {6: StopReason.ENV_ERROR}
    table = TurnTable.of([two_forks()], with_tokens=True)
    failed = TurnTable.of(
        [Group("g", "t", (tree_of([*PARENTS, 2], {1: 1.0, 3: 1.0, 6: math.nan}, stops=stops),))],
        with_tokens=True,
    )
    credit, other = assign(table, method).credit, assign(failed, method).credit
    np.testing.assert_allclose(other.positive[:6], credit.positive)
    np.testing.assert_allclose(other.negative[:6], credit.negative)
    assert other.weight[6] == 0.0 and other.positive[6] == other.negative[6] == 0.0


@pytest.mark.parametrize("method", EVERY, ids=str)
def test_truncated_trajectories_are_compared_and_not_trained_or_neither(method):
    stops = {4: StopReason.TRUNCATED_TURNS}
    cut = TurnTable.of([two_forks(stops=stops)], with_tokens=True)
    whole = TurnTable.of([two_forks()], with_tokens=True)
    kept = assign(whole, method).credit
    masked = assign(cut, method.model_copy(update={"truncated": "mask"})).credit
    assert masked.weight[4] == 0.0 < kept.weight[4]
    if not isinstance(method, TreePoCredit):
        # Whatever does not train is still in the values of the nodes above it.
        one = np.array([1 / max(w, 1) for w in kept.weight]) * (kept.positive + kept.negative)
        two = np.array([1 / max(w, 1) for w in masked.weight]) * (masked.positive + masked.negative)
        np.testing.assert_allclose(two[masked.weight > 0], one[masked.weight > 0])
    excluded = assign(cut, method.model_copy(update={"truncated": "exclude"})).credit
    without = TurnTable.of(
        [Group("g", "t", (tree_of([ROOT, 0, 0, 2, ROOT], {1: 1.0, 3: 1.0}),))], with_tokens=True
    )
    rows = [0, 1, 2, 3, 5]
    wanted = assign(without, method).credit
    np.testing.assert_allclose(excluded.positive[rows], wanted.positive, atol=1e-12)
    np.testing.assert_allclose(excluded.negative[rows], wanted.negative, atol=1e-12)
    np.testing.assert_allclose(excluded.weight[rows], wanted.weight)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), number=st.integers(0, len(EVERY) - 1))
def test_the_order_of_trees_and_groups_and_groups_apart_change_nothing(seed, number):
    method = EVERY[number]
    if isinstance(method, TreePoCredit):
        method = method.model_copy(update={"scale": "none"})  # Whitening is over the iteration.
    groups = random_groups(seed, n_groups=3)

    def credit(some):
        found = assign(TurnTable.of(some, with_tokens=True), method).credit
        return np.stack([found.positive, found.negative, found.weight])

    size = [sum(len(tree.turns) for tree in group.trees) for group in groups]
    parts = np.split(credit(groups), np.cumsum(size)[:-1], axis=1)
    for group, part in zip(groups, parts, strict=True):
        np.testing.assert_allclose(credit([group]), part, atol=1e-9)
        turned = dataclasses.replace(group, trees=group.trees[::-1])
        sizes = [len(tree.turns) for tree in group.trees]
        pieces = np.split(part, np.cumsum(sizes)[:-1], axis=1)
        np.testing.assert_allclose(credit([turned]), np.hstack(pieces[::-1]), atol=1e-9)


def test_on_chains_they_are_grpo_rloo_and_the_first_turn_s_difference():
    group = chains([1.0, 0.0, 0.0, 0.5], turns=2)
    table = TurnTable.of([group], with_tokens=True)
    mean, spread = 0.375, pstdev([1.0, 0.0, 0.0, 0.5])
    deviation = np.repeat(np.array([1.0, 0.0, 0.0, 0.5]) - mean, 2)
    for how in ("softmax", "children", "leaves"):
        np.testing.assert_allclose(
            worth(group, At2poCredit(node_value=how)), deviation / (spread + 1e-6)
        )
    first = np.tile([1.0, 0.0], 4)
    np.testing.assert_allclose(worth(group, SpoCredit()), deviation * first)
    rloo = worth(group, RlooCredit())
    np.testing.assert_allclose(worth(group, TreeRlCredit()), rloo * (1 + first), atol=1e-12)
    plain = GrpoCredit(scale="none").compare(table).advantage
    treepo = TreePoCredit(scale="none").compare(table).advantage
    np.testing.assert_allclose(treepo, plain, atol=1e-15)


def test_softmax_values_ask_for_the_tokens():
    assert At2poCredit().needs_tokens and not At2poCredit(node_value="leaves").needs_tokens
    with pytest.raises(ContractError, match="with_tokens=True"):
        assign(TurnTable.of([two_forks()]), At2poCredit())


@pytest.mark.parametrize("method", EVERY, ids=str)
@pytest.mark.parametrize("groups", [[], [Group("g", "g", ())]])
def test_nothing_has_no_credit(method, groups):
    found = assign(TurnTable.of(groups, with_tokens=True), method)
    assert len(found.credit.weight) == 0 and found.denominator == 1.0
