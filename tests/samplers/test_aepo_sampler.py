"""AEPO's split of the budget and its penalty by hand, and that no timing changes a tree."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import CountEnv, ReplayCountEnv, RuleEngine, shape, stage
from sampler_fakes import (
    Blocking,
    by_turn,
    cancel_while_sampling,
    check_no_timing_matters,
    sample,
    uneven,
)

from agentrl.core.types import ROOT, StopReason
from agentrl.samplers import AepoSampler, AnySampler, ArpoSampler


def test_the_settings_tell_the_budget():
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"type": "aepo"}) == AepoSampler()
    assert AepoSampler().needs_fork and not AepoSampler(trajectories=1).needs_fork
    assert not AepoSampler(trajectories=4, initial=4).needs_fork
    with pytest.raises(ValidationError, match="more than trajectories = 4"):
        AepoSampler(trajectories=4, initial=5)


@pytest.mark.parametrize(
    ("entropies", "lines"),
    [
        ([2.0, 1.0, 1.0], 7),  # 10 / (1 + e^-1) = 7.31
        ([1.0, 1.5, 2.5], 3),  # 10 / (1 + e^1) = 2.69
        ([1.0], 5),  # nothing observed
        ([math.nan, math.nan], 5),  # no entropies
        ([], 5),  # nothing played
        ([900.0, 0.0], 10),
        ([0.0, 900.0], 1),  # never none
    ],
)
def test_the_split_by_hand(entropies, lines):
    assert AepoSampler(trajectories=10).initial_lines(entropies) == lines


def test_the_probability_falls_with_branches_in_a_row():
    sampler = AepoSampler(alpha=0.3, beta=0.4, penalty=0.1)
    plain = 0.3 + 0.4 * 2.0 / math.log(55)
    for streak, factor in ((0, 1.0), (1, 0.9), (4, 0.6), (10, 0.0), (11, 0.0)):
        found = sampler.branch_probability(3.0, 1.0, 55, streak=streak)
        assert found == pytest.approx(plain * factor)
    assert ArpoSampler().branch_probability(1.0, 1.0, 55, streak=9) == 0.5


async def test_the_exact_tree_where_the_split_leaves_one_line():
    # Gap 1 - 2.5 = -1.5, 4 / (1 + e^1.5) = 0.73: one line, three branches. Vocabulary 262:
    # turn 1: 0.5 + 0.2 * 1 / 5.57 = 0.536; turn 2: (0.5 + 0.2 * 2 / 5.57) * 0.95 = 0.543.
    (tree,) = await sample(AepoSampler(trajectories=4), RuleEngine(by_turn([1.0, 2.0, 3.0])))
    assert tree.parents == [ROOT, 0, 1, 1, 0, 4, 4]
    assert tree.leaves == dict.fromkeys((2, 3, 5, 6), StopReason.TERMINATED)


async def test_a_large_penalty_keeps_branches_apart():
    # Turn 2: 0.572 * 0.8 = 0.457, so neither the line nor its branch asks again.
    sampler = AepoSampler(trajectories=4, initial=1, penalty=0.2)
    first, *fresh = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])))
    assert first.parents == [ROOT, 0, 1, 0, 3]
    assert [tree.parents for tree in fresh] == [[ROOT, 0, 1]] * 2
    # A turn that does not ask ends the row: turns 1 and 3 branch, in the branch as well.
    (tree,) = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 0.5, 2.0], turns=4)))
    assert tree.parents == [ROOT, 0, 1, 2, 2, 0, 5, 6, 6]


async def test_with_a_fixed_split_and_no_penalty_it_is_arpo():
    aepo = AepoSampler(trajectories=7, initial=2, penalty=0.0)
    arpo = ArpoSampler(trajectories=7, initial=2)
    found = await sample(aepo, RuleEngine(uneven), max_turns=5, seed=4)
    expected = await sample(arpo, RuleEngine(uneven), max_turns=5, seed=4)
    assert [shape(tree) for tree in found] == [shape(tree) for tree in expected]


async def test_the_first_line_is_played_alone_and_is_one_of_the_initial_ones():
    alive, most = [], []

    class Watched(CountEnv):
        async def reset(self, task, *, seed):
            alive.append(self)
            most.append(len(alive))
            return await super().reset(task, seed=seed)

        async def close(self):
            if self in alive:
                alive.remove(self)
            await super().close()

    # Gap 3 - 1 = 2: 4 / (1 + e^-2) = 3.5, four lines, no branch.
    trees = await sample(AepoSampler(trajectories=4), RuleEngine(by_turn([3.0, 1.0, 1.0])), Watched)
    assert [tree.parents for tree in trees] == [[ROOT, 0, 1]] * 4
    assert most == [1, 1, 2, 3]


async def test_a_first_line_that_fails_gives_half_to_each_side():
    made = []

    async def broken(env):
        if env is made[0]:
            raise OSError("no disk")

    def make():
        made.append(CountEnv(on_reset=broken))
        return made[-1]

    trees = await sample(AepoSampler(trajectories=6), RuleEngine(by_turn([1.0, 2.0, 3.0])), make)
    # Three lines, the failed one among them; three branches for the two others.
    assert [len(tree.leaves) for tree in trees] == [0, 3, 2]
    assert "no disk" in trees[0].failures[0].message


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    trajectories=st.integers(1, 10),
    split=st.floats(0.0, 5.0),
    penalty=st.floats(0.0, 0.5),
    kind=st.sampled_from([CountEnv, ReplayCountEnv]),
    decision=st.sampled_from(["threshold", "bernoulli"]),
)
def test_trees_depend_on_the_seed_and_never_on_who_was_faster(
    seed, trajectories, split, penalty, kind, decision
):
    sampler = AepoSampler(
        trajectories=trajectories, split=split, penalty=penalty, decision=decision, probe_tokens=4
    )
    check_no_timing_matters(sampler, kind, seed=seed)


async def test_without_entropies_nothing_branches():
    engine = RuleEngine(by_turn([1.0, 2.0, 3.0]))
    engine.kind = "none"
    trees = await sample(AepoSampler(trajectories=4), engine)
    assert [tree.parents for tree in trees] == [[ROOT, 0, 1]] * 4


async def test_forks_that_wait_for_the_split_are_closed_when_cancelled():
    forks = []

    class Watched(CountEnv):
        async def fork(self):
            twin = await super().fork()
            twin.closed = 0
            forks.append(twin)
            return twin

    block = Blocking(3)

    setting = stage(RuleEngine(by_turn([1.0, 2.0, 3.0])), lambda: Watched(on_step=block))
    await cancel_while_sampling(AepoSampler(trajectories=6), setting, after=block.reached)
    assert len(forks) == 2 and all(env.closed for env in forks)
