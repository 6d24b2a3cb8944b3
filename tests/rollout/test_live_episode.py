"""Every way an episode can end, and that its tokens are exactly what was sampled and said."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from rollout_fakes import (
    CountEnv,
    ReplayCountEnv,
    RuleEngine,
    UnforkableCountEnv,
    ids_of,
    play,
    stage,
)

from agentrl.core.env import StepInfo, StepResult
from agentrl.core.errors import ContractError
from agentrl.core.types import ROOT, Failure, Message, StopReason, Task
from agentrl.rollout.episode import LiveEpisode


def say(*actions: str) -> RuleEngine:
    """Says `actions` in the order of turns, by the number of past observations."""
    return RuleEngine(lambda prompt, seed: (actions[prompt.count("count ")], 0.5))


async def hang(*_: object) -> None:
    await asyncio.sleep(3600)


async def stubborn(*_: object) -> None:
    """Refuses to be cancelled for a while."""
    for _attempt in range(3):
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            continue


async def crash(*_: object) -> None:
    raise KeyError("disk")


async def test_a_terminated_episode_records_the_exact_tokens_of_every_turn():
    episode = await play(stage(say("one<|im_end|>", "stop<|im_end|>")))
    tree = episode.tree
    assert tree.leaves == {1: StopReason.TERMINATED}
    assert tree.prompt_ids.tolist() == ids_of(
        "<|im_start|>user\ntask t<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tree.turns[0].action_ids.tolist() == ids_of("one<|im_end|>")
    assert tree.turns[0].observation_ids.tolist() == ids_of(
        "\n<|im_start|>user\ncount 1<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tree.turns[1].reward == 2.0
    assert [t.state_key for t in tree.turns] == ["reset", "count 1"]
    assert len(tree.turns[1].observation_ids) == 0
    assert tree.failures == []


async def test_each_prompt_is_the_last_prompt_action_and_observation():
    engine = say("a", "ab", "b a", "stop")
    tree = (await play(stage(engine))).tree
    for node, (prompt, _) in enumerate(engine.calls):
        context = tree.prompt_ids if node == 0 else tree.context_ids(node - 1)
        assert ids_of(prompt) == context.tolist()


async def test_a_turn_that_did_not_end_is_closed_by_untrained_tokens():
    tree = (await play(stage(say("one", "stop")))).tree
    assert tree.turns[0].action_ids.tolist() == ids_of("one")
    assert tree.turns[0].observation_ids.tolist()[0] == ids_of("<|im_end|>")[0]


async def test_an_engine_that_writes_into_a_returned_array_is_caught():
    engine = say("one", "two", "stop")
    generate = engine.generate

    async def reusing(prompt, sampling):
        completion = await generate(prompt, sampling)
        reusing.last, last = completion.token_ids, getattr(reusing, "last", None)
        if last is not None:
            last[0] += 1
        return completion

    engine.generate = reusing  # type: ignore[method-assign]
    setting = stage(engine)
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)
    await episode.play(await episode.propose(seed=0))
    episode.tree.turns[0].action_ids[0] += 1
    with pytest.raises(ContractError, match="tokens that were sampled have changed"):
        await episode.propose(seed=1)
    await episode.close()


async def test_the_prompt_handed_to_an_engine_cannot_be_written_to():
    engine = say("stop")
    seen = []
    generate = engine.generate

    async def spy(prompt, sampling):
        seen.append(prompt.flags.writeable)
        return await generate(prompt, sampling)

    engine.generate = spy  # type: ignore[method-assign]
    await play(stage(engine))
    assert seen == [False]


async def test_turns_are_limited():
    episode = await play(stage(say("a", "b", "c"), max_turns=3))
    assert episode.tree.leaves == {2: StopReason.TRUNCATED_TURNS}


async def test_the_environment_may_truncate():
    class Short(CountEnv):
        async def step(self, action):
            return (await super().step(action))._replace(truncated=True)

    episode = await play(stage(say("a"), Short))
    assert episode.tree.leaves == {0: StopReason.TRUNCATED_TURNS}


async def test_a_context_without_room_for_another_token_is_truncated_and_never_cut():
    observation = len(
        ids_of("<|im_end|>\n<|im_start|>user\ncount 1<|im_end|>\n<|im_start|>assistant\n")
    )
    prompt = len(ids_of("<|im_start|>user\ntask t<|im_end|>\n<|im_start|>assistant\n"))
    full = prompt + 1 + observation
    engine = say("a", "stop")
    exact = await play(stage(engine, max_tokens=full))
    assert exact.tree.leaves == {0: StopReason.TRUNCATED_TOKENS}
    assert len(exact.tree.turns[0].observation_ids) == 0
    assert len(engine.calls) == 1
    one_more = await play(stage(engine, max_tokens=full + 1))
    assert len(one_more.tree.turns[0].observation_ids) == observation
    assert engine.calls[-1][1].max_tokens == 1


async def test_a_prompt_that_is_too_long_is_noted_and_nothing_is_generated():
    engine = say("stop")
    episode = await play(stage(engine, max_tokens=5, max_tokens_per_turn=2))
    assert episode.stop_reason is StopReason.TRUNCATED_TOKENS
    assert engine.calls == [] and episode.tree.turns == []
    assert "5" in episode.tree.failures[0].message


async def test_tool_calls_and_generated_tokens_have_budgets():
    calls = await play(stage(say(*"abcd"), lambda: CountEnv(calls=2), max_tool_calls=3))
    assert calls.tree.leaves == {1: StopReason.TRUNCATED_BUDGET}
    tokens = await play(stage(say("aa", "bb", "c"), max_generated_tokens=3))
    assert tokens.tree.leaves == {1: StopReason.TRUNCATED_BUDGET}
    assert [len(t.action_ids) for t in tokens.tree.turns] == [2, 1]


async def test_a_hanging_tool_is_abandoned_and_named():
    env = CountEnv(on_step=hang)
    episode = await play(stage(say("a"), lambda: env, tool_seconds=0.02))
    assert episode.tree.leaves == {0: StopReason.ENV_ERROR}
    message = episode.tree.failures[0].message
    assert "CountEnv.step" in message and "'t'" in message and "0.02 s" in message
    assert env.closed == 1


async def test_a_tool_that_refuses_to_be_cancelled_holds_up_nobody():
    episode = stage(say("a"), lambda: CountEnv(on_step=stubborn), tool_seconds=0.01)
    ended = await asyncio.wait_for(play(episode), timeout=0.5)
    assert ended.stop_reason is StopReason.ENV_ERROR


@pytest.mark.parametrize("fault", [crash, hang])
async def test_a_failing_reset_leaves_an_empty_tree_with_its_failures(fault):
    made = []

    def make():
        made.append(CountEnv(on_reset=fault))
        return made[-1]

    episode = await play(stage(say("a"), make, reset_seconds=0.01, retries=2))
    assert episode.stop_reason is StopReason.ENV_ERROR
    assert episode.tree.turns == [] and len(made) == 3
    assert [f.parent for f in episode.tree.failures] == [ROOT] * 3
    assert all(env.closed for env in made)


async def test_a_factory_that_raises_is_an_environment_error():
    def make():
        raise OSError("no display")

    episode = await play(stage(say("a"), make))
    assert episode.stop_reason is StopReason.ENV_ERROR
    assert "no display" in episode.tree.failures[0].message


async def test_the_whole_episode_has_a_deadline():
    async def slow(*_):
        await asyncio.sleep(0.03)

    episode = await play(
        stage(say(*"abcdefgh"), lambda: CountEnv(on_step=slow), episode_seconds=0.05)
    )
    assert list(episode.tree.leaves.values()) == [StopReason.TRUNCATED_TIME]
    assert 1 <= len(episode.tree.turns) <= 2


async def test_generation_has_a_deadline_and_is_an_engine_error():
    engine = RuleEngine(lambda prompt, seed: ("a", 0.0), latency=lambda seed: 3600.0)
    episode = await play(stage(engine, turn_seconds=0.01, retries=1))
    assert episode.stop_reason is StopReason.ENGINE_ERROR
    assert [f.stop_reason for f in episode.tree.failures] == [StopReason.ENGINE_ERROR] * 2
    assert len(engine.calls) == 2


async def test_an_engine_error_is_retried_from_the_same_state_with_the_same_seed():
    engine = say("a", "stop")
    generate, faults = engine.generate, [True, True]

    async def flaky(prompt, sampling):
        if prompt[-1] and len(engine.calls) == 1 and faults:
            faults.pop()
            raise RuntimeError("cuda")
        return await generate(prompt, sampling)

    engine.generate = flaky  # type: ignore[method-assign]
    episode = await play(stage(engine, retries=2))
    assert episode.tree.leaves == {1: StopReason.TERMINATED}
    assert [(f.parent, f.stop_reason) for f in episode.tree.failures] == [
        (0, StopReason.ENGINE_ERROR)
    ] * 2


async def test_an_engine_error_without_retries_ends_the_last_turn_as_a_failure():
    def rule(prompt, seed):
        if "count" in prompt:
            raise RuntimeError("cuda")
        return "a", 0.0

    episode = await play(stage(RuleEngine(rule)))
    assert episode.tree.leaves == {0: StopReason.ENGINE_ERROR}


async def test_an_engine_that_returns_too_much_or_nothing_is_an_engine_error():
    for count in (0, 65):
        engine = say("stop")
        generate = engine.generate

        async def wrong(prompt, sampling, *, generate=generate, count=count):
            n = np.zeros(count)
            made = await generate(prompt, sampling)
            return replace(
                made,
                token_ids=n.astype(np.int32),
                logprobs=n.astype(np.float32),
                entropies=n.astype(np.float32),
            )

        engine.generate = wrong  # type: ignore[method-assign]
        episode = await play(stage(engine))
        assert episode.stop_reason is StopReason.ENGINE_ERROR
        assert f"returned {count} tokens" in episode.tree.failures[0].message


@pytest.mark.parametrize("kind", [CountEnv, ReplayCountEnv])
async def test_a_crashed_environment_is_rebuilt_and_the_episode_goes_on_as_if_nothing_happened(
    kind,
):
    faults = [1]

    async def once(env, action):
        if env.count == 2 and faults:
            faults.pop()
            raise ConnectionError("lost")

    episode = await play(stage(say("a", "b", "stop"), lambda: kind(on_step=once), retries=1))
    calm = await play(stage(say("a", "b", "stop")))
    assert episode.tree.parents == calm.tree.parents and episode.tree.leaves == calm.tree.leaves
    assert episode.tree.turns[2].reward == 3.0
    assert [f.parent for f in episode.tree.failures] == [0]


async def test_an_environment_that_cannot_be_replayed_starts_again_from_the_root():
    faults = [1]

    async def once(env, action):
        if env.count == 2 and faults:
            faults.pop()
            raise ConnectionError("lost")

    make = lambda: UnforkableCountEnv(on_step=once)  # noqa: E731
    tree = (await play(stage(say("a", "b", "stop"), make, retries=1))).tree
    assert tree.parents == [ROOT, 0, ROOT, 2, 3]
    assert tree.leaves == {1: StopReason.ENV_ERROR, 4: StopReason.TERMINATED}
    assert len(tree.failures) == 1


async def test_an_environment_that_answers_differently_when_replayed_starts_again():
    class Drifting(CountEnv):
        made = 0

        def __init__(self, **hooks):
            super().__init__(**hooks)
            Drifting.made += 1
            self.number = Drifting.made

        async def step(self, action):
            result = await super().step(action)
            if self.number == 1 and self.count == 2:
                raise ConnectionError("lost")
            said = (Message.of("user", f"count {self.count} by {self.number}"),)
            return result._replace(observation=said)

    tree = (await play(stage(say("a", "b", "stop"), Drifting, retries=2))).tree
    assert tree.leaves[1] is StopReason.ENV_ERROR
    assert StopReason.TERMINATED in tree.leaves.values()


async def test_a_crash_that_stays_is_masked_out_and_counted():
    tree = (await play(stage(say("a"), lambda: CountEnv(on_step=crash), retries=2))).tree
    assert tree.leaves == {0: StopReason.ENV_ERROR}
    assert tree.turns[0].reward == 0.0
    assert len(tree.failures) == 3 and "KeyError: 'disk'" in tree.failures[0].message


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        (StepResult((), float("nan"), True, False, StepInfo()), "the reward is nan"),
        (StepResult((), 1.0, True, False, StepInfo(rewards={"x": 0.5})), "is not the sum 0.5"),
        (StepResult(("hi",), 0.0, False, False, StepInfo()), "not a tuple of messages"),
        (((), 0.0, True, False, {}), "returned tuple, not StepResult"),
        (StepResult((), 0.0, True, False, StepInfo(metrics={"m": "x"})), "'m' is 'x', not a num"),
    ],
)
async def test_a_broken_contract_is_an_environment_error(result, fault):
    class Broken(CountEnv):
        async def step(self, action):
            return result

    episode = await play(stage(say("a"), Broken))
    assert episode.stop_reason is StopReason.ENV_ERROR
    assert fault in episode.tree.failures[0].message


async def test_a_turn_keeps_what_the_environment_measured_beside_its_reward():
    class Measuring(CountEnv):
        async def step(self, action):
            info = StepInfo(rewards={"em": 1.0}, metrics={"em": 1.0, "f1": 0.5})
            return StepResult((), 1.0, True, False, info)

    turn = (await play(stage(say("a"), Measuring))).tree.turns[0]
    assert turn.metrics == {"em": 1.0, "f1": 0.5} and turn.reward == 1.0


async def test_cancelling_ends_the_leaf_and_frees_the_environment():
    env = CountEnv(on_step=lambda env, action: hang() if env.count == 2 else asyncio.sleep(0))
    setting = stage(say("a", "b"), lambda: env)
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)

    async def run():
        for seed in range(2):
            await episode.play(await episode.propose(seed=seed))

    task = asyncio.create_task(run())
    while env.count < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await episode.close()
    assert episode.tree.leaves == {1: StopReason.CANCELLED}
    assert env.closed == 1 and not setting.slots.locked() and not setting.live


async def test_a_fork_sees_its_parents_state_and_budget_and_leaves_it_alone():
    for kind in (CountEnv, ReplayCountEnv):
        setting = stage(say("a", "b", "stop"), kind, max_tool_calls=2)
        episode = await LiveEpisode.start(setting, Task("t"), seed=0)
        await episode.play(await episode.propose(seed=0))
        completion = await episode.propose(seed=1)
        twin = await episode.fork()
        assert twin.tree is episode.tree and twin.node == episode.node == 0
        await episode.play(completion)
        await twin.play(await twin.propose(seed=2))
        assert twin.spent.tool_calls == episode.spent.tool_calls == 2
        assert episode.tree.parents == [ROOT, 0, 0]
        states = [turn.state_key for turn in episode.tree.turns]
        assert states == ["reset", "count 1", "count 1"]
        same = [episode.tree.turns[n].observation_ids.tolist() for n in (1, 2)]
        assert same[0] == same[1] and same[0]
        prompts = [prompt for prompt, _ in setting.engine.calls]
        assert prompts[1] == prompts[2]
        for line in (episode, twin):
            assert await line.play(await line.propose(seed=3)) is StopReason.TERMINATED
            await line.close()


async def test_a_branch_goes_on_from_where_its_parent_broke_down():
    """The end of the parent was a leaf until then: it is in the failures, and nowhere else."""
    engine = say("a", "stop")
    setting = stage(engine)
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)
    await episode.play(await episode.propose(seed=0))
    twin = await episode.fork()
    generate, engine.generate = engine.generate, hang_up
    assert await episode.propose(seed=1) is None
    await episode.close()
    assert episode.tree.leaves == {0: StopReason.ENGINE_ERROR}
    engine.generate = generate
    assert await twin.play(await twin.propose(seed=2)) is StopReason.TERMINATED
    await twin.close()
    assert episode.tree.leaves == {1: StopReason.TERMINATED}
    assert [failure.stop_reason for failure in episode.tree.failures] == [StopReason.ENGINE_ERROR]


async def test_a_branch_goes_on_from_where_its_parent_ran_out_of_time():
    setting = stage(say("a", "stop"), episode_seconds=10.0)
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)
    await episode.play(await episode.propose(seed=0))
    twin = await episode.fork()
    episode.spent.generate_seconds += 10.0
    assert await episode.propose(seed=1) is None
    await episode.close()
    assert episode.tree.leaves == {0: StopReason.TRUNCATED_TIME}
    assert await twin.play(await twin.propose(seed=2)) is StopReason.TERMINATED
    await twin.close()
    assert episode.tree.leaves == {1: StopReason.TERMINATED}
    (noted,) = episode.tree.failures
    assert noted == Failure(0, StopReason.TRUNCATED_TIME, "ended where a branch went on")


async def hang_up(*_: object) -> None:
    raise OSError("the engine is gone")


async def test_dropping_an_unplayed_fork_leaves_no_trace():
    setting = stage(say("a", "stop"))
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)
    twin = await episode.fork()
    await twin.close()
    assert episode.tree.failures == [] and episode.tree.leaves == {}
    await episode.close()


async def test_an_environment_that_cannot_be_copied_costs_only_the_branch():
    class Fragile(CountEnv):
        async def fork(self):
            raise OSError("out of processes")

    episode = await LiveEpisode.start(stage(say("a", "stop"), Fragile), Task("t"), seed=0)
    twin = await episode.fork()
    assert twin.stop_reason is StopReason.ENV_ERROR and await twin.propose(seed=1) is None
    assert await episode.play(await episode.propose(seed=0)) is None
    assert "out of processes" in episode.tree.failures[0].message
    await twin.close()
    await episode.close()


async def test_a_branch_whose_copy_failed_is_built_by_replay_while_retries_are_left():
    class Fragile(CountEnv):
        async def fork(self):
            raise OSError("the host died")

    setting = stage(say("a", "stop"), Fragile, retries=1)
    episode = await LiveEpisode.start(setting, Task("t"), seed=0)
    await episode.play(await episode.propose(seed=0))
    twin = await episode.fork()
    assert await twin.play(await twin.propose(seed=1)) is StopReason.TERMINATED
    assert episode.tree.turns[1].reward == 2.0
    assert [failure.stop_reason for failure in episode.tree.failures] == [StopReason.ENV_ERROR]
    await twin.close()
    await episode.close()


async def test_a_turn_keeps_the_version_of_each_of_its_tokens():
    class Pushed(RuleEngine):
        """Takes new weights before the last token of the first action."""

        async def generate(self, prompt_ids, sampling):
            found = await super().generate(prompt_ids, sampling)
            if self.version:
                return found
            self.version = 1
            versions = np.zeros(len(found.token_ids), np.int32)
            versions[-1] = 1
            return replace(found, versions=versions)

    actions = ("one<|im_end|>", "stop<|im_end|>")
    engine = Pushed(lambda prompt, seed: (actions[prompt.count("count ")], 0.5))
    first, second = (await play(stage(engine))).tree.turns
    assert first.token_versions.tolist() == [0, 0, 0, 1] and first.policy_version == 0
    assert second.versions is None and second.token_versions.tolist() == [1] * 5
    with pytest.raises(ContractError, match="a turn of 5 tokens has 4 versions"):
        replace(second, versions=first.versions)
