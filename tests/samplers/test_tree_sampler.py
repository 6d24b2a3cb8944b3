"""Tree-GRPO's trees: their leaves, where they fork, and that no timing changes them."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import CountEnv, ReplayCountEnv, RuleEngine, shape, stage
from sampler_fakes import cancel_while_sampling, check_no_timing_matters, sample, uneven

from agentrl.core.types import ROOT, StopReason
from agentrl.samplers import AnySampler, TreeSampler


def three_turns(prompt, seed):
    """Every line ends with its third action; no two actions are alike."""
    return f"{'stop' if prompt.count('count ') == 2 else 'go'} {seed % 9973}", 1.0


def test_the_settings_tell_the_budget():
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"type": "tree"}) == TreeSampler()
    assert TreeSampler().trajectories == 2 * (1 + 2 * 1) and TreeSampler().needs_fork
    assert TreeSampler(trees=3, expansions=2, rounds=2).trajectories == 15
    chains = TreeSampler(trees=4, expansions=0)
    assert chains.trajectories == 4 and not chains.needs_fork
    with pytest.raises(ValidationError):
        TreeSampler(trees=0)


async def test_each_tree_has_a_chain_and_continuations_from_its_inner_nodes():
    sampler = TreeSampler(trees=3, expansions=2, rounds=2)
    trees = await sample(sampler, RuleEngine(three_turns))
    assert [len(tree.leaves) for tree in trees] == [5, 5, 5]
    for tree in trees:
        assert set(tree.leaves.values()) == {StopReason.TERMINATED}
        # Depth three everywhere: a continuation goes on from where its node stood.
        assert {len(tree.path(leaf)) for leaf in tree.leaves} == {3}
        assert {tree.turns[leaf].reward for leaf in tree.leaves} == {3.0}
        said = [tree.turns[node].action_ids.tobytes() for node in range(len(tree.turns))]
        assert len(set(said)) == len(said), "siblings must differ"


async def test_without_a_fork_it_is_a_chain():
    trees = await sample(TreeSampler(trees=2, expansions=0), RuleEngine(three_turns))
    assert [tree.parents for tree in trees] == [[ROOT, 0, 1]] * 2


async def test_nodes_are_drawn_uniformly_the_root_among_them():
    sampler = TreeSampler(trees=1, expansions=1)
    born = Counter()
    for seed in range(600):
        (tree,) = await sample(sampler, RuleEngine(three_turns), seed=seed)
        born[next(p for p, n in Counter(tree.parents).items() if n == 2)] += 1
    # Root, first and second action; the third is the leaf. 200 each, spread sqrt(600 * 2/9) = 11.5.
    assert set(born) == {ROOT, 0, 1}
    assert all(abs(count - 200) < 4 * 11.5 for count in born.values()), born


def test_draws_are_with_replacement():
    drawn = [tuple(TreeSampler(expansions=2).chosen(3, seed=seed)) for seed in range(900)]
    share = sum(first == second for first, second in drawn) / 900
    assert 0.27 < share < 0.40
    assert TreeSampler().chosen(0, seed=1) == []


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    trees=st.integers(1, 3),
    expansions=st.integers(0, 4),
    rounds=st.integers(1, 3),
    kind=st.sampled_from([CountEnv, ReplayCountEnv]),
)
def test_trees_depend_on_the_seed_and_never_on_who_was_faster(
    seed, trees, expansions, rounds, kind
):
    sampler = TreeSampler(trees=trees, expansions=expansions, rounds=rounds)
    open_envs = []

    def make():
        env = kind()
        open_envs.append(env)
        return env

    check_no_timing_matters(sampler, make, seed=seed)
    assert all(env.closed for env in open_envs)


async def test_a_copying_and_a_replaying_environment_give_the_same_trees():
    sampler = TreeSampler(trees=2, expansions=3, rounds=2)
    copied = await sample(sampler, RuleEngine(uneven), CountEnv, seed=5, max_turns=6)
    replayed = await sample(sampler, RuleEngine(uneven), ReplayCountEnv, seed=5, max_turns=6)
    assert [shape(tree) for tree in copied] == [shape(tree) for tree in replayed]


async def test_every_fork_is_closed_also_when_cancelled():
    forks = []

    class Watched(CountEnv):
        async def fork(self):
            twin = await super().fork()
            twin.closed = 0
            forks.append(twin)
            return twin

    sampler = TreeSampler(trees=2, expansions=2, rounds=2)
    await sample(sampler, RuleEngine(three_turns), Watched)
    # The chain parks 3 and draws 2; both of those may park up to 2 more, then 2 are drawn.
    assert len(forks) >= 2 * (3 + 2 + 2) and all(env.closed for env in forks)

    forks.clear()

    async def block(env, action):
        if env.count == 2:
            await asyncio.sleep(3600)

    setting = stage(RuleEngine(three_turns), lambda: Watched(on_step=block))
    await cancel_while_sampling(sampler, setting, after=0.05)
    assert forks and all(env.closed for env in forks)


async def test_a_chain_that_failed_at_its_root_is_not_expanded():
    async def broken(env):
        raise OSError("no disk")

    trees = await sample(
        TreeSampler(trees=1), RuleEngine(three_turns), lambda: CountEnv(on_reset=broken)
    )
    assert trees[0].turns == [] and trees[0].leaves == {}
    assert "no disk" in trees[0].failures[0].message


async def test_a_branch_starts_with_what_its_parent_used():
    sampler = TreeSampler(trees=1, expansions=3)
    (tree,) = await sample(
        sampler,
        RuleEngine(lambda prompt, seed: (f"go {seed % 997}", 1.0)),
        max_tool_calls=2,
        max_turns=9,
    )
    assert set(tree.leaves.values()) == {StopReason.TRUNCATED_BUDGET}
    assert {len(tree.path(leaf)) for leaf in tree.leaves} == {3}
