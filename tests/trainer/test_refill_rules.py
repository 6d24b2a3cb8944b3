"""Which groups are of use to an update, judged as the update will judge them."""

from __future__ import annotations

import pytest

from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GrpoCredit, TurnTable, assign
from agentrl.filters import BestFilter, MeanRangeFilter, NotConstantFilter, TopAdvantageFilter
from agentrl.testing.trees import chains, random_groups, tree_of
from agentrl.trainer.refill import informative


def test_groups_that_a_filter_leaves_nothing_of_are_of_no_use() -> None:
    lost = tree_of([ROOT], {}, stops={0: StopReason.ENV_ERROR})
    groups = [
        chains([0, 1]),
        chains([1, 1]),
        chains([0, 0, 0]),
        Group("task", "task", (lost, lost)),
        Group("task", "task", (*chains([0.0, 1.0]).trees, lost)),
        Group("task", "task", (*chains([1.0]).trees, lost)),
    ]
    assert informative(groups, [NotConstantFilter()], "reward") == [
        True,
        False,
        False,
        False,
        True,
        False,
    ]
    assert informative(groups, [BestFilter()], "reward") == [True, True, False, False, True, True]
    both = [BestFilter(), MeanRangeFilter(low=0.6, high=2.0)]
    assert informative(groups, both, "reward") == [False, True, False, False, False, True]
    assert informative(groups, [], "reward") == [True, True, True, False, True, True]
    assert informative([], [NotConstantFilter()], "reward") == []


@pytest.mark.parametrize("seed", range(20))
def test_a_group_of_use_trains_in_the_update_and_no_other_does(seed) -> None:
    groups = random_groups(seed, n_groups=6)
    for filters in ([NotConstantFilter()], [BestFilter(above=1.5), TopAdvantageFilter()]):
        table = TurnTable.of(groups, score="answer")
        leaves = assign(table, GrpoCredit(singleton="raw"), filters=filters).leaves
        trained = set(table.leaf_group[leaves.trains].tolist())
        found = informative(groups, filters, "answer")
        assert [index for index, ok in enumerate(found) if ok] == sorted(trained)
