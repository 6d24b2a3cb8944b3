"""AT2PO's trees: which turns are sampled again, where, and that no timing changes them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
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

from agentrl.core.types import ROOT, StopReason, Turn
from agentrl.samplers import AnySampler, At2poSampler


def turn(*logprobs):
    values = np.asarray(logprobs, np.float32)
    return Turn(
        action_ids=np.zeros(len(values), np.int32), logprobs=values, entropies=np.zeros_like(values)
    )


def test_the_settings_tell_the_budget():
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"type": "at2po"}) == At2poSampler()
    assert At2poSampler().trajectories == 10 + 6 * 2 and At2poSampler().needs_fork
    assert not At2poSampler(expansions=0).needs_fork
    with pytest.raises(ValidationError):
        At2poSampler(initial=0)


def test_the_score_is_the_mean_surprise_less_a_penalty_for_siblings():
    sampler = At2poSampler(penalty=0.05)
    # (1 + 2 + 6) / 3 - 0.05 * 4 = 2.8
    assert sampler.score(turn(-1.0, -2.0, -6.0), siblings=4) == pytest.approx(2.8)
    assert sampler.score(turn(), siblings=2) == pytest.approx(-0.1)


async def test_the_least_certain_turns_get_a_sibling():
    sampler = At2poSampler(initial=2, expansions=2, rounds=1)
    (tree,) = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])))
    # First turns: H 1 and one sibling, 0.95. Second ones: H 2. Third ones are leaves. So both
    # second turns (1 and 6) are sampled again, from the nodes that they acted from (0 and 5).
    assert tree.parents == [ROOT, 0, 1, 0, 3, ROOT, 5, 6, 5, 8]
    assert tree.leaves == dict.fromkeys((2, 4, 7, 9), StopReason.TERMINATED)
    assert tree.turns[1].state_key == tree.turns[3].state_key == "count 1"
    assert len({t.action_ids.tobytes() for t in tree.turns}) == len(tree.turns)


async def test_siblings_make_a_turn_less_wanted():
    sampler = At2poSampler(initial=1, expansions=1, rounds=3, penalty=0.05)
    (tree,) = await sample(sampler, RuleEngine(by_turn([1.0, 1.08, 3.0])))
    # Round 1: 1.08 against 1.00. Round 2, one sibling: 1.03 against 1.00. Round 3, two siblings:
    # 0.98 against 1.00, so the first turn gets a sibling, which is another chain.
    assert tree.parents == [ROOT, 0, 1, 0, 3, 0, 5, ROOT, 7, 8]


async def test_too_few_turns_are_gone_through_again():
    sampler = At2poSampler(initial=1, expansions=3, rounds=1)
    (tree,) = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])))
    # Two turns are no leaves: the second (H 2), the first (H 1), the second again.
    assert tree.parents == [ROOT, 0, 1, 0, 3, 0, 5, ROOT, 7, 8]


async def test_where_every_turn_is_a_leaf_new_lines_start_from_the_prompt():
    sampler = At2poSampler(initial=2, expansions=2, rounds=2)
    (tree,) = await sample(sampler, RuleEngine(by_turn([1.0], turns=1)))
    assert tree.parents == [ROOT] * 6
    assert len({t.action_ids.tobytes() for t in tree.turns}) == 6


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    initial=st.integers(1, 4),
    expansions=st.integers(0, 4),
    rounds=st.integers(1, 3),
    kind=st.sampled_from([CountEnv, ReplayCountEnv]),
)
def test_trees_depend_on_the_seed_and_never_on_who_was_faster(
    seed, initial, expansions, rounds, kind
):
    sampler = At2poSampler(initial=initial, expansions=expansions, rounds=rounds)
    check_no_timing_matters(sampler, kind, seed=seed)


async def test_a_copying_and_a_replaying_environment_give_the_same_trees():
    sampler = At2poSampler(initial=3, expansions=3, rounds=2)
    copied = await sample(sampler, RuleEngine(uneven), CountEnv, seed=5, max_turns=6)
    replayed = await sample(sampler, RuleEngine(uneven), ReplayCountEnv, seed=5, max_turns=6)
    assert [shape(tree) for tree in copied] == [shape(tree) for tree in replayed]


async def test_a_failure_takes_its_own_line_only():
    async def fault(env, action):
        if env.count == 3:
            raise OSError("disk full")

    broken = []

    def make():
        broken.append(CountEnv(on_step=fault if len(broken) == 0 else None))
        return broken[-1]

    sampler = At2poSampler(initial=1, expansions=2, rounds=1)
    (tree,) = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])), make)
    # The chain and its copies fail at their third step; the turns before it are there.
    assert tree.parents == [ROOT, 0, 1, 0, 3, ROOT, 5, 6]
    assert set(tree.leaves.values()) == {StopReason.ENV_ERROR}


@pytest.mark.parametrize("broken_at", [0, 1, 4])
async def test_an_environment_that_cannot_be_copied_costs_the_lines_that_needed_it(broken_at):
    class Uncopied(CountEnv):
        copies = 0

        async def fork(self):
            Uncopied.copies += 1
            if Uncopied.copies == broken_at + 1:
                raise OSError("no memory")
            return await super().fork()

    sampler = At2poSampler(initial=2, expansions=2, rounds=2)
    (tree,) = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])), Uncopied)
    assert 4 <= len(tree.leaves) <= 6
    assert [failure.stop_reason for failure in tree.failures] == [StopReason.ENV_ERROR]


async def test_every_fork_is_closed_also_when_cancelled():
    forks = []

    class Watched(CountEnv):
        async def fork(self):
            twin = await super().fork()
            twin.closed = 0
            forks.append(twin)
            return twin

    sampler = At2poSampler(initial=3, expansions=2, rounds=2)
    await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])), Watched)
    assert forks and all(env.closed for env in forks)

    forks.clear()

    block = Blocking(2, lines=3)

    setting = stage(RuleEngine(by_turn([1.0, 2.0, 3.0])), lambda: Watched(on_step=block))
    await cancel_while_sampling(sampler, setting, after=block.reached)
    assert forks and all(env.closed for env in forks)
