"""EEPO's chains: two halves that together are what one policy would have played."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))

from rollout_fakes import CountEnv, RuleEngine, shape, stage
from sampler_fakes import check_no_timing_matters, starter, uneven

from agentrl.core.types import Task
from agentrl.samplers import ChainSampler, EepoSampler


@pytest.mark.parametrize(("trajectories", "sizes"), [(2, (1, 1)), (7, (4, 3)), (8, (4, 4))])
def test_two_halves_are_the_chains_of_the_chain_sampler(trajectories, sizes):
    sampler = EepoSampler(trajectories=trajectories)

    async def play(one):
        setting = stage(RuleEngine(uneven), CountEnv, max_turns=4)
        return await one.sample(Task("t"), starter(setting), seed=5)

    halves = [sampler.half(0), sampler.half(1)]
    assert tuple(half.trajectories for half in halves) == sizes
    assert not any(half.needs_fork for half in halves)
    trees = [tree for half in halves for tree in asyncio.run(play(half))]
    whole = asyncio.run(play(sampler))
    chains = asyncio.run(play(ChainSampler(trajectories=trajectories)))
    assert [shape(tree) for tree in trees] == [shape(tree) for tree in whole]
    assert [shape(tree) for tree in whole] == [shape(tree) for tree in chains]


def test_the_chains_do_not_depend_on_who_finishes_first():
    check_no_timing_matters(EepoSampler(trajectories=6), CountEnv, seed=3)


def test_one_trajectory_has_no_halves():
    with pytest.raises(ValidationError):
        EepoSampler(trajectories=1)
