"""When a policy forgets the first half of an iteration, what the engines get, and what trains."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from agentrl.core.types import Group, Task
from agentrl.learner.settings import LearnerSettings
from agentrl.samplers import EepoSampler
from agentrl.testing.trees import chains
from agentrl.trainer.forgetting import Forgetting, mean_entropy
from agentrl.workers.fleet import Job


class Events(list):
    """Everything that happened to engines and learner, in order."""

    def forget(self, rows, *, rate):
        tokens = sorted(int(t) for row in rows for t in row.token_ids[row.weight > 0])
        self.append(("forget", len(tokens), rate))

    def recall(self):
        self.append("recall")

    async def push(self):
        self.append("push")

    async def play(self, job):
        await asyncio.sleep(0)
        self.append(("play", job.group_id, job.half))
        return half(job.group_id, 3)


def half(name: str, count: int, *, entropy: float = 0.25) -> Group:
    group = chains([1.0] * count, turns=2)
    for tree in group.trees:
        for node, turn in enumerate(tree.turns):
            tree.turns[node] = replace(turn, entropies=np.full(2, entropy, np.float32))
    return Group(name, "task", group.trees)


def forgetting(events: Events, **sampler: float) -> Forgetting:
    recipe = SimpleNamespace(
        sampler=EepoSampler(trajectories=7, **sampler), learner=LearnerSettings()
    )
    return Forgetting(recipe, learner=events, push=events.push)  # type: ignore[arg-type]


def complete(made: Forgetting, events: Events, *, entropy: float = 0.25):
    halves = [half(name, 4, entropy=entropy) for name in ("a", "b")]
    jobs = {g.id: Job(task=Task("task"), group_id=g.id, seed=1, half=0) for g in halves}
    return asyncio.run(made.complete(halves, jobs, play=events.play))


def test_it_forgets_once_the_window_is_full_and_the_policy_is_sure():
    events = Events()
    made = forgetting(events, window=3, entropy_below=0.3, rate=0.01)
    # Averages 0.25, (0.25 + 0.5) / 2, and from then on over three: 1/3, 1/3, 1/4.
    for entropy, average, active in [
        (0.25, 0.25, False),
        (0.5, 0.375, False),
        (0.25, 1 / 3, False),
        (0.25, 1 / 3, False),
        (0.25, 0.25, True),
    ]:
        del events[:]
        found = complete(made, events, entropy=entropy)
        assert found.metrics["forget/active"] == active
        assert found.metrics["forget/entropy_mean"] == pytest.approx(average)
        assert [len(group.trees) for group in found.groups] == [7, 7]
        played = [event for event in events if event[0] == "play"]
        assert sorted(played) == [("play", "a", 1), ("play", "b", 1)]
        if not active:
            assert events == played
    # Both halves' chains have 2 turns of 2 tokens: 2 groups x 4 chains x 4 tokens are forgotten.
    assert events[:2] == [("forget", 32, 0.01), "push"]
    assert events[-2:] == ["recall", "push"]


def test_first_halves_stand_before_second_ones_in_their_own_groups():
    events = Events()
    made = forgetting(events)
    halves = [half("a", 4), half("b", 4)]
    jobs = {g.id: Job(task=Task("task"), group_id=g.id, seed=1, half=0) for g in halves}
    found = asyncio.run(made.complete(halves, jobs, play=events.play))
    assert [group.id for group in found.groups] == ["a", "b"]
    for before, after in zip(halves, found.groups, strict=True):
        assert after.trees[:4] == before.trees


def test_the_learner_remembers_also_where_the_second_half_fails():
    events = Events()
    made = forgetting(events, window=1, entropy_below=9.0)

    async def broken(job):
        raise RuntimeError("the fleet is gone")

    halves = [half("a", 4)]
    jobs = {"a": Job(task=Task("task"), group_id="a", seed=1, half=0)}
    with pytest.raises(RuntimeError, match="the fleet is gone"):
        asyncio.run(made.complete(halves, jobs, play=broken))
    assert events == [("forget", 16, 3.0e-3), "push", "recall"]


def test_an_entropy_that_nobody_measured_is_no_reason_to_forget():
    blind = half("a", 4)
    for tree in blind.trees:
        tree.turns = [replace(turn, entropy_kind="none") for turn in tree.turns]
    assert math.isnan(mean_entropy([blind])) and math.isnan(mean_entropy([]))
    events = Events()
    made = forgetting(events, window=1, entropy_below=9.0)
    jobs = {"a": Job(task=Task("task"), group_id="a", seed=1, half=0)}
    found = asyncio.run(made.complete([blind], jobs, play=events.play))
    assert found.metrics["forget/active"] == 0.0 and events == [("play", "a", 1)]


@pytest.mark.slow
def test_a_run_forgets_samples_and_trains_on_both_halves(recipe_file, tmp_path):
    from agentrl import store
    from agentrl.recipe.load import load
    from agentrl.trainer.metrics import read_metrics
    from agentrl.trainer.run import run

    settings = [
        "sampler={type: eepo, trajectories: 3, entropy_below: 99.0, window: 2, rate: 3.0}",
        "credit={type: grpo}",
        "train.iterations=3",
        "eval.every=0",
        "log={trees: 1, tensorboard: false}",
    ]
    run(load(recipe_file, settings), out=tmp_path / "whole")
    rows = read_metrics(tmp_path / "whole" / "metrics.jsonl")[1:]
    assert [row["forget/active"] for row in rows] == [0.0, 1.0, 1.0]
    assert all(row["rollout/trajectories"] == 9.0 for row in rows)
    # The tokens of the first update were sampled by the policy itself and by one that had
    # forgotten: the learner's log-probabilities are the first one's to the engine's precision.
    assert rows[0]["train/behavior_difference_largest"] < 1e-3
    assert rows[1]["train/behavior_difference_largest"] > 1e-2
    groups = store.read(tmp_path / "whole" / "trees" / "iteration-000002.parquet")
    assert [len(group.trees) for group in groups] == [3, 3, 3]

    run(load(recipe_file, [*settings, "train.iterations=2"]), out=tmp_path / "cut")
    run(load(recipe_file, settings), out=tmp_path / "cut", resume=True)
    again = read_metrics(tmp_path / "cut" / "metrics.jsonl")[1:]
    for name in ("train/loss", "train/gradient_norm", "forget/entropy_mean", "forget/active"):
        assert [row[name] for row in again] == [row[name] for row in rows]
