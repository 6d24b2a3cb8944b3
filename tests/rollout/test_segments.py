"""Actions in segments: the same tokens as whole ones, and forks anywhere between two of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rollout_fakes import CountEnv, RuleEngine, UnforkableCountEnv, ids_of, play, tokenizer
from segment_fakes import HearingEnv, ReplayHearingEnv, babbling, in_segments, saying

from agentrl.core.types import ROOT, StopReason, Task, TrajectoryTree, Turn
from agentrl.engine.base import Completion
from agentrl.rollout.episode import LiveEpisode
from agentrl.rollout.segments import count_turns, whole_turns


def text(ids: Any) -> str:
    return tokenizer().backend_tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)


def texts(tree: TrajectoryTree) -> list[str]:
    return [text(turn.action_ids) for turn in tree.turns]


def told(turn: Turn) -> tuple[Any, ...]:
    """All of a turn that does not depend on how often the engine was asked."""
    return (
        turn.action_ids.tolist(),
        turn.logprobs.tolist(),
        turn.entropies.tolist(),
        turn.observation_ids.tolist(),
        turn.reward,
        turn.state_key,
        turn.tool_calls,
        turn.goes_on,
    )


def stopping(*stops: str) -> type[HearingEnv]:
    return type("Stopping", (HearingEnv,), {"stop": stops})


async def test_an_action_is_cut_after_so_many_tokens_and_played_when_it_is_complete():
    engine = saying("one two<|im_end|>", "three", "44444")
    episode = await play(in_segments(engine, HearingEnv, 3, max_tokens_per_turn=5))
    tree = episode.tree
    # "one two<|im_end|>" would have 8 tokens, of which the turn may have 5.
    assert texts(tree) == ["one", " t", "thr", "ee", "444", "44"]
    assert [turn.goes_on for turn in tree.turns] == [True, False] * 3
    assert tree.leaves == {5: StopReason.TERMINATED}
    assert tree.turns[0].observation_ids.tolist() == [] and tree.turns[0].reward == 0.0
    assert tree.turns[0].state_key == "reset" and tree.turns[1].state_key == ""


async def test_a_stop_string_is_found_where_it_began_in_the_segment_before():
    # Segments of four tokens: "go <", "end>"; the engine sees "end> more" without the "<".
    engine = saying("go <end> more words<|im_end|>", "go <end><|im_end|>", "x<|im_end|>")
    setting = in_segments(engine, stopping("<end>"), 4)
    tree = (await play(setting)).tree
    assert texts(tree)[:2] == ["go <", "end>"]
    assert [turn.goes_on for turn in tree.turns[:2]] == [True, False]
    assert tree.turns[1].logprobs.tolist() == [-0.125 * place for place in (5, 6, 7, 8)]
    first = whole_turns([tree.turns[node] for node in tree.path(max(tree.leaves))])[0]
    assert text(first.action_ids) == "go <end>"


async def test_what_was_sampled_after_such_a_stop_is_dropped():
    engine = saying("ab <end> more<|im_end|>", "x<|im_end|>", "x<|im_end|>")
    tree = (await play(in_segments(engine, stopping("<end>"), 5))).tree
    # "ab" is one token: "ab <en", then "d> mo", of which "d>" stays.
    assert texts(tree)[:2] == ["ab <en", "d>"]
    assert len(tree.turns[1].logprobs) == len(tree.turns[1].entropies) == 2


async def test_versions_and_the_end_of_a_cut_segment_stay_those_of_its_tokens():
    engine = saying("abc<end>defg<|im_end|>", "x<|im_end|>", "x<|im_end|>")
    generate = engine.generate

    async def interrupted(prompt: Any, sampling: Any) -> Completion:
        found = await generate(prompt, sampling)
        size, version = len(found.token_ids), 2 + len(engine.calls)
        # New weights come before the last token of every request.
        versions = np.asarray([version] * (size - 1) + [version + 1], np.int32)
        return replace(found, policy_version=int(versions[0]), versions=versions)

    engine.generate = interrupted  # type: ignore[method-assign]
    tree = (await play(in_segments(engine, stopping("<end>"), 6))).tree
    # "ab", "c", "<", "e", "n", "d" and then ">", after which five tokens are dropped.
    assert texts(tree)[:2] == ["abc<end", ">"]
    assert tree.turns[0].versions.tolist() == [3, 3, 3, 3, 3, 4]
    assert tree.turns[1].versions is None and tree.turns[1].policy_version == 4
    (whole, *_) = whole_turns(tree.turns)
    assert whole.policy_version == 3 and whole.versions.tolist() == [3, 3, 3, 3, 3, 4, 4]


@settings(max_examples=100, deadline=None)
@given(
    salt=st.integers(0, 10**6),
    tokens=st.integers(1, 9),
    stops=st.lists(st.sampled_from(["ca", "bc", "aa", "cab", " a"]), max_size=2, unique=True),
    longest=st.integers(1, 24),
    generated=st.none() | st.integers(1, 40),
    turns=st.integers(1, 3),
    room=st.integers(30, 200),
    retries=st.integers(0, 1),
)
def test_segments_change_nothing_of_a_trajectory(
    salt, tokens, stops, longest, generated, turns, room, retries
):
    async def tree(segment: int | None) -> TrajectoryTree:
        crashed = []

        async def fault(env, action):
            if retries and env.count == 2 and not crashed:
                crashed.append(action)
                raise OSError("disk full")

        env = type("Env", (ReplayHearingEnv,), {"stop": tuple(stops)})
        setting = in_segments(
            babbling(salt, greedy=True),
            lambda: env(on_step=fault),
            segment,
            max_tokens_per_turn=longest,
            max_generated_tokens=generated,
            max_turns=turns,
            max_tokens=room,
            retries=retries,
        )
        return (await play(setting)).tree

    whole, cut = asyncio.run(tree(None)), asyncio.run(tree(tokens))
    assert not any(turn.goes_on for turn in whole.turns)
    assert [told(turn) for turn in whole_turns(cut.turns)] == [told(turn) for turn in whole.turns]
    assert list(cut.leaves.values()) == list(whole.leaves.values())
    assert count_turns(cut.turns) == len(whole.turns)
    assert all(len(turn.action_ids) <= tokens for turn in cut.turns)
    assert [len(t.action_ids) for t in cut.turns if t.goes_on] == [tokens] * sum(
        turn.goes_on for turn in cut.turns
    )
    assert [(f.stop_reason, f.message) for f in cut.failures] == [
        (f.stop_reason, f.message) for f in whole.failures
    ]
    last = [max(one.leaves, default=ROOT) for one in (cut, whole)]
    assert cut.context_ids(last[0]).tolist() == whole.context_ids(last[1]).tolist()


@pytest.mark.parametrize("env", [HearingEnv, ReplayHearingEnv])
async def test_a_fork_within_an_action_has_its_beginning(env):
    built = []

    def make_env():
        built.append(env())
        return built[-1]

    def token(context: str, seed: int, place: int) -> tuple[int, float]:
        return ids_of("ab"[seed % 2] if len(context) % 5 else " ")[0], -1.0

    engine = saying("x")
    engine.token = token
    setting = in_segments(engine, make_env, 2, max_tokens_per_turn=6)
    line = await LiveEpisode.start(setting, Task("t"), seed=0)
    for seed in (0, 0, 0, 0):  # a whole turn of three segments, and a segment of the next
        assert await line.play(await line.propose(seed=seed)) is None
    twin = await line.fork()
    assert twin.node == line.node == 3 and line.tree.turns[3].goes_on
    for one, seed in ((line, 0), (twin, 1)):
        for _ in range(2):
            await one.play(await one.propose(seed=seed))
    tree = line.tree
    assert tree.parents == [ROOT, 0, 1, 2, 3, 4, 3, 6]
    for leaf in (5, 7):
        path = whole_turns([tree.turns[node] for node in tree.path(leaf)])
        assert [len(turn.action_ids) for turn in path] == [6, 6]
        said = text(path[1].action_ids)
        assert repr(said) in text(path[1].observation_ids)
        assert repr(text(path[0].action_ids)) in text(path[0].observation_ids)
    assert text(tree.turns[5].action_ids) != text(tree.turns[7].action_ids)
    if env is ReplayHearingEnv:  # it was built anew, and heard the whole turn only
        assert len(built) == 2 and len(built[1].actions) == 2
    await asyncio.gather(line.close(), twin.close())
    assert not setting.live


async def test_an_engine_that_fails_within_an_action_ends_the_line_there():
    engine = saying("many words<|im_end|>")
    generate, calls = engine.generate, []

    async def failing(prompt: Any, sampling: Any) -> Completion:
        calls.append(sampling.max_tokens)
        if len(calls) == 3:
            raise RuntimeError("gone")
        return await generate(prompt, sampling)

    engine.generate = failing  # type: ignore[method-assign]
    tree = (await play(in_segments(engine, HearingEnv, 2))).tree
    assert texts(tree) == ["ma", "ny"] and tree.leaves == {1: StopReason.ENGINE_ERROR}
    assert count_turns(tree.turns) == 1 and whole_turns(tree.turns)[0].goes_on


async def test_an_environment_that_cannot_fork_is_mended_within_its_first_action():
    crashed = []

    async def fault(env, action):
        if not crashed:
            crashed.append(action)
            raise OSError("disk full")

    class Ending(UnforkableCountEnv):
        async def step(self, action):
            return (await super().step(action))._replace(terminated=True, reward=0.5)

    setting = in_segments(
        saying("some words<|im_end|>"), lambda: Ending(on_step=fault), 4, retries=1
    )
    tree = (await play(setting)).tree
    assert texts(tree) == ["some", " wor", "ds<|im_end|>"]
    assert tree.leaves == {2: StopReason.TERMINATED} and len(tree.failures) == 1


async def test_time_that_runs_out_within_an_action_truncates_it():
    episode = await LiveEpisode.start(
        in_segments(saying("many words<|im_end|>"), HearingEnv, 2), Task("t"), seed=0
    )
    await episode.play(await episode.propose(seed=0))
    episode.spent.generate_seconds = 1e9
    assert await episode.propose(seed=1) is None
    assert episode.tree.leaves == {0: StopReason.TRUNCATED_TIME}
    await episode.close()


async def test_a_sampler_may_ask_for_all_that_is_left():
    engine = saying("go <end> more<|im_end|>", "x<|im_end|>", "x<|im_end|>")
    setting = in_segments(engine, stopping("<end>"), 4, max_tokens_per_turn=12)
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)
    await episode.play(await episode.propose(seed=0))
    await episode.play(await episode.propose(seed=1, whole=True))
    assert [sampling.max_tokens for _, sampling in engine.calls] == [4, 8]
    assert texts(episode.tree) == ["go <", "end>"] and not episode.tree.turns[1].goes_on
    await episode.close()


async def test_without_segments_an_engine_is_asked_as_ever():
    engine = RuleEngine(lambda prompt, seed: ("stop", 0.5))
    tree = (await play(in_segments(engine, CountEnv, None))).tree
    assert [sampling.max_tokens for _, sampling in engine.calls] == [64]
    assert not tree.turns[0].goes_on


def test_turns_without_segments_are_joined_as_they_are():
    async def tree() -> TrajectoryTree:
        return (await play(in_segments(babbling(1), HearingEnv, None))).tree

    turns = asyncio.run(tree()).turns
    assert all(a is b for a, b in zip(whole_turns(turns), turns, strict=True))
    assert whole_turns([]) == [] and count_turns([]) == 0
