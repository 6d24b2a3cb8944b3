"""A tiny task's lists are all there is, and its gradient is that of the expected return."""

import numpy as np
import pytest

from agentrl.core.types import ROOT
from agentrl.credit import GrpoCredit, RlooCredit
from agentrl.testing.tiny_task import TinyTask
from agentrl.testing.trees import second_turn_groups

YES = np.ones((1, 2), bool)


def bandit(p):
    """Two arms, the first of which pays 1."""
    return TinyTask(np.array([[p, 1 - p]]), np.array([[1.0, 0.0]]), YES)


def expected_return(task):
    return sum(
        np.prod([task.policy[k, a] for k, a in enumerate(path)])
        * sum(task.reward[k, a] for k, a in enumerate(path))
        for path in task.paths
    )


def test_a_bandit_by_hand():
    # d/dlogits of p is p (1 - p) (1, -1). A pair differs with probability 2 p (1 - p); then RLOO
    # gives +-1, and the mean over the pair of A * score is (1 * (1-p, -(1-p)) - (-p, p)) / 2.
    task, slope = bandit(0.25), 0.25 * 0.75
    np.testing.assert_allclose(task.gradient(), [[slope, -slope]])
    found = task.estimate(RlooCredit(), 2)
    np.testing.assert_allclose(found.mean, [[slope, -slope]])
    # The estimate is (1/2, -1/2) with probability q = 2 * 3/16 and 0 else: variance q (1-q) / 2.
    assert found.spread == pytest.approx(np.sqrt(0.375 * 0.625 / 2))
    np.testing.assert_allclose(task.estimate(GrpoCredit(scale="none"), 2).mean[0, 0], slope / 2)


@pytest.mark.parametrize("varied", [True, False])
def test_all_trajectories_are_listed_and_the_gradient_is_that_of_finite_differences(varied):
    task = TinyTask.random(7, varied=varied)
    chance = [np.prod([task.policy[k, a] for k, a in enumerate(path)]) for path in task.paths]
    assert sum(chance) == pytest.approx(1.0) and len(set(task.paths)) == len(task.paths)
    assert {len(path) for path in task.paths} == ({1, 2, 3} if varied else {3})
    logits, found = np.log(task.policy), np.zeros_like(task.policy)
    for place in np.ndindex(*logits.shape):
        values = []
        for step in (1e-5, -1e-5):
            moved = logits.copy()
            moved[place] += step
            policy = np.exp(moved) / np.exp(moved).sum(1, keepdims=True)
            values.append(expected_return(TinyTask(policy, task.reward, task.ends)))
        found[place] = (values[0] - values[1]) / 2e-5
    np.testing.assert_allclose(task.gradient(), found, atol=1e-9)


def test_groups_in_which_only_the_second_turn_matters_have_the_shape_they_say():
    groups = second_turn_groups(3, groups=4, trees=2, arms=3)
    assert [len(group.trees) for group in groups] == [2] * 4
    for tree in (tree for group in groups for tree in group.trees):
        assert list(tree.parents) == [ROOT, 0, 0, 0]
        assert [turn.state_key for turn in tree.turns] == ["first"] + ["second"] * 3
        assert tree.turns[0].reward == 0.0
