"""What a critic is asked of an iteration's trees, and what it is taught, against flat rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GaeCredit, TurnGaeCredit, TurnTable
from agentrl.learner.batch import Row, gather
from agentrl.learner.loss_settings import PpoLoss
from agentrl.testing.trees import chains, random_groups, tree_of
from agentrl.trainer.batches import credit_of, training_steps
from agentrl.trainer.values import teach, unvalued, valued


class SumCritic:
    """A state is worth a number made of all its tokens in their order; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def values(self, rows: list[Row]) -> list[np.ndarray]:
        columns = []
        for row in rows:
            worth = np.zeros(len(row) + 1)
            for at, before in enumerate(row.previous):
                worth[at] = _next(worth[before] if before >= 0 else 0.0, row.token_ids[at])
            trained = row.weight > 0
            self.asked += int(trained.sum())
            columns.append(np.where(trained, worth[row.previous], 0).astype(np.float32))
        return columns


def _next(worth: float, token: int) -> float:
    return float((worth * 31 + token) % 9973)


def by_hand(groups):
    """Value before each action token and after each leaf, walking every path from the prompt."""
    tokens, last = [], []
    for group in groups:
        for tree in group.trees:
            for node, turn in enumerate(tree.turns):
                context = tree.context_ids(tree.parents[node]).tolist()
                for token in turn.action_ids.tolist():
                    tokens.append(_worth(context))
                    context.append(token)
                reason = tree.leaves.get(node)
                if reason is not None and not reason.is_failure:
                    last.append(_worth(tree.context_ids(node)) if reason.is_truncation else 0.0)
    return np.asarray(tokens), np.asarray(last)


def _worth(context) -> float:
    worth = 0.0
    for token in context:
        worth = _next(worth, int(token))
    return worth


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pack_tokens", [1, 30, 4096])
def test_values_are_those_of_the_states_before_and_of_where_a_limit_cut(seed, pack_tokens):
    groups = random_groups(seed, n_groups=4)
    table, critic = TurnTable.of(groups), SumCritic()
    found = valued(groups, table, critic, pack_tokens=pack_tokens)
    tokens, last = by_hand(groups)
    known = np.isfinite(found.values)
    np.testing.assert_array_equal(found.values[known], tokens[known])
    np.testing.assert_array_equal(found.bootstrap, last)
    # What is not known is on no trajectory, and each token is asked about once.
    assert critic.asked == known.sum() + table.leaf_truncated.sum()
    below = np.zeros(len(table.parent), bool)
    for turn in table.leaf_turn:
        while turn != ROOT:
            below[turn] = True
            turn = table.parent[turn]
    np.testing.assert_array_equal(known, np.repeat(below, table.tokens))


def test_the_last_state_holds_the_last_observation():
    tree = tree_of([ROOT], {0: 1.0}, stops={0: StopReason.TRUNCATED_TURNS})
    group = Group("g", "t", (tree,))
    found = valued([group], TurnTable.of([group]), SumCritic(), pack_tokens=64)
    assert len(tree.turns[0].observation_ids)
    assert found.bootstrap.tolist() == [_worth(tree.context_ids(0))]
    assert tree.leaves == {0: StopReason.TRUNCATED_TURNS} and len(tree.turns) == 1


def taught_steps(groups, method, *, updates=2, pack_tokens=64):
    table = valued(groups, TurnTable.of(groups), SumCritic(), pack_tokens=pack_tokens)
    scaled = replace(table, values=table.values / 5000, bootstrap=table.bootstrap / 5000)
    loss = PpoLoss()
    credited = credit_of(groups, method, loss, table=scaled)
    steps = training_steps(groups, credited, loss, pack_tokens=pack_tokens, updates=updates)
    return credited, teach(steps, credited, method, groups)


@pytest.mark.parametrize("method", [GaeCredit(gamma=0.9), TurnGaeCredit()])
def test_each_step_carries_the_targets_of_its_own_groups(method):
    groups = random_groups(7, n_groups=6)
    credited, (steps, _) = taught_steps(groups, method, updates=3)
    table = credited.table
    targets = method.targets(table, credited.assigned.rows.weights, credited.assigned.leaves)
    first = {id(group): number for number, group in enumerate(groups)}
    group_of_token = np.repeat(table.group, table.tokens)
    assert len(steps) == 3
    for step in steps:
        own = np.isin(group_of_token, [first[id(group)] for group in step.groups])
        size = int(own.sum())
        rows = step.batch.rows
        back = {
            name: np.nan_to_num(gather(rows, [getattr(row.values, name) for row in rows], size))
            for name in ("weight", "target", "spread", "old")
        }
        weight = targets.weight[own]
        taught = weight > 0
        # As many as the policy's tokens in sum, so the policy's denominator is the value loss's.
        assert back["weight"].sum() == pytest.approx(step.credit.weight.sum(), rel=1e-5)
        scale = step.credit.weight.sum() / weight.sum()
        assert scale == 1.0 or isinstance(method, TurnGaeCredit)
        np.testing.assert_allclose(back["weight"], scale * weight, rtol=1e-5)
        np.testing.assert_allclose(
            back["spread"], scale * targets.spread[own], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(back["target"][taught], targets.target[own][taught], rtol=1e-5)
        np.testing.assert_allclose(back["old"][taught], table.values[own][taught], rtol=1e-5)


@pytest.mark.parametrize("method", [GaeCredit(), TurnGaeCredit()], ids=lambda one: one.type)
def test_under_means_over_turns_the_critic_learns_each_turn_alike(method):
    # Chains of turns of 4 and 2 tokens; the second turn is one of no tokens in the other chain.
    trees = [tree_of([ROOT, 0], {1: 1.0}, tokens=[4, 2]), tree_of([ROOT, 0], {}, tokens=[3, 0])]
    groups, loss = [Group("g", "t", tuple(trees))], PpoLoss(aggregation="turn_mean")
    credited = credit_of(groups, method, loss, table=unvalued(TurnTable.of(groups)))
    steps = training_steps(groups, credited, loss, pack_tokens=64, updates=1)
    (step,) = teach(steps, credited, method, groups).steps
    rows = step.batch.rows
    found = np.nan_to_num(gather(rows, [row.values.weight for row in rows], 9))
    each = [1 / 4] * 4 + [1 / 2] * 2 + [1 / 3] * 3
    if method.type == "turn_gae":
        each = [1, 0, 0, 0, 1, 0, 1, 0, 0]
    np.testing.assert_allclose(found, each, rtol=1e-6)
    assert step.batch.denominator == 3.0


@pytest.mark.parametrize("method", [GaeCredit(lam=0.7), TurnGaeCredit()])
def test_explained_variance_is_that_over_the_copies_of_all_tokens(method):
    groups = random_groups(4, n_groups=3)
    credited, (_, metrics) = taught_steps(groups, method)
    table, leaves = credited.table, credited.assigned.leaves
    ones = np.ones(len(table.leaf_turn))
    targets, values = [], []
    for leaf in range(len(ones)):
        alone = leaves._replace(trains=leaves.trains & (np.arange(len(ones)) == leaf))
        own = method.targets(table, ones, alone)
        taught = own.weight > 0
        targets.append(own.target[taught])
        values.append(table.values[taught])
    target, value = np.concatenate(targets), np.concatenate(values)
    assert metrics["credit/value_mean"] == pytest.approx(value.mean())
    assert metrics["credit/value_target_mean"] == pytest.approx(target.mean())
    wanted = 1 - np.var(target - value) / np.var(target)
    assert metrics["credit/explained_variance"] == pytest.approx(wanted)


def test_targets_that_are_all_one_have_no_variance_to_explain():
    groups = [chains([1.0, 1.0])]
    table = unvalued(TurnTable.of(groups))
    method = GaeCredit(lam=1.0)
    credited = credit_of(groups, method, PpoLoss(), table=table)
    steps = training_steps(groups, credited, PpoLoss(), pack_tokens=64, updates=1)
    found = teach(steps, credited, method, groups)
    assert found.metrics == {"credit/value_mean": 0.0, "credit/value_target_mean": 1.0}
    # Equal advantages are whitened to nothing, and the critic learns all the same.
    (row,) = found.steps[0].batch.rows
    assert not row.positive.any() and row.values.target[row.weight > 0].tolist() == [1.0] * 4
