"""Stored successes: who gets one, what is stored, and that it survives a stop exactly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.types import ROOT, Group, StopReason, TrajectoryTree
from agentrl.credit import GrpoCredit, TurnTable
from agentrl.learner.batch import gather
from agentrl.learner.loss_settings import PpoLoss
from agentrl.recipe.selection import ReplaySettings
from agentrl.testing.trees import random_groups, tree_of
from agentrl.trainer.batches import credit_of, training_steps
from agentrl.trainer.replay import Replay, failed, replayed, succeeded


def chain(
    worth: float, name: str, *, task: str = "t", stop=StopReason.TERMINATED
) -> TrajectoryTree:
    tree = tree_of([ROOT, 0], {1: worth}, stops={1: stop}, task_id=task)
    tree.group_id = name
    return tree


def group(name: str, returns: list[float], *, task: str = "t") -> Group:
    return Group(name, task, tuple(chain(value, name, task=task) for value in returns))


def buffer(*, capacity: int = 8, score: str = "reward", seed: int = 0) -> Replay:
    return Replay(ReplaySettings(capacity=capacity), score=score, seed=seed)


def returns(one: Group) -> list[float]:
    return [t.episode_return for t in one.trajectories()]


def test_a_group_that_failed_gets_one_success_and_its_advantages_are_the_papers() -> None:
    replay = buffer()
    replay.add([group("0", [0, 1, 0])])
    failing = group("1", [0.0] * 8)
    (found,) = replay.inject([failing])
    assert returns(found) == [1.0] + [0.0] * 7
    assert found.trees[1:] == failing.trees[1:]
    assert [tree.group_id for tree in replayed(found)] == ["0"] and replayed(failing) == []
    # n = 8, sample deviation: +2.4749 and -0.3536.
    advantage = GrpoCredit().compare(TurnTable.of([found])).advantage
    assert advantage[0] == pytest.approx(2.4749, abs=1e-4)
    assert advantage[1:] == pytest.approx(-0.3536, abs=1e-4)


def test_it_comes_with_what_the_policy_that_sampled_it_thought() -> None:
    replay = buffer()
    old = chain(1.0, "0")
    old.turns[0] = replace(old.turns[0], policy_version=3, logprobs=np.float32([-0.1, -0.9]))
    replay.add([Group("0", "t", (old,))])
    (found,) = replay.inject([group("9", [0, 0])])
    turn = found.trees[0].turns[0]
    assert turn.policy_version == 3 and turn.logprobs.tolist() == np.float32([-0.1, -0.9]).tolist()


def test_the_loss_takes_its_ratio_against_the_policy_that_sampled_it() -> None:
    replay = buffer()
    old = chain(1.0, "0")
    old.turns[1] = replace(old.turns[1], logprobs=np.float32([-2.5, -3.5]), policy_version=1)
    replay.add([Group("0", "t", (old,))])
    groups = replay.inject([group("9", [0, 0])])
    credited = credit_of(groups, GrpoCredit(), PpoLoss())
    (step,) = training_steps(groups, credited, PpoLoss(), pack_tokens=99, updates=1)
    rows = step.batch.rows
    behavior = gather(rows, [row.behavior_logprobs for row in rows], 8)
    # Two turns of two tokens each: the stored one's as they were, the fresh one's own.
    assert behavior.tolist() == [-0.5, -0.5, -2.5, -3.5, -0.5, -0.5, -0.5, -0.5]


@pytest.mark.parametrize("values", [[0, 1], [0.2, 0.0], [0.1, 0.1]])
def test_a_group_with_any_success_is_left_alone(values) -> None:
    replay = buffer()
    replay.add([group("0", [1.0])])
    one = group("1", values)
    assert replay.inject([one]) == [one]


def test_other_tasks_and_an_empty_buffer_change_nothing() -> None:
    replay = buffer()
    one = group("1", [0, 0])
    assert replay.inject([one]) == [one]
    replay.add([group("0", [1.0], task="another")])
    assert replay.inject([one]) == [one]


def test_failures_of_infrastructure_are_removed_before_the_test_for_zeros() -> None:
    lost = chain(0.0, "1", stop=StopReason.ENV_ERROR)
    replay = buffer()
    replay.add([group("0", [1.0])])
    nothing_but_lost = Group("1", "t", (lost, lost))
    assert not failed(nothing_but_lost, "reward") and not succeeded(nothing_but_lost, "reward")
    assert replay.inject([nothing_but_lost]) == [nothing_but_lost]
    # A lost one gives its place up first.
    mixed = Group("1", "t", (chain(0.0, "1"), lost, chain(0.0, "1")))
    (found,) = replay.inject([mixed])
    assert found.trees[0] is mixed.trees[0] and found.trees[2] is mixed.trees[2]
    assert returns(found) == [0.0, 1.0, 0.0]


def test_what_has_no_score_is_no_failure_of_the_policy() -> None:
    nan = float("nan")
    assert not failed(group("1", [nan, nan]), "reward")
    assert failed(group("1", [nan, 0.0]), "reward") and not failed(group("1", [nan, 1.0]), "reward")
    replay = buffer()
    replay.add([group("0", [nan])])
    assert len(replay) == 0


def test_what_was_lost_is_never_stored_whatever_it_was_paid() -> None:
    replay = buffer()
    replay.add([Group("0", "t", (chain(1.0, "0", stop=StopReason.CANCELLED),))])
    assert len(replay) == 0
    replay.add([Group("0", "t", (chain(1.0, "0", stop=StopReason.TRUNCATED_TURNS),))])
    assert len(replay) == 1


def test_trees_with_several_trajectories_are_joined_and_not_replaced() -> None:
    replay = buffer()
    # Both leaves of a tree succeed; the store has two chains.
    forked = tree_of([ROOT, 0, 0], {1: 1.0, 2: 2.0}, task_id="t")
    forked.group_id = "0"
    replay.add([Group("0", "t", (forked,))])
    assert len(replay) == 2
    failing = tree_of([ROOT, 0, 0], {}, task_id="t")
    failing.group_id = "1"
    (found,) = replay.inject([Group("1", "t", (failing, failing))])
    assert found.trees[:2] == (failing, failing) and len(found.trees) == 3
    (stored,) = replayed(found)
    assert stored.parents == [ROOT, 0] and list(stored.leaves) == [1]
    assert stored.turns[0] is forked.turns[0]


def test_the_oldest_gives_way_and_each_task_has_a_list_of_its_own() -> None:
    replay = buffer(capacity=2)
    replay.add([group("0", [1, 2, 3]), group("1", [4], task="u")])
    assert len(replay) == 3
    seen = {returns(replay.inject([group(f"{n}", [0, 0])])[0])[0] for n in range(40)}
    assert seen == {2.0, 3.0}


def test_the_choice_hangs_on_the_seed_and_the_groups_name_alone() -> None:
    def choices(seed: int, order: list[int]) -> dict[str, float]:
        replay = buffer(seed=seed)
        replay.add([group("0", [1, 2, 3, 4])])
        found = replay.inject([group(f"{n}", [0, 0]) for n in order])
        return {one.id: returns(one)[0] for one in found}

    names = list(range(100, 200))
    assert choices(0, names) == choices(0, names[::-1])
    assert choices(0, names) != choices(1, names)
    counts = Counter(choices(0, names).values())
    assert set(counts) == {1.0, 2.0, 3.0, 4.0} and min(counts.values()) > 10


def test_the_score_counts_and_not_the_shaped_reward() -> None:
    def told(name: str, correct: float, bonus: float) -> TrajectoryTree:
        tree = chain(0.0, name)
        parts = {"correct": correct, "format": bonus}
        tree.turns[1] = replace(tree.turns[1], rewards=parts, reward=sum(parts.values()))
        return tree

    replay = buffer(score="correct")
    replay.add([Group("0", "t", (told("0", 0.0, 0.5),))])
    assert len(replay) == 0
    replay.add([Group("0", "t", (told("0", 1.0, -2.0),))])
    assert len(replay) == 1
    # All of this group failed, though one has a better format.
    (found,) = replay.inject([Group("1", "t", (told("1", 0.0, 0.5), told("1", 0.0, 0.0)))])
    assert len(replayed(found)) == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), capacity=st.integers(1, 4))
def test_a_store_that_was_written_and_read_goes_on_as_the_one_that_was_not(
    seed, capacity, tmp_path_factory
) -> None:
    whole, stopped = buffer(capacity=capacity), buffer(capacity=capacity)
    first, second = random_groups(seed), random_groups(seed + 1)
    for one in (whole, stopped):
        one.add(first)
    folder = tmp_path_factory.mktemp("replay")
    Replay.write(folder, stopped.groups())
    stopped = buffer(capacity=capacity)
    stopped.read(folder)
    failing = [group(f"new-{one.id}", [0.0, 0.0], task=one.task_id) for one in first]

    def shown(replay: Replay) -> list[list[float]]:
        return [returns(one) for one in replay.inject(failing)]

    assert len(whole) == len(stopped) and shown(whole) == shown(stopped)
    for one in (whole, stopped):
        one.add(second)
    assert len(whole) == len(stopped) and shown(whole) == shown(stopped)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_injection_changes_groups_that_failed_and_one_tree_of_each(seed) -> None:
    groups = random_groups(seed, n_groups=5)
    replay = buffer()
    replay.add([group("old", [1.0], task=one.task_id) for one in groups[:3]])
    for before, after in zip(groups, replay.inject(groups), strict=True):
        kept = [tree for tree in after.trees if any(tree is one for one in before.trees)]
        new = len(after.trees) - len(kept)
        assert new == (1 if failed(before, "reward") and before in groups[:3] else 0)
        assert len(before.trees) - len(kept) in (0, new)
        assert (after.id, after.task_id) == (before.id, before.task_id)
