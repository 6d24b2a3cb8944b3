"""Searches worked by hand: paths, visits, values, ties, full trees, failures; and no leaks."""

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
from rollout_fakes import CountEnv, ReplayCountEnv, RuleEngine, shape, stage
from sampler_fakes import (
    Blocking,
    PaidEnv,
    by_turn,
    cancel_while_sampling,
    check_no_timing_matters,
    in_turn,
    sample,
    starter,
    uneven,
)

from agentrl.core.types import ROOT, StopReason, Task
from agentrl.samplers import AnySampler, MctsSampler
from agentrl.samplers.mcts import Search
from agentrl.testing.trees import random_groups, tree_of


def test_the_settings_tell_the_budget():
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"type": "mcts"}) == MctsSampler()
    assert MctsSampler(trees=2, simulations=5).trajectories == 10
    assert MctsSampler().needs_fork and not MctsSampler(trees=3, simulations=1).needs_fork
    with pytest.raises(ValidationError):
        MctsSampler(selection="ucb")


# Statistics


def test_visits_and_values_are_those_of_the_leaves_below():
    #   prompt - 0 - 1 (1.0)
    #            0 - 2 - 3 (0.5, after 0.25 at node 2)
    #   prompt - 4 (failed)
    tree = tree_of(
        [ROOT, 0, 0, 2, ROOT], {1: 1.0, 2: 0.25, 3: 0.5}, stops={4: StopReason.ENV_ERROR}
    )
    search = Search.of(tree)
    assert search.visits == [2, 1, 1, 1, 0, 2]
    assert search.values == [0.875, 1.0, 0.75, 0.75, 0.0, 0.875]


def test_visits_and_values_equal_a_walk_over_every_trajectory():
    for group in random_groups(11, n_groups=12):
        for tree in group.trees:
            through = {node: [] for node in range(ROOT, len(tree.turns))}
            for one in tree.trajectories():
                for node in (ROOT, *one.path) if not one.stop_reason.is_failure else ():
                    through[node].append(one.episode_return)
            search = Search.of(tree)
            for node, returns in through.items():
                assert search.visits[node] == len(returns)
                mean = sum(returns) / len(returns) if returns else 0.0
                assert search.values[node] == pytest.approx(mean)


# The choice


def test_the_scores_by_hand():
    uct = MctsSampler(exploration=2.0)
    assert uct.score(0.25, 3, 8, prior=0.1) == pytest.approx(0.25 + 2 * math.sqrt(math.log(8) / 3))
    assert uct.score(0.0, 0, 8, prior=0.1) == math.inf
    puct = MctsSampler(exploration=2.0, selection="puct")
    assert puct.score(0.25, 3, 9, prior=0.1) == pytest.approx(0.25 + 2 * 0.1 * 3 / 4)
    assert puct.score(0.0, 0, 9, prior=0.1) == pytest.approx(2 * 0.1 * 3)


def test_the_prior_is_normalised_by_length():
    (turn,) = tree_of([ROOT], {}, tokens=4).turns
    turn.logprobs[:] = -0.5
    assert MctsSampler().prior(turn) == pytest.approx(math.exp(-2.0 / 4**1.25))
    (empty,) = tree_of([ROOT], {}, tokens=0).turns
    assert MctsSampler().prior(empty) == 1.0


async def search(sampler, *actions, env=PaidEnv, **limits):
    return await sample(sampler, RuleEngine(in_turn(*actions)), env, **limits)


async def test_five_simulations_by_hand():
    # 1: go go stop for 0        prompt has 1 child of 2: it takes another
    # 2: go go stop for 1        children a (N 1, Q 0) and b (N 1, Q 1), N of the prompt 2
    # 3: a 0 + sqrt(ln 2 / 1) = 0.83, b 1 + 0.83: b, which has 1 child: go stop for 0
    # 4: N 3; a sqrt(ln 3) = 1.05, b 1/2 + sqrt(ln 3 / 2) = 1.24: b, full. Its children have
    #    Q 1 and Q 0, N 1 each: the first, which has 1 child: stop for 0
    # 5: N 4; a sqrt(ln 4) = 1.18, b 1/3 + sqrt(ln 4 / 3) = 1.01: a, 1 child: stop for 1
    said = "go go stop_0 go go stop_1 go stop_0 stop_0 stop_1".replace("_", "§").split()
    actions = [one.replace("§", " ") for one in said]
    (tree,) = await search(MctsSampler(simulations=5, width=2), *actions)
    #                       a     2     of 5  b       2 of 4    of 3
    assert tree.parents == [ROOT, 0, 1, 0, ROOT, 4, 5, 5, 4, 8]
    assert {leaf: tree.turns[leaf].reward for leaf in tree.leaves} == {2: 0, 3: 1, 6: 1, 7: 0, 9: 0}
    found = Search.of(tree)
    assert found.visits == [2, 1, 1, 1, 3, 2, 1, 1, 1, 1, 5]
    assert found.values[0] == 0.5 and found.values[4] == pytest.approx(1 / 3)
    assert found.values[5] == 0.5 and found.values[ROOT] == pytest.approx(2 / 5)


async def test_equal_values_are_visited_equally_the_oldest_first():
    sampler = MctsSampler(simulations=6, width=2)
    (tree,) = await search(sampler, *["go", "go", "stop 1"] * 2, *["go", "stop 1"] * 4)
    # The prompt's children a and b by 1 and 2; then a, b (a second child each), a, b.
    assert Search.of(tree).visits[ROOT] == 6
    first = [node for node, parent in enumerate(tree.parents) if parent == ROOT]
    assert [Search.of(tree).visits[node] for node in first] == [3, 3]
    assert set(Search.of(tree).values) == {1.0}


async def test_without_exploration_only_the_best_is_followed():
    sampler = MctsSampler(simulations=4, width=2, exploration=0.0)
    actions = ["go", "stop 0", "go", "go", "stop 1", "go", "stop 1", "stop 1"]
    (tree,) = await search(sampler, *actions)
    first = [node for node, parent in enumerate(tree.parents) if parent == ROOT]
    assert [Search.of(tree).visits[node] for node in first] == [1, 3]


async def test_the_prior_decides_between_equal_values():
    def rule(prompt, seed):
        if "count" not in prompt:
            rule.asked += 1
            return "go", 1.0 if rule.asked == 1 else 0.1
        return ("go" if prompt.count("count ") == 1 else "stop 1"), 1.0

    rule.asked = 0
    sampler = MctsSampler(simulations=3, width=2, selection="puct")
    (tree,) = await sample(sampler, RuleEngine(rule), PaidEnv)
    # The second child of the prompt was the likelier action, so the third simulation is its.
    first = [node for node, parent in enumerate(tree.parents) if parent == ROOT]
    assert [Search.of(tree).visits[node] for node in first] == [1, 2]


async def test_a_branch_that_is_full_is_not_walked_into_and_a_full_tree_grows_at_the_prompt():
    sampler = MctsSampler(simulations=4, width=2)
    # Ends at once: both children are leaves, so 3 and 4 start from the prompt too.
    (tree,) = await search(sampler, "stop 1", "stop 0", "stop 1", "stop 0")
    assert tree.parents == [ROOT] * 4
    # A winner that has ended is passed over for a loser that has room.
    (tree,) = await search(sampler, "stop 1", "go", "stop 0", "stop 0", "stop 0")
    assert tree.parents == [ROOT, ROOT, 1, 1, ROOT]


async def test_a_prompt_that_is_too_long_is_a_terminal_root():
    (tree,) = await search(MctsSampler(simulations=4), max_tokens=3)
    assert tree.turns == [] and tree.leaves == {}
    assert tree.failures[0].stop_reason is StopReason.TRUNCATED_TOKENS


# Failures


async def test_a_failed_simulation_is_spent_and_counts_nowhere():
    async def fault(env, action):
        if action == "go wrong":
            raise OSError("disk full")

    actions = ["go", "stop 1", "go wrong", "go", "stop 0", "stop 1"]
    (tree,) = await search(
        MctsSampler(simulations=4, width=2), *actions, env=lambda: PaidEnv(on_step=fault)
    )
    # 2 fails at the prompt; 3 adds its second child all the same. 4: the first (Q 1) again.
    assert [tree.leaves[leaf] for leaf in sorted(tree.leaves)].count(StopReason.ENV_ERROR) == 1
    found = Search.of(tree)
    assert found.visits[ROOT] == 3 and found.values[ROOT] == pytest.approx(2 / 3)
    assert tree.parents == [ROOT, 0, 0, ROOT, ROOT, 4]
    assert tree.leaves[3] is StopReason.ENV_ERROR


async def test_turns_above_a_failure_are_unvisited_and_come_first():
    async def fault(env, action):
        if action == "stop wrong":
            raise OSError("disk full")

    actions = ["go", "stop 1", "go", "stop wrong", "stop 0.5"]
    (tree,) = await search(
        MctsSampler(simulations=3, width=2), *actions, env=lambda: PaidEnv(on_step=fault)
    )
    assert tree.parents == [ROOT, 0, ROOT, 2, 2]
    assert tree.leaves[3] is StopReason.ENV_ERROR
    assert Search.of(tree).values[2] == 0.5


# Determinism


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    trees=st.integers(1, 3),
    simulations=st.integers(1, 8),
    width=st.integers(1, 3),
    selection=st.sampled_from(["uct", "puct"]),
    kind=st.sampled_from([CountEnv, ReplayCountEnv]),
)
def test_trees_depend_on_the_seed_and_never_on_who_was_faster(
    seed, trees, simulations, width, selection, kind
):
    sampler = MctsSampler(trees=trees, simulations=simulations, width=width, selection=selection)
    for tree in check_no_timing_matters(sampler, kind, seed=seed):
        assert Search.of(tree).visits[ROOT] == simulations


async def test_searches_of_two_tasks_know_nothing_of_each_other():
    sampler = MctsSampler(simulations=6, width=2)

    async def one(name, setting):
        (tree,) = await sampler.sample(Task(name), starter(setting), seed=3)
        return shape(tree)

    shared = stage(RuleEngine(uneven), CountEnv, max_turns=5)
    together = await asyncio.gather(*(one(name, shared) for name in "ab"))
    alone = [await one(name, stage(RuleEngine(uneven), CountEnv, max_turns=5)) for name in "ab"]
    assert together == alone and together[0] != together[1]


async def test_every_fork_is_closed_also_when_cancelled():
    forks = []

    class Watched(CountEnv):
        async def fork(self):
            twin = await super().fork()
            twin.closed = 0
            forks.append(twin)
            return twin

    sampler = MctsSampler(simulations=4)
    await sample(sampler, RuleEngine(by_turn([1.0, 2.0, 3.0])), Watched)
    assert forks and all(env.closed for env in forks)
    forks.clear()

    block = Blocking(2)

    setting = stage(RuleEngine(by_turn([1.0, 2.0, 3.0])), lambda: Watched(on_step=block))
    await cancel_while_sampling(sampler, setting, after=block.reached)
    assert forks and all(env.closed for env in forks)
