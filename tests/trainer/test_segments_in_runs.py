"""Segments from the engine to the update, and what a run reports of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentrl import store
from agentrl.core.types import ROOT, Group, Task, TrajectoryTree
from agentrl.engine.settings import TransformersSettings
from agentrl.recipe.load import load
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.segments import whole_turns
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import ChainSampler
from agentrl.testing.trees import tree_of
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run
from agentrl.trainer.summary import rollout_metrics


def test_metrics_count_whole_turns() -> None:
    # Two turns of two segments each, of which the second forks; and one that time cut short.
    tree = tree_of([ROOT, 0, 1, 2, 2, ROOT, 5], {3: 1.0, 4: 1.0}, tokens=2)
    for node in (0, 2, 5, 6):
        tree.turns[node] = replace(tree.turns[node], goes_on=True)
    for node in (1, 3, 4):
        tree.turns[node] = replace(tree.turns[node], env_seconds=0.5)
    found = rollout_metrics([Group("g", "task", (tree,))])
    assert found["rollout/turns_mean"] == pytest.approx((2 + 2 + 1) / 3)
    assert found["rollout/generated_tokens"] == 14
    assert found["env/seconds_p50"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spo", "tree_po", "tree_rl"])
def test_a_run_of_one_turn_forks_within_it(method: str, recipe_file: Path, tmp_path: Path) -> None:
    text = recipe_file.read_text()
    lines = [one for one in text.splitlines() if not one.startswith(("sampler", "credit"))]
    first, settings = f"preset: {method}", ["sampler.widths=[2, 2]"]
    if method == "tree_rl":
        first = "credit: {type: tree_rl}"
        settings = ["sampler={type: tree_rl, trees: 2, expansions: 1, continuations: 1}"]
    else:
        settings.append("rollout.sampling.segment_tokens=2")
    recipe_file.write_text("\n".join([first, *lines]))
    out = tmp_path / "run"
    settings += [
        "rollout.limits.max_turns=1",
        "train.iterations=2",
        "log.trees=1",
        "eval.every=0",
    ]
    run(load(recipe_file, settings), out=out)
    rows = read_metrics(out / "metrics.jsonl")
    assert [row["rollout/turns_mean"] for row in rows[1:]] == [1.0, 1.0]
    assert all(row["train/behavior_difference"] < 1e-5 for row in rows[1:])
    assert any(row["rollout/branches"] > 0 for row in rows[1:])
    groups = store.read(sorted((out / "trees").glob("iteration-*.parquet"))[0])
    within = [
        node
        for group in groups
        for tree in group.trees
        for node, turn in enumerate(tree.turns)
        if turn.goes_on and tree.parents.count(node) == 2
    ]
    assert within
    evaluated = [path for path in (out / "trees").glob("*.parquet") if "iteration" not in path.name]
    for path in evaluated:
        for group in store.read(path):
            assert not any(turn.goes_on for tree in group.trees for turn in tree.turns)


@pytest.mark.slow
def test_a_greedy_policy_says_the_same_in_segments_and_is_evaluated_whole(
    small_policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sampling = SamplingSettings(temperature=0.0, max_tokens_per_turn=11, segment_tokens=3)
    spec = HostSpec(
        env_id="trainer_fakes:VowelEnv",
        engine=TransformersSettings(),
        model=str(small_policy),
        sampler=ChainSampler(trajectories=1),
        rollout=RolloutSettings(sampling=sampling, limits=LimitsSettings(max_tokens=128)),
    )

    async def both() -> tuple[TrajectoryTree, TrajectoryTree]:
        host = RolloutHost(spec)
        await host.start()
        try:
            task = Task("t", {"word": "word"})
            cut = await host.sample_group(task, seed=0)
            whole = await host.evaluate(task, seed=0)
        finally:
            await host.close()
        return cut.trees[0], whole.trees[0]

    cut, whole = asyncio.run(both())
    # No action stops before its eleven tokens: three segments of three, and two tokens.
    assert [len(turn.action_ids) for turn in whole.turns] == [11, 11]
    assert [len(turn.action_ids) for turn in cut.turns] == [3, 3, 3, 2] * 2
    for one, other in zip(whole_turns(cut.turns), whole.turns, strict=True):
        assert one.action_ids.tolist() == other.action_ids.tolist()
        assert one.observation_ids.tolist() == other.observation_ids.tolist()
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
        assert one.reward == other.reward
