"""ARPO's trees on hand-made entropies, and that no timing changes a tree."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import CountEnv, ReplayCountEnv, RuleEngine, stage, tokenizer
from sampler_fakes import (
    by_turn,
    cancel_while_sampling,
    check_no_timing_matters,
    completion,
    sample,
    uneven,
)

from agentrl.core.types import ROOT, StopReason
from agentrl.samplers import AnySampler, ArpoSampler, ChainSampler
from agentrl.samplers.arbiter import Arbiter

# The decision


def test_the_probe_is_the_mean_entropy_of_the_first_tokens():
    sampler = ArpoSampler(probe_tokens=3)
    assert sampler.probe_entropy(completion([1.0, 2.0, 3.0, 99.0])) == 2.0
    assert sampler.probe_entropy(completion([1.0, 2.0])) == 1.5
    assert math.isnan(sampler.probe_entropy(completion([1.0], "none")))


def test_the_probability_by_hand():
    sampler = ArpoSampler(alpha=0.3, beta=0.4)
    v = round(math.e**4)  # ln 55 = 4.007
    assert sampler.branch_probability(3.0, 1.0, v) == pytest.approx(0.3 + 0.4 * 2.0 / math.log(v))
    assert sampler.branch_probability(1.0, 3.0, v) == pytest.approx(0.3 - 0.4 * 2.0 / math.log(v))
    assert sampler.branch_probability(3.0, 1.0, 1) == pytest.approx(1.1)


def test_the_threshold_is_passed_and_not_reached():
    sampler = ArpoSampler(alpha=0.5, threshold=0.5)
    p = [sampler.branch_probability(h, 1.0, 100) for h in (0.9, 1.0, 1.1, math.nan)]
    assert [sampler.wants_branch(x, seed=0) for x in p] == [False, False, True, False]


def test_bernoulli_branches_as_often_as_it_says():
    sampler = ArpoSampler(decision="bernoulli")
    for p, low, high in ((0.3, 0.27, 0.33), (-0.2, 0.0, 0.0), (1.2, 1.0, 1.0), (math.nan, 0, 0)):
        share = sum(sampler.wants_branch(p, seed=seed) for seed in range(4000)) / 4000
        assert low <= share <= high


def test_settings_refuse_what_cannot_work():
    with pytest.raises(ValidationError, match="more than trajectories = 4"):
        ArpoSampler(trajectories=4, initial=5)
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"type": "arpo"}) == ArpoSampler()
    assert adapter.validate_python({"type": "chain"}) == ChainSampler()
    assert ArpoSampler().needs_fork and not ArpoSampler(trajectories=8).needs_fork
    assert not ChainSampler().needs_fork


# Trees


async def test_chains_are_trees_of_their_own_from_one_state():
    trees = await sample(ChainSampler(trajectories=3), RuleEngine(by_turn([1, 1, 1])))
    assert [tree.parents for tree in trees] == [[ROOT, 0, 1]] * 3
    assert len({tuple(tree.prompt_ids.tolist()) for tree in trees}) == 1
    assert len({tree.turns[0].action_ids.tobytes() for tree in trees}) == 3


async def test_what_branching_leaves_of_the_budget_becomes_fresh_trajectories():
    sampler = ArpoSampler(trajectories=6, initial=1)
    first, *fresh = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])))
    assert len(first.leaves) == 4
    assert [tree.parents for tree in fresh] == [[ROOT, 0, 1]] * 2


async def test_the_exact_tree_of_a_hand_made_sequence():
    sampler = ArpoSampler(trajectories=4, initial=1)
    trees = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])))
    (tree,) = trees
    # node 0: first action. 1: the line's second action, 2 and 3: its third and the sibling that
    # branched there. 4: the branch from node 0; 5 and 6: its third action and a sibling.
    assert tree.parents == [ROOT, 0, 1, 1, 0, 4, 4]
    assert tree.leaves == dict.fromkeys((2, 3, 5, 6), StopReason.TERMINATED)
    assert tree.turns[1].state_key == tree.turns[4].state_key == "count 1"


async def test_when_the_budget_is_short_earlier_turns_and_lower_lines_go_first():
    sampler = ArpoSampler(trajectories=5, initial=2)
    first, second = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])))
    # Turn 1: line 0 and line 1 take two of three; turn 2: line 0 takes the last.
    assert first.parents == [ROOT, 0, 1, 1, 0, 4]
    assert second.parents == [ROOT, 0, 1, 0, 3]


async def test_falling_entropy_never_branches_and_fresh_trajectories_fill_the_budget():
    sampler = ArpoSampler(trajectories=5, initial=2)
    trees = await sample(sampler, RuleEngine(by_turn([2.0, 1.0, 1.0])))
    assert [tree.parents for tree in trees] == [[ROOT, 0, 1]] * 5
    assert len({tree.turns[0].action_ids.tobytes() for tree in trees}) == 5


async def test_without_entropies_nothing_branches():
    engine = RuleEngine(by_turn([1.0, 2.0, 3.0]))
    engine.kind = "none"
    trees = await sample(ArpoSampler(trajectories=4, initial=2), engine)
    assert [tree.parents for tree in trees] == [[ROOT, 0, 1]] * 4


async def test_a_branch_factor_of_three_adds_two_siblings_and_cuts_the_last_grant():
    sampler = ArpoSampler(trajectories=4, initial=1, branch_factor=3)
    (tree,) = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])))
    # Turn 1 grants two, turn 2 (line first) the one that is left.
    assert tree.parents == [ROOT, 0, 1, 1, 0, 4, 0, 6]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    initial=st.integers(1, 4),
    extra=st.integers(0, 8),
    factor=st.integers(2, 4),
    kind=st.sampled_from([CountEnv, ReplayCountEnv]),
    decision=st.sampled_from(["threshold", "bernoulli"]),
)
def test_trees_depend_on_the_seed_and_never_on_who_was_faster(
    seed, initial, extra, factor, kind, decision
):
    sampler = ArpoSampler(
        trajectories=initial + extra,
        initial=initial,
        branch_factor=factor,
        decision=decision,
        probe_tokens=4,
    )

    check_no_timing_matters(sampler, kind, seed=seed)


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(),
    lines=st.integers(1, 4),
    budget=st.integers(0, 8),
    factor=st.integers(2, 3),
)
def test_the_arbiter_decides_in_any_order_what_it_decides_in_slot_order(
    data, lines, budget, factor
):
    wants = {}

    def asks(key, turn):
        return wants.setdefault((key, turn), data.draw(st.booleans()))

    def run(pick):
        """Play turns in the order of `pick`; a line that asks never waits, a branch does."""
        arbiter = Arbiter(budget=budget, branch_factor=factor, lines=[(i,) for i in range(lines)])
        live = {(i,): 0 for i in range(lines)}
        waiting, granted = {}, []
        while live:
            key = pick(sorted(live, key=lambda k: (live[k], k)))
            turn = live[key]
            if turn == 4:
                del live[key]
                arbiter.ended(key)
            else:
                live[key] = turn + 1
                if asks(key, turn):
                    names = [(*key, turn, n) for n in range(factor - 1)]
                    arbiter.wanted(key, turn, names)
                    waiting |= dict.fromkeys(names, turn + 1)
                else:
                    arbiter.passed(key, turn)
            for name in list(waiting):
                if arbiter._verdicts[name].done():
                    start = waiting.pop(name)
                    if arbiter._verdicts[name].result():
                        live[name] = start
                        granted.append(name)
        assert not waiting and arbiter.granted == len(granted) <= budget
        return sorted(granted)

    async def both():
        in_slot_order = run(lambda keys: keys[0])
        shuffled = run(lambda keys: data.draw(st.sampled_from(keys)))
        assert shuffled == in_slot_order

    asyncio.run(both())


async def test_with_budget_to_spare_a_branch_starts_at_once():
    arbiter = Arbiter(budget=8, branch_factor=2, lines=[(0,), (1,), (2,)])
    arbiter.wanted((2,), 1, [(2, 1, 0)])
    # Lines 0 and 1 have turns 0 and 1 before the slot (1, line 2): at most 2**2 - 1 = 3 each.
    assert arbiter._verdicts[2, 1, 0].result() is True
    tight = Arbiter(budget=6, branch_factor=2, lines=[(0,), (1,), (2,)])
    tight.wanted((2,), 1, [(2, 1, 0)])
    assert not tight._verdicts[2, 1, 0].done()
    tight.passed((0,), 0)
    assert tight._verdicts[2, 1, 0].result() is True


async def test_shared_prefixes_are_equal_token_by_token():
    sampler = ArpoSampler(trajectories=8, initial=2)
    for tree in await sample(sampler, RuleEngine(uneven), max_turns=5, seed=3):
        for trajectory in tree.trajectories():
            context = tree.context_ids(trajectory.path[-1])
            assert context[: len(tree.prompt_ids)].tolist() == tree.prompt_ids.tolist()
            for node in trajectory.path:
                prefix = tree.context_ids(node)
                assert context[: len(prefix)].tolist() == prefix.tolist()


async def test_an_error_inside_a_branch_removes_only_that_branch():
    crashed = []

    async def fault(env, action):
        if env.count == 2 and not crashed and action == branch_action:
            crashed.append(action)
            raise OSError("disk full")

    sampler = ArpoSampler(trajectories=4, initial=1)
    (calm,) = await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])))
    branch_action = tokenizer().backend_tokenizer.decode(
        calm.turns[4].action_ids.tolist(), skip_special_tokens=False
    )
    trees = await sample(
        sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])), lambda: CountEnv(on_step=fault)
    )
    tree = trees[0]
    assert tree.leaves[tree.parents.index(0, 2)] is StopReason.ENV_ERROR
    others = [reason for reason in tree.leaves.values() if not reason.is_failure]
    assert others == [StopReason.TERMINATED] * 2
    assert len(trees) == 2 and trees[1].leaves == {2: StopReason.TERMINATED}
    assert "disk full" in tree.failures[0].message


async def test_a_branch_starts_with_the_tool_calls_of_its_parent():
    sampler = ArpoSampler(trajectories=2, initial=1)
    (tree,) = await sample(
        sampler, RuleEngine(by_turn([1.0, 2.0, 1.0, 1.0, 1.0], turns=5)), max_tool_calls=2
    )
    assert tree.parents == [ROOT, 0, 1, 0, 3]
    assert set(tree.leaves.values()) == {StopReason.TRUNCATED_BUDGET}


@pytest.mark.parametrize(
    "sampler", [ChainSampler(trajectories=4), ArpoSampler(trajectories=4, initial=4)]
)
async def test_a_straggler_delays_nobody(sampler):
    finished, release = [], asyncio.Event()

    class Slow(CountEnv):
        number = 0

        def __init__(self):
            super().__init__()
            self.number, Slow.number = Slow.number, Slow.number + 1

        async def step(self, action):
            if self.number == 0 and self.count == 0:
                await release.wait()
            return await super().step(action)

        async def close(self):
            finished.append(self.number)
            if len(finished) == 3:
                release.set()

    trees = await sample(sampler, RuleEngine(by_turn([3.0, 1.0, 1.0])), Slow)
    assert finished == [1, 2, 3, 0]
    assert all(tree.leaves == {2: StopReason.TERMINATED} for tree in trees)


async def test_cancelling_a_sampler_closes_every_environment():
    made = []

    async def block(env, action):
        await asyncio.sleep(3600)

    def make():
        made.append(CountEnv(on_step=block))
        return made[-1]

    for sampler in (ChainSampler(trajectories=3), ArpoSampler(trajectories=6, initial=3)):
        made.clear()
        setting = stage(RuleEngine(by_turn([1.0, 2.0, 3.0])), make)
        await cancel_while_sampling(sampler, setting, after=0.02)
        assert len(made) == 3 and all(env.closed for env in made)
