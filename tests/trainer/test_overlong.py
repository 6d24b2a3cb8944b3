"""The price of length: DAPO's three pieces by hand, on trees, and before the baseline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentrl.core.types import ROOT, Group, StopReason
from agentrl.credit import GrpoCredit, TurnTable
from agentrl.recipe.selection import OverlongSettings
from agentrl.testing.trees import random_groups, tree_of
from agentrl.trainer.overlong import penalty, punish_length

DAPO = OverlongSettings(length=20480, buffer=4096)


@pytest.mark.parametrize(
    ("tokens", "paid"),
    [
        (0, 0.0),
        (16384, 0.0),  # length - buffer
        (16385, -1 / 4096),
        (17408, -0.25),  # a quarter of the buffer
        (20479, -4095 / 4096),
        (20480, -1.0),
        (20481, -1.0),  # one released recipe goes on growing here
        (10**6, -1.0),
    ],
)
def test_the_penalty_is_dapos(tokens, paid) -> None:
    assert penalty(tokens, DAPO) == pytest.approx(paid, abs=1e-12)
    half = OverlongSettings(length=20480, buffer=4096, penalty=0.5)
    assert penalty(tokens, half) == pytest.approx(paid / 2, abs=1e-12)


@given(length=st.integers(1, 50), buffer=st.integers(1, 50), tokens=st.integers(0, 120))
def test_it_falls_never_rises_and_stays_in_its_bounds(length, buffer, tokens) -> None:
    if buffer > length:
        with pytest.raises(ValidationError, match="more than length"):
            OverlongSettings(length=length, buffer=buffer)
        return
    one = OverlongSettings(length=length, buffer=buffer)
    assert -1.0 <= penalty(tokens + 1, one) <= penalty(tokens, one) <= 0.0
    assert penalty(length - buffer, one) == 0.0 and penalty(length, one) == -1.0


def test_each_trajectory_of_a_tree_pays_for_its_own_path_at_its_last_turn() -> None:
    # 0 -> 1 (leaf), 0 -> 2 -> 3 (leaf); actions of 4, 2, 3 and 5 tokens: paths of 6 and 12.
    tree = tree_of([ROOT, 0, 0, 2], {1: 1.0, 3: 1.0}, tokens=[4, 2, 3, 5])
    settings = OverlongSettings(length=12, buffer=8)
    (group,) = punish_length([Group("g", "t", (tree,))], settings)
    turns = group.trees[0].turns
    assert [turn.rewards.get("overlong") for turn in turns] == [None, -0.25, None, -1.0]
    assert [turn.reward for turn in turns] == [0.0, 0.75, 0.0, 0.0]
    assert tree.turns[1].reward == 1.0  # the tree that came in is as it was
    assert turns[0] is tree.turns[0]
    # It is there before the baseline, and the score of the answer does not change.
    table = TurnTable.of([group], score="answer")
    assert GrpoCredit(scale="none").compare(table).advantage.tolist() == [0.375, -0.375]
    assert table.score is not None and table.score.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_failures_pay_nothing_and_parts_still_sum_up() -> None:
    lost = tree_of([ROOT], {0: 0.0}, tokens=50, stops={0: StopReason.ENGINE_ERROR})
    cut = tree_of([ROOT], {0: 0.0}, tokens=50, stops={0: StopReason.TRUNCATED_TOKENS})
    settings = OverlongSettings(length=10, buffer=5)
    (group,) = punish_length([Group("g", "t", (lost, cut))], settings)
    assert [tree.turns[0].rewards.get("overlong") for tree in group.trees] == [None, -1.0]
    for played in punish_length(random_groups(3, n_groups=6), settings):
        for trajectory in played.trajectories():
            for turn in trajectory.turns:
                assert sum(turn.rewards.values()) == pytest.approx(turn.reward)


def test_a_reward_without_parts_becomes_one() -> None:
    from dataclasses import replace

    tree = tree_of([ROOT], {0: 2.0}, tokens=10)
    tree.turns[0] = replace(tree.turns[0], rewards={})
    (group,) = punish_length([Group("g", "t", (tree,))], OverlongSettings(length=10, buffer=5))
    assert group.trees[0].turns[0].rewards == {"environment": 2.0, "overlong": -1.0}
