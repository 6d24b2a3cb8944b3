"""The released rule of ARPO: its draw, its order of slots, its fresh trajectories one by one."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import CountEnv, ReplayCountEnv, RuleEngine
from sampler_fakes import (
    PaidEnv,
    by_turn,
    check_cancelling_closes,
    check_no_timing_matters,
    completion,
    in_turn,
    sample,
)

from agentrl.core.types import ROOT, StopReason
from agentrl.samplers import AnySampler, ArpoReleasedSampler


def always(trajectories, initial):
    return ArpoReleasedSampler(
        trajectories=trajectories, initial=initial, branch_probability=1.0, entropy_weight=0.0
    )


def test_the_settings_tell_the_budget():
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"type": "arpo_released"}) == ArpoReleasedSampler()
    assert ArpoReleasedSampler().needs_fork and not always(4, 4).needs_fork
    with pytest.raises(ValidationError, match="more than trajectories = 4"):
        always(4, 5)


def test_the_entropy_is_a_sum_over_the_first_tokens():
    sampler = ArpoReleasedSampler(probe_tokens=3)
    found = sampler.entropy(completion([1.0, 2.0, 3.0, 99.0]), 100)
    assert found == pytest.approx(6.0 / math.log(100))
    assert math.isnan(sampler.entropy(completion([1.0], "none"), 100))


def test_a_line_branches_as_often_as_the_rule_says():
    sampler = ArpoReleasedSampler(branch_probability=0.3, entropy_weight=0.2)
    # Pr[clip(u - w dH, 0, 1) <= 0.3] = clip(0.3 + w dH, 0, 1)
    for rise, low, high in (
        (0, 0.27, 0.33),
        (1, 0.47, 0.53),
        (-2, 0, 0),
        (4, 1, 1),
        (math.nan, 0, 0),
    ):
        share = sum(sampler.wants_branch(1.0 + rise, 1.0, seed=seed) for seed in range(4000)) / 4000
        assert low <= share <= high


async def test_branches_start_after_a_turn_and_branch_in_turn():
    (tree,) = await sample(always(4, 1), RuleEngine(by_turn([1.0, 1.0, 1.0])))
    # After turn 0 the line branches; after turn 1 the line and its branch. The end is no chance.
    assert tree.parents == [ROOT, 0, 1, 1, 0, 4, 4]
    assert tree.leaves == dict.fromkeys((2, 3, 5, 6), StopReason.TERMINATED)
    assert tree.turns[1].state_key == tree.turns[4].state_key == "count 1"


async def test_slots_go_round_by_round_to_the_oldest_line():
    first, second = await sample(always(6, 2), RuleEngine(by_turn([1.0, 1.0, 1.0])))
    # Round 0: both lines. Round 1, two left: both lines again, and not the first one's branch.
    assert first.parents == second.parents == [ROOT, 0, 1, 1, 0, 4]
    first, second = await sample(always(3, 2), RuleEngine(by_turn([1.0, 1.0, 1.0])))
    assert first.parents == [ROOT, 0, 1, 0, 3] and second.parents == [ROOT, 0, 1]


async def test_fresh_trajectories_come_one_by_one_and_may_branch():
    engine = RuleEngine(in_turn("stop 1", "stop 1", "go", "stop 1", "stop 1"))
    trees = await sample(always(4, 2), engine, PaidEnv)
    assert [tree.parents for tree in trees] == [[ROOT], [ROOT], [ROOT, 0, 0]]


async def test_the_entropy_that_counts_is_that_of_the_turn_just_played():
    sampler = ArpoReleasedSampler(trajectories=4, initial=1, entropy_weight=100.0)
    falls = RuleEngine(by_turn([9.0, 0.5, 0.5, 0.5], turns=4))
    rises = RuleEngine(by_turn([0.5, 9.0, 9.0, 9.0], turns=4))
    first = {"falls": 0, "rises": 0}
    for seed in range(40):
        for name, engine in (("falls", falls), ("rises", rises)):
            tree, *_ = await sample(sampler, engine, seed=seed)
            forks = [tree.parents.count(node) > 1 for node in tree.path(3)]
            first[name] += forks[0]
            if name == "rises":
                assert forks[1], "its second turn is more uncertain than its first"
            elif not forks[0]:
                assert not any(forks)
    # After its first turn a line has nothing to compare with: a coin.
    assert 10 <= first["falls"] <= 30 and first["falls"] == first["rises"]


async def test_without_entropies_nothing_branches():
    engine = RuleEngine(by_turn([1.0, 2.0, 3.0]))
    engine.kind = "none"
    trees = await sample(always(4, 2), engine)
    assert [tree.parents for tree in trees] == [[ROOT, 0, 1]] * 4


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    initial=st.integers(1, 4),
    extra=st.integers(0, 6),
    weight=st.floats(0.0, 2.0),
    kind=st.sampled_from([CountEnv, ReplayCountEnv]),
)
def test_trees_depend_on_the_seed_and_never_on_who_was_faster(seed, initial, extra, weight, kind):
    sampler = ArpoReleasedSampler(
        trajectories=initial + extra, initial=initial, entropy_weight=weight
    )
    check_no_timing_matters(sampler, kind, seed=seed)


async def test_a_failure_takes_its_own_line_only():
    crashed = []

    async def fault(env, action):
        if env.count == 2 and not crashed:
            crashed.append(action)
            raise OSError("disk full")

    (tree,) = await sample(
        always(2, 1), RuleEngine(by_turn([1.0, 1.0, 1.0])), lambda: CountEnv(on_step=fault)
    )
    assert sorted(tree.leaves.values()) == [StopReason.ENV_ERROR, StopReason.TERMINATED]


async def test_cancelling_closes_every_environment():
    await check_cancelling_closes(always(6, 2), lines=4, forks=2)
