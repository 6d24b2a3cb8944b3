"""TreeRL's trees: forks at the least likely tokens, wherever in a turn they stand."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

sys.path.insert(0, str(Path(__file__).parents[1] / "rollout"))
from rollout_fakes import ids_of, tokenizer
from sampler_fakes import cancel_while_sampling, starter
from segment_fakes import HearingEnv, ReplayHearingEnv, babbling, in_segments, saying

from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, StopReason, Task
from agentrl.rollout.episode import LiveEpisode
from agentrl.rollout.segments import split_turn, whole_turns
from agentrl.samplers import AnySampler, TreeRlSampler
from agentrl.samplers.tree_rl import Fork
from agentrl.testing.trees import random_groups, tree_of


def of_engine(sampler, engine, env=HearingEnv, **limits):
    """The trees of one task; afterwards no episode is live and no slot is taken."""

    async def run():
        setting = in_segments(engine, env, None, **limits)
        trees = await sampler.sample(Task("t"), starter(setting), seed=1)
        assert not setting.live and not setting.slots.locked()
        return trees

    return asyncio.run(run())


def text(ids):
    return tokenizer().decode(ids)


def test_the_settings_tell_the_budget():
    adapter = TypeAdapter(AnySampler)
    assert adapter.validate_python({"type": "tree_rl"}).trajectories == 30
    assert TreeRlSampler(trees=3, expansions=1, rounds=2).trajectories == 3 * (1 + 1 * 2 * 2)
    assert TreeRlSampler().needs_fork and not TreeRlSampler(expansions=0).needs_fork


def test_the_least_likely_tokens_are_chosen_and_never_a_first_one():
    tree = tree_of([ROOT, 0], {1: 1.0}, tokens=3)
    for node, logprobs in enumerate(([-9.0, -1.0, -2.0], [-8.0, -2.0, -0.5])):
        tree.turns[node] = replace(tree.turns[node], logprobs=np.asarray(logprobs, np.float32))
    assert TreeRlSampler(expansions=3).chosen(tree, [0, 1]) == [Fork(0, 2), Fork(1, 1), Fork(0, 1)]
    assert TreeRlSampler(expansions=3).chosen(tree, [1]) == [Fork(1, 1), Fork(1, 2)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_the_parts_of_a_split_turn_make_it_again(seed, data):
    turns = [
        turn
        for group in random_groups(seed, n_groups=2)
        for tree in group.trees
        for turn in tree.turns
        if len(turn.action_ids) > 1
    ]
    for turn in turns[:3]:
        at = data.draw(st.integers(1, len(turn.action_ids) - 1))
        first, second = split_turn(turn, at)
        assert first.goes_on and first.reward == 0.0 and len(first.observation_ids) == 0
        assert len(first.action_ids) == at and second.state_key == ""
        (found,) = whole_turns([first, second])
        for name in turn.__slots__:
            one, other = getattr(turn, name), getattr(found, name)
            if isinstance(one, np.ndarray):
                assert one.tolist() == other.tolist(), name
            else:
                assert one == other, name


def test_a_turn_is_split_where_it_was_least_likely():
    # Log-probabilities fall along an action: its last token is the least likely, then the one
    # before. Two continuations of each.
    engine = saying("cdefgh<|im_end|>", "i", "j")
    sampler = TreeRlSampler(trees=1, expansions=2, continuations=2)
    (tree,) = of_engine(sampler, engine, max_turns=1)
    said = [text(turn.action_ids) for turn in tree.turns]
    # "cdefg" | "h" | mark: both continuations of each say the same here.
    assert tree.parents == [ROOT, 0, 1, 1, 1, 0, 0]
    assert said == ["cdefg", "h", *["<|im_end|>"] * 3, *["h<|im_end|>"] * 2]
    assert [turn.goes_on for turn in tree.turns] == [True, True, *[False] * 5]
    assert tree.leaves == dict.fromkeys((2, 3, 4, 5, 6), StopReason.TRUNCATED_TURNS)
    # The prompt of a continuation ends with what is kept, and it may be as long as is left.
    prompts = [(prompt[-5:], sampling.max_tokens) for prompt, sampling in engine.calls[1:]]
    assert sorted(prompts) == [("cdefg", 59)] * 2 + [("defgh", 58)] * 2
    seeds = [sampling.seed for _, sampling in engine.calls]
    assert len(set(seeds)) == 5


@settings(max_examples=25, deadline=None)
@given(
    salt=st.integers(0, 10**6),
    expansions=st.integers(1, 4),
    rounds=st.integers(1, 3),
    env=st.sampled_from([HearingEnv, ReplayHearingEnv]),
    stops=st.lists(st.sampled_from(["ca", "bc", "aa"]), max_size=1),
)
def test_forks_share_exactly_what_stands_before_them(salt, expansions, rounds, env, stops):
    sampler = TreeRlSampler(trees=1, expansions=expansions, continuations=1, rounds=rounds)
    kind = type("Env", (env,), {"stop": tuple(stops)})
    (tree,) = of_engine(sampler, babbling(salt, letters="abcabc d"), kind, max_tokens_per_turn=9)
    assert len(tree.leaves) <= sampler.trajectories and not tree.failures
    assert all(parent < node for node, parent in enumerate(tree.parents))
    for trajectory in tree.trajectories():
        turns = whole_turns(trajectory.turns)
        assert len(turns) == 3
        heard = [text(turn.action_ids).removesuffix("<|im_end|>") for turn in turns]
        assert trajectory.episode_return == "".join(heard).count("a")
        for turn, said in zip(turns, heard, strict=True):
            assert 1 <= len(turn.action_ids) <= 9
            assert all(one not in text(turn.action_ids[:-1]) for one in stops)
            if turn is not turns[-1]:
                assert repr(said) in text(turn.observation_ids)
    for node, turn in enumerate(tree.turns):
        assert turn.goes_on == (node in tree.parents and not len(turn.observation_ids))
        if turn.goes_on:
            assert len(turn.action_ids) > 0 and tree.parents.count(node) > 1


def test_a_trajectory_that_failed_is_not_sampled_again():
    async def crash(env, action):
        raise OSError("disk full")

    sampler = TreeRlSampler(trees=2, expansions=2)
    trees = of_engine(sampler, babbling(3), lambda: HearingEnv(on_step=crash))
    assert [list(tree.leaves.values()) for tree in trees] == [[StopReason.ENV_ERROR]] * 2


async def test_cancelling_closes_every_environment():
    setting = in_segments(
        babbling(5), lambda: HearingEnv(on_step=lambda *_: asyncio.sleep(0.05)), None
    )
    await cancel_while_sampling(TreeRlSampler(trees=2), setting, after=0.12)


async def test_a_line_follows_only_segments_that_continue_its_node():
    setting = in_segments(saying("abcd<|im_end|>", "x", "x"), HearingEnv, 2)
    line = await LiveEpisode.start(setting, Task("t"), seed=0)
    twin = await line.fork()
    await line.play(await line.propose(seed=0))
    await line.play(await line.propose(seed=1))
    with pytest.raises(ContractError, match="no segment that continues node -1"):
        twin.follow(1)
    twin.follow(0)
    assert twin.node == 0 and twin.spent.generated_tokens == 2
    await twin.play(await twin.propose(seed=2))
    assert line.tree.parents == [ROOT, 0, 0]
    assert line.tree.turns[2].action_ids.tolist() == ids_of("d<|im_end|>")
    await asyncio.gather(line.close(), twin.close())
