"""Which credit is unbiased, by counting all groups, and where credit lands on two turns."""

import dataclasses

import numpy as np
import pytest

from agentrl.core.types import ROOT, Group
from agentrl.credit import (
    ArpoCredit,
    BilevelGaeCredit,
    GaeCredit,
    GigpoCredit,
    GrpoCredit,
    MtGrpoCredit,
    ReinforceCredit,
    RlooCredit,
    SpoCredit,
    TreeGrpoCredit,
    TurnGaeCredit,
    TurnGrpoCredit,
    TurnTable,
    assign,
)
from agentrl.testing.state_values import state_values, with_state_values
from agentrl.testing.tiny_task import TinyTask
from agentrl.testing.trees import second_turn_groups, tree_of

LEAVE_ONE_OUT = {"baseline": "leave_one_out", "scale": "none"}


def angle(task, method, size=3):
    """Degrees between the expected gradient and the true one."""
    true, found = task.gradient(), task.estimate(method, size).mean
    cosine = (true * found).sum() / np.linalg.norm(true) / np.linalg.norm(found)
    return np.degrees(np.arccos(min(1.0, cosine)))


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_leave_one_out_and_no_baseline_are_unbiased(varied, seed):
    task = TinyTask.random(seed, varied=varied)
    for method in (
        RlooCredit(),
        ReinforceCredit(baseline=0.3),
        TurnGrpoCredit(singleton="raw", **LEAVE_ONE_OUT),
    ):
        np.testing.assert_allclose(task.estimate(method, 3).mean, task.gradient(), atol=1e-12)


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_mean_of_the_group_shrinks_the_gradient_by_one_in_its_size(varied, size):
    task = TinyTask.random(1, turns=2, varied=varied)
    found = task.estimate(GrpoCredit(scale="none"), size).mean
    np.testing.assert_allclose(found, (size - 1) / size * task.gradient(), atol=1e-12)


def test_by_turn_index_only_equally_many_turns_leave_the_direction_alone():
    by_index = TurnGrpoCredit(baseline="turn", scale="none")
    same, varied = TinyTask.random(0, varied=False), TinyTask.random(0)
    np.testing.assert_allclose(same.estimate(by_index, 3).mean, 2 / 3 * same.gradient(), atol=1e-12)
    assert angle(varied, by_index) > 1.0
    # Alone at an index a turn is 0 by default: later turns, where that is common, shrink.
    careful = TurnGrpoCredit(**LEAVE_ONE_OUT)
    np.testing.assert_allclose(same.estimate(careful, 3).mean, same.gradient(), atol=1e-12)
    assert 0.5 < angle(varied, careful) < angle(varied, by_index)


def test_normalising_all_steps_together_pays_for_turns_as_such():
    # Answering at once is worth 1, and so is going on, which is paid 0 and then 1: the true
    # gradient is 0. The mean over all steps is above 0, so the published form is against the turn
    # that goes on.
    policy = np.array([[0.5, 0.5], [0.5, 0.5]])
    reward = np.array([[1.0, 0.0], [1.0, 1.0]])
    task = TinyTask(policy, reward, np.array([[True, False], [True, True]]))
    np.testing.assert_allclose(task.gradient(), 0.0, atol=1e-15)
    for scale in ("std", "none"):
        assert task.estimate(TurnGrpoCredit(scale=scale), 3).mean[0, 0] > 0.05
        assert task.estimate(MtGrpoCredit(scale=scale), 3).mean[0, 0] == pytest.approx(0, abs=1e-12)
    for baseline in ("turn", "leave_one_out"):
        found = task.estimate(TurnGrpoCredit(baseline=baseline, scale="none"), 3).mean
        np.testing.assert_allclose(found, 0.0, atol=1e-12)


def share(groups, method, values=None):
    """Part of |net credit| on the tokens of second turns; `values` are a critic's, by state."""
    table = TurnTable.of(groups) if values is None else with_state_values(groups, values)
    credit = assign(table, method).credit.at_turns(table)
    worth = table.tokens * np.abs(credit.positive + credit.negative)
    return worth[table.depth == 1].sum() / worth.sum()


def test_where_only_the_second_turn_matters_a_fork_puts_the_credit_there():
    trees = second_turn_groups(0, groups=1000, trees=1, arms=2)
    for method in (
        TreeGrpoCredit(terms="intra"),
        TreeGrpoCredit(),
        GigpoCredit(),
        ArpoCredit(),
        TurnGrpoCredit(),
        TurnGrpoCredit(baseline="turn"),
        MtGrpoCredit(),
    ):
        assert share(trees, method) > 0.9, method
    chains = second_turn_groups(0, groups=250, trees=8, arms=1)
    assert share(chains, GrpoCredit()) == pytest.approx(0.5), "a chain's turns are worth the same"
    assert share(chains, TurnGrpoCredit(baseline="turn", gamma=0.0)) == pytest.approx(1.0)


def test_among_several_trees_only_the_comparison_within_them_does():
    forests = second_turn_groups(0, groups=250, trees=4, arms=2)
    assert share(forests, TreeGrpoCredit(terms="intra")) == pytest.approx(1.0)
    assert share(forests, TreeGrpoCredit()) < 0.8
    assert share(forests, GrpoCredit()) < 0.7
    assert share(forests, TurnGrpoCredit(baseline="turn", gamma=0.0)) == pytest.approx(1.0)


EXACT = {"first": 0.5, "room-0": 0.5, "room-1": 0.5, "room-2": 0.5, "closing": 0.0}
"""What the states are worth where a second turn earns 0 or 1."""


def chains_of_three_rooms(closing=0):
    return second_turn_groups(0, groups=50, trees=8, arms=1, rooms=3, closing=closing)


@pytest.mark.parametrize("closing", [0, 1])
def test_what_tells_of_the_turn_puts_the_credit_there_and_grpo_on_the_same_chains_does_not(closing):
    chains = chains_of_three_rooms(closing)
    other = second_turn_groups(2, groups=300, trees=1, arms=1, rooms=3, closing=closing)
    for values in (EXACT, state_values(other)):
        for cls in (GaeCredit, TurnGaeCredit, BilevelGaeCredit):
            assert share(chains, cls(lam=0.0), values) > 0.9, cls
    assert share(chains, TurnGrpoCredit(baseline="turn", gamma=0.0)) > 0.9
    assert share(chains, GrpoCredit()) == pytest.approx(1 / (2 + closing))


def test_wide_forks_or_comparisons_within_them_do_and_grpo_on_the_same_trees_does_not():
    trees = second_turn_groups(0, groups=40, trees=6, arms=6, rooms=3)
    assert share(trees, SpoCredit()) > 0.9
    assert share(trees, TreeGrpoCredit(terms="intra")) == pytest.approx(1.0)
    assert share(trees, GrpoCredit()) < 0.8


def test_a_turn_level_method_that_is_told_nothing_of_the_turn_does_not():
    chains = chains_of_three_rooms()
    for method in (GigpoCredit(), MtGrpoCredit(), TurnGrpoCredit(baseline="turn")):
        assert share(chains, method) < 0.6, method
    for cls in (GaeCredit, TurnGaeCredit, BilevelGaeCredit):
        assert share(chains, cls(lam=1.0), EXACT) < 0.6, cls
        assert share(chains, cls(lam=0.95), EXACT) < 0.6, cls


def test_a_table_of_states_is_worth_what_was_still_to_be_paid():
    # One first turn, two second ones that are paid 1 and 0, and a third after the first of them,
    # paid 2: still to be paid are (3 + 0) / 2 at the start, 3 and 0, and 2.
    tree = tree_of([ROOT, 0, 0, 1], {1: 1.0, 3: 2.0})
    states = ["start", "middle", "middle", "late"]
    tree.turns[:] = [
        dataclasses.replace(turn, state_key=state)
        for turn, state in zip(tree.turns, states, strict=True)
    ]
    group = Group("g", "t", (tree,))
    values = state_values([group])
    assert values == {"start": 1.5, "middle": 1.5, "late": 2.0}
    table = with_state_values([group], values)
    assert table.values.tolist() == [1.5] * 6 + [2.0] * 2
