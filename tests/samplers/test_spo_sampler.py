"""Trees of fixed width: their leaves, where they fork, and that no timing changes them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import CountEnv, ReplayCountEnv, RuleEngine, shape
from sampler_fakes import (
    by_turn,
    check_cancelling_closes,
    check_no_timing_matters,
    sample,
    uneven,
)

from agentrl.core.types import ROOT, StopReason
from agentrl.samplers import AnySampler, SpoSampler


def test_the_settings_tell_the_budget():
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"type": "spo", "widths": [6, 6, 6]}).trajectories == 216
    assert SpoSampler().trajectories == 8 and SpoSampler().needs_fork
    assert not SpoSampler(widths=(1, 1)).needs_fork
    for wrong in ((), (2, 0)):
        with pytest.raises(ValidationError):
            SpoSampler(widths=wrong)


async def test_every_state_is_acted_from_as_often_as_its_depth_says():
    (tree,) = await sample(
        SpoSampler(widths=(3, 2)), RuleEngine(by_turn([1.0, 1.0, 1.0, 1.0], turns=4))
    )
    # Three first turns; two second ones each; then chains of two more.
    one = [ROOT, 0, 1, 2, 0, 4, 5]
    expected = [p if p == ROOT else p + 7 * copy for copy in range(3) for p in one]
    assert tree.parents == expected
    assert tree.leaves == dict.fromkeys((3, 6, 10, 13, 17, 20), StopReason.TERMINATED)
    assert len({turn.action_ids.tobytes() for turn in tree.turns}) == len(tree.turns)


async def test_a_trajectory_that_ends_early_has_no_twins_below():
    (tree,) = await sample(SpoSampler(widths=(2, 2, 2)), RuleEngine(by_turn([1.0], turns=1)))
    assert tree.parents == [ROOT, ROOT]


async def test_widths_of_one_are_a_chain():
    (tree,) = await sample(SpoSampler(widths=(1,)), RuleEngine(by_turn([1.0, 1.0, 1.0])))
    assert tree.parents == [ROOT, 0, 1]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    kind=st.sampled_from([CountEnv, ReplayCountEnv]),
)
def test_trees_depend_on_the_seed_and_never_on_who_was_faster(seed, widths, kind):
    check_no_timing_matters(SpoSampler(widths=tuple(widths)), kind, seed=seed, fewest=widths[0])


async def test_a_copying_and_a_replaying_environment_give_the_same_trees():
    sampler = SpoSampler(widths=(2, 3))
    copied = await sample(sampler, RuleEngine(uneven), CountEnv, seed=5, max_turns=6)
    replayed = await sample(sampler, RuleEngine(uneven), ReplayCountEnv, seed=5, max_turns=6)
    assert [shape(tree) for tree in copied] == [shape(tree) for tree in replayed]


async def test_a_slow_branch_holds_up_nobody():
    release, ended = asyncio.Event(), []

    async def slow(env, action):
        if env.count == 2 and not slow.met:
            slow.met = True
            await release.wait()
        if action.startswith("stop"):
            ended.append(env)
            if len(ended) == 3:
                release.set()

    slow.met = False
    (tree,) = await sample(
        SpoSampler(widths=(2, 2)),
        RuleEngine(by_turn([1.0, 1.0, 1.0])),
        lambda: CountEnv(on_step=slow),
    )
    assert len(ended) == 4 and len(tree.leaves) == 4


async def test_a_failure_takes_only_what_is_below_it():
    crashed = []

    async def fault(env, action):
        if env.count == 2 and not crashed:
            crashed.append(action)
            raise OSError("disk full")

    (tree,) = await sample(
        SpoSampler(widths=(2, 2)),
        RuleEngine(by_turn([1.0, 1.0, 1.0])),
        lambda: CountEnv(on_step=fault),
    )
    reasons = sorted(tree.leaves.values())
    assert reasons == [StopReason.ENV_ERROR, *[StopReason.TERMINATED] * 3]


async def test_cancelling_closes_every_environment():
    await check_cancelling_closes(SpoSampler(widths=(2, 2)), lines=4, forks=3)
