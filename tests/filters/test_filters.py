"""Filters: numbers worked out by hand, a slow second implementation, and what never changes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl.core.types import ROOT, Group, StopReason, TrajectoryTree
from agentrl.credit import ArpoCredit, GrpoCredit, TurnTable, assign
from agentrl.credit.groups import LeafAdvantages
from agentrl.filters import (
    BestFilter,
    MeanRangeFilter,
    NotConstantFilter,
    TopAdvantageFilter,
    WidestFilter,
    filter_metrics,
)
from agentrl.testing.trees import chains, random_groups, tree_of

FILTERS = [
    NotConstantFilter(),
    MeanRangeFilter(low=0.4, high=2.5),
    BestFilter(above=0.5),
    BestFilter(keep="successes", above=1.0),
    TopAdvantageFilter(prune=0.5),
    TopAdvantageFilter(prune=0.75),
]


def compared(*groups: Group, score: str = "reward") -> tuple[TurnTable, LeafAdvantages]:
    table = TurnTable.of(groups, score=score)
    return table, GrpoCredit().compare(table)


def kept(one, *returns: list[float]) -> list[list[bool]]:
    """Which chains of groups with these returns still train."""
    table, leaves = compared(*(chains(values) for values in returns))
    after = one(table, leaves)
    assert (after.advantage[~after.trains] == 0).all()
    return [after.trains[table.leaf_group == g].tolist() for g in range(len(returns))]


def test_groups_that_are_all_right_or_all_wrong_do_not_train() -> None:
    found = kept(NotConstantFilter(), [1, 0, 1], [1, 1, 1], [0, 0], [0.2, 0.3])
    assert found == [[True] * 3, [False] * 3, [False] * 2, [True] * 2]


def test_equal_scores_that_rounding_tells_apart_are_constant() -> None:
    # The mean of three 0.1 in floats is not 0.1, so a test of `std > 0` would let the group pass.
    assert np.std([0.1] * 3) > 0
    assert kept(NotConstantFilter(), [0.1] * 3) == [[False] * 3]
    assert kept(NotConstantFilter(), [0.1 + 0.2, 0.3]) == [[False] * 2]
    assert kept(MeanRangeFilter(low=0.1), [0.1] * 3) == [[False] * 3]


def test_the_mean_must_lie_strictly_inside_the_range() -> None:
    # Means 1/4, 1/2, 3/4, 1.
    groups = [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]
    found = kept(MeanRangeFilter(low=0.25, high=0.75), *groups)
    assert [any(one) for one in found] == [False, True, False, False]
    found = kept(MeanRangeFilter(), *groups, [0, 0])
    assert [any(one) for one in found] == [True, True, True, False, False]


def test_the_best_are_successes_and_equals_stay_together() -> None:
    found = kept(BestFilter(), [0, 1, 3, 3], [0, 0], [-1, 1, -1], [0.5, 0.25])
    assert found == [
        [False, False, True, True],
        [False, False],  # the best of failures is a failure
        [False, True, False],
        [True, False],
    ]
    found = kept(BestFilter(keep="successes", above=0.4), [0, 1, 3, 3], [0.4, 0.5])
    assert found == [[False, True, True, True], [False, True]]


def test_pruning_keeps_the_largest_advantages_either_way() -> None:
    # Returns 0 0 0 1: mean 1/4, so |A| is largest for the last; of the equal zeros the first stays.
    assert kept(TopAdvantageFilter(prune=0.5), [0, 0, 0, 1]) == [[True, False, False, True]]
    # Returns 4 0 2 2: deviations 2 -2 0 0.
    assert kept(TopAdvantageFilter(prune=0.5), [2, 4, 2, 0]) == [[False, True, False, True]]
    # Without any difference the first k stay.
    assert kept(TopAdvantageFilter(prune=0.5), [1, 1, 1, 1]) == [[True, True, False, False]]


def test_what_is_kept_of_a_group_is_rounded_down_and_never_by_floats() -> None:
    # CPPO's own settings: 16 completions, a share of 0.5 to 0.9375 pruned.
    assert [TopAdvantageFilter(prune=p).kept_of(16) for p in (0.5, 0.875, 0.9375)] == [8, 2, 1]
    assert 10 * (1 - 0.9) < 1
    assert TopAdvantageFilter(prune=0.9).kept_of(10) == 1
    assert TopAdvantageFilter(prune=0.5).kept_of(5) == 2
    assert TopAdvantageFilter(prune=0.95).kept_of(16) == 0


def test_a_group_that_failures_made_smaller_keeps_one() -> None:
    trees = chains([0.0, 1.0, 0.0, 0.0]).trees
    lost = [tree_of([ROOT], {}, stops={0: StopReason.ENV_ERROR}) for _ in range(2)]
    group = Group("task", "task", (*trees[:2], *lost))
    table, leaves = compared(group)
    after = TopAdvantageFilter(prune=0.75)(table, leaves)
    assert after.trains.tolist() == [True, False]  # two left, and floor(2 / 4) is none


def test_the_widest_groups_stay_and_equal_scores_never() -> None:
    # Population deviations 1/2, 0, 0.433, 2, 1/2: a share of two fifths is two groups.
    groups = [1, 0], [1, 1, 1], [1, 0, 0, 0], [4, 0], [0, 1]
    found = kept(WidestFilter(keep=0.4), *groups)
    assert [any(one) for one in found] == [True, False, False, True, False]
    assert [all(one) for one in found] == [True, False, False, True, False]
    found = kept(WidestFilter(keep=1.0), *groups)
    assert [any(one) for one in found] == [True, False, True, True, True]
    assert [any(one) for one in kept(WidestFilter(keep=0.01), *groups)].count(True) == 1
    assert kept(WidestFilter(keep=1.0), [1, 1], [0.1, 0.1, 0.1]) == [[False] * 2, [False] * 3]


def test_the_widest_are_counted_among_groups_that_have_something_to_train() -> None:
    # Four groups, one of which is a single trajectory: half of three is one.
    found = kept(WidestFilter(keep=0.5), [5.0], [0, 1], [0, 2], [0, 3])
    assert [any(one) for one in found] == [False, False, False, True]


def with_parts(tree: TrajectoryTree, **parts: float) -> TrajectoryTree:
    last = len(tree.turns) - 1
    tree.turns[last] = replace(tree.turns[last], rewards=parts, reward=sum(parts.values()))
    return tree


def test_filters_judge_by_the_score_and_not_by_the_shaped_reward() -> None:
    # Four right answers, one of them too long: the reward differs, the accuracy does not.
    trees = [
        with_parts(tree_of([ROOT], {}), correct=1.0, overlong=-0.5 * (n == 3)) for n in range(4)
    ]
    group = Group("task", "task", tuple(trees))
    by_reward = NotConstantFilter()(*compared(group))
    by_score = NotConstantFilter()(*compared(group, score="correct"))
    assert by_reward.trains.all() and not by_score.trains.any()
    # A component that nobody was paid is 0 for all.
    assert not NotConstantFilter()(*compared(group, score="em")).trains.any()


def test_what_filters_take_out_is_counted_and_leaves_the_denominator() -> None:
    groups = [chains([1, 0, 0, 0]), chains([1, 1, 1, 1]), chains([1, 1, 0, 0])]
    filters = [NotConstantFilter(), TopAdvantageFilter(prune=0.5), TopAdvantageFilter(prune=0.5)]
    table = TurnTable.of(groups)
    found = assign(table, GrpoCredit(), "token_mean", filters=filters)
    assert [tuple(one) for one in found.taken_out] == [(4, 1), (4, 0), (2, 0)]
    assert filter_metrics(filters, found.taken_out) == {
        "filter/not_constant_trajectories": 4.0,
        "filter/not_constant_groups": 1.0,
        "filter/top_advantage_trajectories": 6.0,
        "filter/top_advantage_groups": 0.0,
    }
    assert found.denominator == 2 * 2  # two chains of two tokens each
    # The advantages are those of the whole groups: 1 of 4 is 1.5 deviations up.
    assert found.leaves.advantage[0] == pytest.approx(0.75 / 0.5, abs=1e-5)
    assert assign(table, GrpoCredit(), "token_mean").taken_out == ()


def test_with_everything_filtered_nothing_trains_and_nothing_is_divided_by_zero() -> None:
    table = TurnTable.of([chains([1, 1]), chains([0, 0, 0])])
    found = assign(table, GrpoCredit(), "sequence_mean", filters=[NotConstantFilter()])
    assert not found.credit.weight.any() and found.denominator == 1.0
    empty = TurnTable.of([])
    for one in FILTERS:
        assert not one(empty, GrpoCredit().compare(empty)).trains.any()


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (TopAdvantageFilter, {"prune": 1.0}),
        (TopAdvantageFilter, {"prune": 0.0}),
        (MeanRangeFilter, {"low": 1.0}),
        (BestFilter, {"keep": "worst"}),
    ],
)
def test_settings_that_cannot_work_are_refused(cls, wrong) -> None:
    with pytest.raises(ValidationError):
        cls(**wrong)


# -- against the definitions, group by group ------------------------------------------------------


def slowly(one, scores: list[float], advantages: list[float], trains: list[bool]) -> list[bool]:
    """Which of a group's trajectories `one` keeps, from the definition."""
    finite = [value for value in scores if math.isfinite(value)]
    if isinstance(one, NotConstantFilter):
        alive = len(finite) > 1 and max(finite) - min(finite) > 1e-9 * max(1, abs(np.mean(finite)))
        return [alive and t for t in trains]
    if isinstance(one, MeanRangeFilter):
        alive = bool(finite) and one.low < np.mean(finite) < one.high
        return [alive and t for t in trains]
    if isinstance(one, BestFilter):
        top = max(finite, default=0.0)
        good = [v > one.above and (one.keep == "successes" or v >= top - 1e-9) for v in scores]
        return [g and t for g, t in zip(good, trains, strict=True)]
    places = [at for at, t in enumerate(trains) if t]
    ranked = sorted(places, key=lambda at: (-round(abs(advantages[at]), 7), at))
    k = max(1, math.floor(len(ranked) * (1 - one.prune) + 1e-9))
    return [at in ranked[:k] for at in range(len(trains))]


@pytest.mark.parametrize("one", FILTERS, ids=lambda one: repr(one)[:40])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), truncated=st.sampled_from(["keep", "mask", "exclude"]))
def test_a_filter_does_what_its_definition_says_on_any_trees(one, seed, truncated) -> None:
    groups = random_groups(seed, n_groups=4)
    table = TurnTable.of(groups, score="answer")
    leaves = ArpoCredit(truncated=truncated, singleton="raw").compare(table)
    after = one(table, leaves)
    at = 0
    for group in groups:
        played = [t for t in group.trajectories() if not t.stop_reason.is_failure]
        size = len(played)
        scores = [sum(turn.rewards.get("answer", 0.0) for turn in t.turns) for t in played]
        here = slice(at, at + size)
        expected = slowly(
            one, scores, leaves.advantage[here].tolist(), leaves.trains[here].tolist()
        )
        assert after.trains[here].tolist() == expected
        at += size
    assert not (after.trains & ~leaves.trains).any()
    assert (after.advantage == np.where(after.trains, leaves.advantage, 0.0)).all()
    again = one(table, after)
    if not isinstance(one, TopAdvantageFilter):
        assert (again.trains == after.trains).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(4)))
def test_the_order_of_groups_does_not_matter(seed, order) -> None:
    groups = random_groups(seed, n_groups=4)

    def answers(listed: list[Group]) -> dict[str, list[bool]]:
        table, leaves = compared(*listed)
        for one in (NotConstantFilter(), TopAdvantageFilter(prune=0.4), BestFilter()):
            leaves = one(table, leaves)
        bounds = np.searchsorted(table.leaf_group, np.arange(len(listed) + 1))
        parts = [leaves.trains[a:b].tolist() for a, b in pairwise(bounds)]
        return {group.id: part for group, part in zip(listed, parts, strict=True)}

    assert answers([groups[index] for index in order]) == answers(groups)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.2, 0.5, 1.0]))
def test_the_widest_of_any_groups_are_those_of_largest_deviation(seed, share) -> None:
    groups = random_groups(seed, n_groups=6)
    table, leaves = compared(*groups, score="format")
    after = WidestFilter(keep=share)(table, leaves)
    spread, alive = {}, 0
    for g, group in enumerate(groups):
        played = [t for t in group.trajectories() if not t.stop_reason.is_failure]
        scores = [sum(turn.rewards.get("format", 0.0) for turn in t.turns) for t in played]
        if leaves.trains[table.leaf_group == g].any():
            alive += 1
            if np.ptp(scores) > 1e-9:
                spread[g] = round(float(np.std(scores)), 8)
    ranked = sorted(spread, key=lambda g: (-spread[g], g))
    expected = ranked[: max(1, math.floor(share * alive + 1e-9))]
    kept_groups = set(table.leaf_group[after.trains].tolist())
    assert kept_groups == set(expected)
    inside = np.isin(table.leaf_group, expected)
    assert (after.trains == (leaves.trains & inside)).all()
