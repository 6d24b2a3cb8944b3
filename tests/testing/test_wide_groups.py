"""A wide group has the leaves and depths that it was asked for, the same ones for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from agentrl.testing.trees import wide_group


@pytest.mark.parametrize(("leaves", "trees"), [(1, 1), (64, 1), (9, 4)])
def test_a_wide_group_has_its_leaves_in_its_trees_at_one_depth(leaves, trees):
    group = wide_group(3, leaves=leaves, trees=trees, turns=5, tokens=6)
    assert len(group.trees) == trees and len(group.trajectories()) == leaves
    assert {len(one.path) for one in group.trajectories()} == {5}
    assert max(len(tree.leaves) for tree in group.trees) - leaves // trees in (0, 1)
    assert {len(turn.action_ids) for tree in group.trees for turn in tree.turns} == {6}


def test_a_seed_fixes_a_wide_group():
    first, again, other = (wide_group(seed, leaves=16) for seed in (1, 1, 2))
    returns = [[one.episode_return for one in group.trajectories()] for group in (first, again)]
    assert returns[0] == returns[1] and set(returns[0]) == {0.0, 1.0}
    assert first.trees[0].parents == again.trees[0].parents
    np.testing.assert_array_equal(
        first.trees[0].turns[3].entropies, again.trees[0].turns[3].entropies
    )
    assert first.trees[0].parents != other.trees[0].parents
