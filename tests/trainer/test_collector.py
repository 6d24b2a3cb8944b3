"""The collector over a fleet without a model: refill, replay, hints, curriculum, resuming."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from agentrl.core.types import ROOT, Group, StopReason, Task, TrajectoryTree, Turn
from agentrl.recipe.schema import Recipe
from agentrl.trainer.collect import Collector
from agentrl.trainer.display import Display
from agentrl.trainer.improve import Improver
from agentrl.trainer.replay import replayed
from agentrl.trainer.sampled import Sampled
from agentrl.trainer.summary import spent
from agentrl.workers.fleet import Job

TASKS = [Task(f"task-{index}", {"chance": index / 11}) for index in range(12)]

EVERYTHING = {
    "refill": 2,
    "hints": [0.25, 0.5, 0.75],
    "curriculum": {"explore": 0.3},
    "replay": {"capacity": 3},
    "overlong": {"length": 6, "buffer": 4},
}


def recipe(
    *, filters: Sequence[dict[str, object]] = ({"type": "not_constant"},), **train
) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "x",
            "env": {"id": "demo/door"},
            "policy": {"model": "m"},
            "filters": list(filters),
            "train": {"tasks_per_iteration": 4, "iterations": 6, **train},
            "eval": {"score": "correct"},
        }
    )


class FakeFleet:
    """Chains that are right by the task's chance and the hint, in any order of their ends."""

    capacity = 5

    def __init__(self, *, ticks: int = 0, lost: float = 0.0) -> None:
        self.order = random.Random(ticks)
        self.lost = lost
        self.jobs: list[Job] = []

    async def play_one(self, job: Job) -> Group:
        self.jobs.append(job)
        for _ in range(self.order.randint(0, 6)):
            await asyncio.sleep(0)
        rng = np.random.default_rng(job.seed)
        chance = max(job.task.data["chance"] - 0.4, job.task.data.get("agentrl.hint", 0.0) - 0.3)
        trees = tuple(self._chain(job, rng, chance) for _ in range(4))
        return Group(job.group_id, job.task.id, trees)

    def _chain(self, job: Job, rng: np.random.Generator, chance: float) -> TrajectoryTree:
        tree = TrajectoryTree(job.task.id, [1], group_id=job.group_id, seed=job.seed)
        right, size = float(rng.random() < chance), int(rng.integers(1, 8))
        column = -rng.random(size).astype(np.float32)
        turn = Turn(
            action_ids=np.arange(size, dtype=np.int32),
            logprobs=column,
            entropies=-column,
            reward=right,
            rewards={"correct": right},
        )
        lost = rng.random() < self.lost
        tree.end(tree.add(ROOT, turn), StopReason.ENV_ERROR if lost else StopReason.TERMINATED)
        return tree


def collector(chosen: Recipe, fleet: FakeFleet) -> Collector:
    display = Display(plain=True, console=Console(quiet=True))
    return Collector(chosen, fleet=fleet, tasks=TASKS, display=display)  # type: ignore[arg-type]


async def sample(one: Collector, iterations: range) -> list[Sampled]:
    found = []
    for iteration in iterations:
        assert one.has_more
        one.advance(iteration)
        found.append(await one.sample(iteration))
    return found


def collect(chosen: Recipe, fleet: FakeFleet | None = None) -> list[Sampled]:
    return asyncio.run(sample(collector(chosen, fleet or FakeFleet()), range(6)))


def scores(group: Group) -> list[float]:
    return [
        sum(turn.rewards["correct"] for turn in t.turns)
        for t in group.trajectories()
        if not t.stop_reason.is_failure
    ]


def told(found: Sequence[Sampled]) -> list[object]:
    """All of what was sampled, but for the time that it took."""
    return [
        (
            [[g.id, g.task_id, [t.episode_return for t in g.trajectories()]] for g in one.groups],
            [[tree.group_id for tree in group.trees] for group in one.groups],
            [group.id for group in one.fresh],
            [group.id for group in one.played],
            one.spent,
            json.dumps(one.metrics),
        )
        for one in found
    ]


def test_without_any_of_it_the_iterations_are_the_tasks_in_their_order() -> None:
    chosen = recipe(filters=())
    fleet = FakeFleet()
    for one in collect(chosen, fleet):
        assert one.groups == one.fresh == one.played and one.metrics == {}
        assert one.spent == spent(one.groups)
    assert len({job.task.id for job in fleet.jobs[:12]}) == 12
    assert [job.group_id for job in fleet.jobs[4:8]] == [f"000001-000{n}" for n in range(4)]


def test_refill_plays_until_enough_groups_are_of_use_and_counts_all_of_them() -> None:
    for one in collect(recipe(refill=9)):
        assert len(one.groups) == 4
        assert all(0 < sum(scores(group)) < 4 for group in one.groups)
        constant = [group for group in one.played if len(set(scores(group))) == 1]
        assert {group.id for group in one.played} - {g.id for g in one.groups} == {
            group.id for group in constant
        }
        assert one.spent == spent(one.played) and one.spent.trajectories == 4 * len(one.played)
        assert one.metrics == {
            "refill/groups_played": float(len(one.played)),
            "refill/groups_uninformative": float(len(constant)),
        }
    plain = collect(recipe())
    assert any(len(set(scores(group))) == 1 for one in plain for group in one.groups)


def test_refill_ends_at_its_bound_with_fewer_groups_or_none() -> None:
    nothing = recipe(filters=[{"type": "mean_range", "low": 2.0, "high": 3.0}], refill=2)
    for one in collect(nothing):
        assert one.groups == [] and len(one.played) == 4 * (1 + 2)
        assert one.metrics["refill/groups_uninformative"] == 12.0
    hard = recipe(filters=[{"type": "mean_range", "low": 0.6, "high": 1.0}], refill=1)
    found = collect(hard)
    assert all(len(one.played) <= 8 for one in found)
    assert {len(one.groups) for one in found} & {0, 1, 2, 3}


async def test_an_iteration_without_a_group_of_use_makes_no_update_and_divides_nothing() -> None:
    class Learner:
        def update(self, rows, denominator):
            raise AssertionError("there is nothing to learn")

    improver = Improver(recipe(), Learner())  # type: ignore[arg-type]
    improved = await improver.improve([])
    assert improved.metrics["credit/trained_turns"] == 0.0
    assert improved.metrics["filter/not_constant_groups"] == 0.0
    assert len(improved.credit.weight) == 0


@settings(max_examples=10, deadline=None)
@given(ticks=st.integers(1, 10_000))
def test_what_is_sampled_does_not_hang_on_what_ends_first(ticks: int) -> None:
    for train in (EVERYTHING, {"refill": 1}, {"replay": {}}, {"curriculum": {}}):
        assert told(collect(recipe(**train), FakeFleet(ticks=ticks))) == told(
            collect(recipe(**train))
        )


def test_a_group_that_failed_gets_a_success_of_an_earlier_iteration_only() -> None:
    seen = 0
    found = collect(recipe(filters=(), replay={"capacity": 2}))
    stored: set[str] = set()
    for one in found:
        for group, fresh in zip(one.groups, one.fresh, strict=True):
            old = replayed(group)
            seen += len(old)
            assert len(group.trees) == 4 and len(old) <= 1
            if old:
                assert not any(scores(fresh)) and sum(scores(group)) == 1.0
                assert old[0].group_id in stored and old[0].task_id == group.task_id
            else:
                assert group is fresh
        # What was played before is in no score and in no budget.
        assert not any(replayed(group) for group in one.played)
        assert one.spent == spent(one.fresh)
        assert one.metrics["replay/groups"] == sum(bool(replayed(g)) for g in one.groups)
        stored |= {group.id for group in one.played}
    assert seen > 0


def test_without_replay_it_is_grpo_to_the_bit() -> None:
    plain, off = collect(recipe(filters=())), collect(recipe(filters=(), replay=None))
    assert told(plain) == told(off) and all(one.groups == one.fresh for one in off)


def test_a_group_that_replay_saves_is_of_use() -> None:
    with_replay = collect(recipe(refill=9, replay={}))
    for one in with_replay:
        assert len(one.groups) == 4
    saved = [group for one in with_replay for group in one.groups if replayed(group)]
    assert saved
    assert sum(len(one.played) for one in with_replay) < sum(
        len(one.played) for one in collect(recipe(refill=9))
    )


def test_hinted_groups_train_and_are_in_no_score() -> None:
    fleet = FakeFleet()
    helped = 0
    for one in collect(recipe(filters=(), hints=[0.25, 0.5, 0.75]), fleet):
        for group, first in zip(one.groups, one.played, strict=True):
            assert "hint" not in first.id
            if group is not first:
                helped += 1
                assert not any(scores(first)) and any(scores(group))
                assert group.id.startswith(f"{first.id}-hint-")
        failed = sum(not any(scores(group)) for group in one.played)
        assert one.metrics["hints/groups"] == failed
        assert one.spent.trajectories > 4 * len(one.played) or failed == 0
    assert helped > 0
    assert any("agentrl.hint" in job.task.data for job in fleet.jobs)


def test_the_price_of_length_is_a_part_of_the_reward_that_the_score_does_not_see() -> None:
    found = collect(recipe(overlong={"length": 6, "buffer": 4}, refill=9))
    turns = [turn for one in found for g in one.groups for tree in g.trees for turn in tree.turns]
    for turn in turns:
        over = max(0, len(turn.action_ids) - 2) / 4
        assert turn.rewards["overlong"] == -min(1.0, over)
        assert turn.reward == turn.rewards["correct"] + turn.rewards["overlong"]
    assert all(len(set(scores(group))) == 2 for one in found for group in one.groups)


def test_a_curriculum_plays_what_is_neither_solved_nor_hopeless() -> None:
    def often(train: dict[str, object]) -> float:
        chosen = recipe(filters=(), **({"iterations": 60} | train))
        one = collector(chosen, FakeFleet())
        found = asyncio.run(sample(one, range(60)))
        assert all(len({group.task_id for group in f.played}) == 4 for f in found)
        late = [group for f in found[20:] for group in f.played]
        return sum(len(set(scores(group))) == 2 for group in late) / len(late)

    assert often({"curriculum": {"explore": 0.1}}) > 1.15 * often({})


@pytest.mark.parametrize("max_lag", [0, 2])
@pytest.mark.parametrize("stop", range(1, 6))
def test_a_resumed_run_samples_what_the_uninterrupted_one_does(
    stop: int, max_lag: int, tmp_path: Path
) -> None:
    chosen = recipe(**EVERYTHING, max_lag=max_lag)

    async def both() -> tuple[list[Sampled], list[Sampled]]:
        whole = await sample(collector(chosen, FakeFleet(lost=0.1)), range(6))
        first = collector(chosen, FakeFleet(lost=0.1))
        before = await sample(first, range(stop))
        state, write = first.snapshot()
        write(tmp_path)
        await first.stream.close()
        second = collector(chosen, FakeFleet(lost=0.1))
        trained = sum((one.spent for one in before), start=spent([]))
        second.restore(tmp_path, json.loads(json.dumps(state)), iteration=stop, spent_on=trained)
        after = await sample(second, range(stop, 6))
        return whole, [*before, *after]

    whole, resumed = asyncio.run(both())
    if max_lag == 0:
        assert told(resumed) == told(whole)
        return
    # Ahead of the learner the order of ends decides what is trained when; nothing is lost.
    names = [group.id for one in resumed for group in one.played]
    assert len(names) == len(set(names)) and all(len(one.fresh) <= 4 for one in resumed)
    assert sorted(names) == [f"{n // 4:06d}-{n % 4:04d}" for n in range(len(names))]


def test_a_budget_ends_the_run_counting_what_was_set_aside() -> None:
    chosen = recipe(refill=9, iterations=50, max_generated_tokens=600)
    one = collector(chosen, FakeFleet())

    async def play() -> int:
        spent_tokens, iteration = 0, 0
        while one.has_more:
            one.advance(iteration)
            spent_tokens += (await one.sample(iteration)).spent.generated_tokens
            iteration += 1
        return spent_tokens

    total = asyncio.run(play())
    assert total == one.played.generated_tokens and 600 <= total < 1500
