"""Samplers fork within turns: at the ends of segments, with the trees that they make of turns."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import shape, tokenizer
from sampler_fakes import starter
from segment_fakes import HearingEnv, ReplayHearingEnv, babbling, in_segments

from agentrl.core.types import ROOT, Task, TrajectoryTree
from agentrl.rollout.segments import count_turns, whole_turns
from agentrl.samplers import (
    AnySampler,
    At2poSampler,
    ChainSampler,
    MctsSampler,
    SpoSampler,
    TreeRlSampler,
    TreeSampler,
)

SAMPLERS = [
    SpoSampler(widths=(2, 1, 3)),
    TreeSampler(trees=2, expansions=3, rounds=2),
    At2poSampler(initial=2, expansions=2, rounds=2),
    MctsSampler(simulations=5, width=2),
    TreeRlSampler(trees=2, expansions=2, continuations=2, rounds=2),
    ChainSampler(trajectories=2),
]


def sampled(
    sampler: AnySampler, env: Any = HearingEnv, *, shuffle: int = 0, slots: int = 64
) -> Sequence[TrajectoryTree]:
    """Trees of actions of at most 12 tokens in segments of 4; answers come late by `shuffle`.

    TreeRL's sampler forks at tokens, and needs no segments for it.
    """
    rng = random.Random(shuffle)
    engine = babbling(7, letters="abcdefghijklmnop")
    generate = engine.generate

    async def late(prompt: Any, sampling: Any) -> Any:
        for _ in range(rng.choice([0, 1, 2, 5, 30]) if shuffle else 0):
            await asyncio.sleep(0)
        return await generate(prompt, sampling)

    engine.generate = late  # type: ignore[method-assign]

    async def run() -> Sequence[TrajectoryTree]:
        tokens = None if sampler.type == "tree_rl" else 4
        setting = in_segments(engine, env, tokens, max_tokens_per_turn=12, slots=slots)
        trees = await sampler.sample(Task("t"), starter(setting), seed=3)
        assert not setting.live and not setting.slots.locked()
        return trees

    return asyncio.run(run())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: one.type)
def test_each_trajectory_is_what_its_environment_heard(sampler):
    trees = sampled(sampler)
    assert sum(len(tree.leaves) for tree in trees) == sampler.trajectories
    seen = set()
    for trajectory in (one for tree in trees for one in tree.trajectories()):
        turns = whole_turns(trajectory.turns)
        decoded = [tokenizer().decode(turn.action_ids) for turn in turns]
        said = [one.removesuffix("<|im_end|>") for one in decoded]
        assert len(turns) == count_turns(trajectory.turns) == 3
        for turn, one in zip(turns[:-1], said, strict=False):
            assert repr(one) in tokenizer().decode(turn.observation_ids)
        assert trajectory.episode_return == "".join(said).count("a")
        seen.add(tuple(decoded))
    assert len(seen) == sampler.trajectories
    within = [
        node
        for tree in trees
        for node in range(len(tree.turns))
        if tree.turns[node].goes_on and tree.parents.count(node) > 1
    ]
    assert bool(within) == (sampler.type != "chain")


@pytest.mark.parametrize("sampler", SAMPLERS[:5], ids=lambda one: one.type)
def test_neither_timing_nor_how_environments_fork_changes_a_tree(sampler):
    expected = [shape(tree) for tree in sampled(sampler)]
    assert [shape(tree) for tree in sampled(sampler, shuffle=1, slots=2)] == expected
    assert [shape(tree) for tree in sampled(sampler, ReplayHearingEnv, shuffle=2)] == expected


def test_the_last_segment_of_spo_that_forks_is_the_rest_of_its_turn():
    sampler = SpoSampler(widths=(2, 2))
    (tree,) = sampled(sampler)
    first = [node for node, parent in enumerate(tree.parents) if parent == ROOT]
    assert len(first) == 2 and all(tree.turns[node].goes_on for node in first)
    for node in first:
        assert len(tree.turns[node].action_ids) == 4
        below = [child for child, parent in enumerate(tree.parents) if parent == node]
        assert len(below) == 2 and not any(tree.turns[child].goes_on for child in below)
    assert any(len(turn.action_ids) > 4 for turn in tree.turns)
    assert not SpoSampler(widths=(3, 1, 1)).forks_after(0)
    assert SpoSampler(widths=(3, 1, 2)).forks_after(1)
