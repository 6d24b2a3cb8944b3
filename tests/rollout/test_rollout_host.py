"""A rollout host: groups, limits on live episodes, evaluation, stalls, the oracle."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rollout_fakes import (
    CountEnv,
    RuleEngine,
    UnforkableCountEnv,
    ids_of,
    shape,
    tokenizer,
)

from agentrl.core.env import StepInfo, StepResult
from agentrl.core.errors import DataError, RecipeError
from agentrl.core.types import Message, StopReason, Task
from agentrl.engine.settings import ScriptedSettings
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.oracle import Oracle
from agentrl.rollout.render import Renderer
from agentrl.rollout.seeds import derive
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers import ArpoSampler, ChainSampler

# Environments that misbehave, for hosts in other processes.
sys.path.append(str(Path(__file__).parents[1] / "adapters"))


def spec(sampler=None, **rollout):
    return HostSpec(
        env_id="tests:CountEnv",
        engine=ScriptedSettings(),
        model="none",
        sampler=sampler or ChainSampler(trajectories=3),
        rollout=RolloutSettings(**rollout),
    )


def rule(prompt, seed):
    return ("stop" if prompt.count("count ") == 2 else f"go {seed % 97}"), 1.0


async def started(spec, make_env=CountEnv, engine=None):
    host = RolloutHost(
        spec, engine=engine or RuleEngine(rule), tokenizer=tokenizer(), make_env=make_env
    )
    await host.start()
    return host


def test_a_spec_crosses_processes():
    one = spec(ArpoSampler(), concurrency=7)
    assert pickle.loads(pickle.dumps(one)) == one


def test_settings_refuse_a_turn_that_leaves_no_room_for_a_prompt():
    with pytest.raises(ValueError, match="leaves no room for a prompt"):
        RolloutSettings(
            sampling=SamplingSettings(max_tokens_per_turn=64), limits=LimitsSettings(max_tokens=64)
        )


def test_seeds_differ_by_every_part_of_their_name():
    names = [(), (0,), (1,), ("1",), (0, 1), (1, 0), (0, 1, 0), (10,), ("env",)]
    seeds = {derive(seed, *name) for seed in (0, 1) for name in names}
    assert len(seeds) == 2 * len(names)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derive(7, "turn", 3) == derive(7, "turn", 3)


async def test_a_group_depends_on_its_seed_alone():
    host = await started(spec())
    first, again, other = [
        await host.sample_group(Task("t"), seed=seed, group_id="g") for seed in (1, 1, 2)
    ]
    await host.close()
    assert first.id == "g" and first.task_id == "t" and len(first.trees) == 3
    assert [shape(t) for t in first.trees] == [shape(t) for t in again.trees]
    assert [shape(t) for t in first.trees] != [shape(t) for t in other.trees]
    assert {tree.group_id for tree in first.trees} == {"g"}


async def test_no_more_episodes_live_than_allowed_and_all_are_played():
    live, most = 0, 0

    class Counted(CountEnv):
        async def reset(self, task, *, seed):
            nonlocal live, most
            live += 1
            most = max(most, live)
            await asyncio.sleep(0)
            return await super().reset(task, seed=seed)

        async def close(self):
            nonlocal live
            live -= self.closed == 0 and self.task.id != "none"
            await super().close()

    host = await started(spec(concurrency=4), Counted)
    groups = await asyncio.gather(*(host.sample_group(Task(f"{i}"), seed=i) for i in range(8)))
    await host.close()
    assert most == 4 and live == 0
    assert [len(group.trees) for group in groups] == [3] * 8


async def test_an_environment_that_hangs_when_it_is_closed_unplayed_does_not_stop_the_start():
    class Hanging(CountEnv):
        async def close(self):
            if not self.count:
                await asyncio.sleep(3600)
            await super().close()

    host = await started(spec(limits=LimitsSettings(close_seconds=0.01)), Hanging)
    assert len((await host.sample_group(Task("t"), seed=0)).trees) == 3
    await host.close()


async def test_a_host_whose_closing_is_cancelled_closes_its_engine_all_the_same():
    class Stubborn(CountEnv):
        async def close(self):
            reached.set()
            await asyncio.sleep(0.05 if self.count else 0)
            await super().close()

    class Closable(RuleEngine):
        closed = 0

        async def close(self):
            self.closed += 1

    engine, reached = Closable(rule), asyncio.Event()
    host = await started(spec(), Stubborn, engine)
    playing = asyncio.ensure_future(host.sample_group(Task("t"), seed=0))
    reached.clear()
    await reached.wait()
    closing = asyncio.ensure_future(host.close())
    await asyncio.sleep(0.001)
    closing.cancel()
    await asyncio.wait([closing, playing])
    assert engine.closed == 1 and closing.cancelled()


async def test_evaluation_plays_chains_at_its_own_temperature():
    engine = RuleEngine(rule)
    host = await started(spec(ArpoSampler()), engine=engine)
    group = await host.evaluate(Task("t"), seed=0, samples=2, temperature=0.0)
    assert len(group.trees) == 2 and group.id == "eval/t"
    assert {sampling.temperature for _, sampling in engine.calls} == {0.0}
    engine.calls.clear()
    await host.evaluate(Task("t"), seed=0)
    assert {sampling.temperature for _, sampling in engine.calls} == {1.0}
    await host.close()


async def test_weights_and_versions_pass_through():
    host = await started(spec())
    await host.load_weights(Path("weights"), 3)
    group = await host.sample_group(Task("t"), seed=0)
    assert host.version == 3 and group.trees[0].turns[0].policy_version == 3
    assert len(await host.score([1, 2, 3])) == 2
    await host.close()
    await host.close()
    with pytest.raises(RuntimeError, match="not started, or closed"):
        await host.sample_group(Task("t"), seed=0)


async def test_a_branching_sampler_is_refused_on_an_environment_without_a_fork():
    with pytest.raises(RecipeError, match="UnforkableCountEnv has forkable = 'no'"):
        await started(spec(ArpoSampler()), UnforkableCountEnv)


async def test_a_stuck_environment_is_named():
    release = asyncio.Event()

    async def wait(env, action):
        await release.wait()

    host = await started(spec(ChainSampler(trajectories=1)), lambda: CountEnv(on_step=wait))
    playing = asyncio.create_task(host.sample_group(Task("t9"), seed=0, group_id="g"))
    await asyncio.sleep(0.03)
    (stall,) = host.stalled(0.01)
    assert (stall.environment, stall.task_id, stall.phase) == ("CountEnv", "t9", "step")
    assert host.stalled() == []
    release.set()
    await playing
    assert host.stalled(0.0) == []
    await host.close()


async def test_code_that_blocks_the_event_loop_is_named_from_outside(caplog):
    async def block(env, action):
        time.sleep(0.4)

    with caplog.at_level(logging.WARNING, logger="agentrl.rollout.watchdog"):
        host = await started(
            spec(ChainSampler(trajectories=1), stall_seconds=0.1, limits={"max_turns": 1}),
            lambda: CountEnv(on_step=block),
        )
        await host.sample_group(Task("t"), seed=0)
        await host.close()
    assert "event loop has been blocked" in caplog.text and "block (" in caplog.text
    assert "CountEnv has been in step" in caplog.text


@pytest.mark.slow  # starts processes
async def test_environments_live_in_hosts_whose_death_costs_a_retry(monkeypatch, tmp_path):
    monkeypatch.setenv("MORTAL_MARKER", str(tmp_path / "died"))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    engine = RuleEngine(lambda prompt, seed: ("go", 0.0))
    remote = replace(
        spec(ChainSampler(trajectories=1), env_hosts=1, env_host_memory_gib=1.0),
        env_id="host_envs:Mortal",
    )
    host = RolloutHost(remote, engine=engine, tokenizer=tokenizer())
    await host.start()
    pool = host._pool
    pids = {one.pid for one in pool.hosts}
    (tree,) = (await host.sample_group(Task("t"), seed=0)).trees
    assert list(tree.leaves.values()) == [StopReason.TERMINATED]
    assert [failure.stop_reason for failure in tree.failures] == [StopReason.ENV_ERROR]
    assert "Mortal.step" in tree.failures[0].message and "code 7" in tree.failures[0].message
    pids |= {one.pid for one in pool.hosts}
    await host.close()
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
async def test_a_host_that_cannot_start_leaves_no_environment_host(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    remote = replace(spec(ArpoSampler(), env_hosts=1), env_id="host_envs:Echo")
    host = RolloutHost(remote, engine=RuleEngine(rule), tokenizer=tokenizer())
    with pytest.raises(RecipeError, match="Echo has forkable = 'no'"):
        await host.start()
    assert not any(Path(f"/proc/{one.pid}").exists() for one in host._pool.hosts)


def test_a_memory_cap_without_environment_hosts_is_refused():
    with pytest.raises(ValueError, match="caps environment hosts, and env_hosts is 0"):
        RolloutSettings(env_host_memory_gib=2.0)


class GoldEnv(CountEnv):
    """Three actions in order, the last of which terminates."""

    def gold_action(self, task, turn):
        return ["look", "look", f"stop {task.id}"][turn] if turn < 3 else None


class SamePromptEnv(CountEnv):
    async def reset(self, task, *, seed):
        return (Message.of("user", "same"),)


@pytest.mark.slow  # loads a tokenizer by its folder, as a run does
async def test_a_host_plays_the_oracle_when_the_script_says_so(tmp_path):
    tokenizer().save_pretrained(tmp_path)
    scripted = replace(spec(), engine=ScriptedSettings(script="oracle"), model=str(tmp_path))
    host = RolloutHost(scripted, make_env=GoldEnv)
    await host.start()
    group = await host.sample_group(Task("t5"), seed=0)
    await host.restart_engine()
    again = await host.evaluate(Task("t6"), seed=0, samples=1)
    await host.close()
    for tree in (*group.trees, *again.trees):
        assert tree.leaves == {2: StopReason.TERMINATED}


async def test_an_oracle_plays_gold_actions_through_the_whole_path():
    renderer = Renderer(tokenizer())
    tasks = [Task(name) for name in ("t", "t2", "x")]
    oracle = Oracle(GoldEnv(), renderer)
    await oracle.add(tasks)
    engine = RuleEngine(lambda prompt, seed: (oracle(prompt), 0.0))
    host = await started(spec(), GoldEnv, engine)
    for task in tasks:
        group = await host.sample_group(task, seed=0)
        for tree in group.trees:
            assert tree.leaves == {2: StopReason.TERMINATED} and tree.turns[2].reward == 3.0
            assert tree.turns[2].action_ids.tolist() == ids_of(f"stop {task.id}")
    await host.close()
    with pytest.raises(DataError, match="'t' and 'u' show the same prompt"):
        await Oracle(SamePromptEnv(), renderer).add([Task("t"), Task("u")])
    with pytest.raises(DataError, match="no task of the oracle"):
        oracle("something else")
    end = renderer.decode(renderer.prompt_ids((Message.of("user", "task t"),)))
    # A context that it has not made itself is read for its actions.
    stranger = Oracle(GoldEnv(), renderer)
    await stranger.add(tasks)
    with pytest.raises(DataError, match="no gold action for turn 3"):
        stranger(end + "look look stop t")


class EchoEnv(GoldEnv):
    """Shows a word in each turn; the expert must say the last one back."""

    def expert_action(self, task, seen):
        return f"say {seen[-1].split('word')[-1].split()[0]}" if len(seen) < 4 else None

    async def reset(self, task, *, seed):
        self.words = iter(("blue", "say", "red"))
        return (Message.of("user", f"task {task.id} word {next(self.words)}"),)

    async def step(self, action):
        word = next(self.words, None)
        shown = (Message.of("user", f"word {word}"),) if word else ()
        return StepResult(shown, 0.0, word is None, False, StepInfo())


async def test_an_expert_reads_what_it_was_shown_also_where_that_looks_like_an_action():
    renderer = Renderer(tokenizer())
    oracle = Oracle(EchoEnv(), renderer)
    await oracle.add([Task("t")])
    host = await started(spec(), EchoEnv, RuleEngine(lambda prompt, seed: (oracle(prompt), 0.0)))
    (tree, *_) = (await host.sample_group(Task("t"), seed=0)).trees
    await host.close()
    said = [renderer.decode(turn.action_ids) for turn in tree.turns]
    assert [one.split("<")[0] for one in said] == ["say blue", "say say", "say red"]


async def test_a_spoiled_oracle_says_nothing_right():
    renderer = Renderer(tokenizer())
    oracle = Oracle(GoldEnv(), renderer, spoiled=True)
    await oracle.add([Task("t")])
    end = renderer.decode(renderer.prompt_ids((Message.of("user", "task t"),)))
    assert oracle(end) == "mppl"
    assert oracle(end + "mppl") == "mppl"
    assert oracle(end + "mppl" + "mppl") == "tupq u"
    assert oracle(end + "mppl" + "mppl" + "tupq u") == "hello"


async def test_closing_a_host_closes_the_environments_of_what_it_still_plays():
    """A caller in another process that gave a group up is not heard here."""
    made, acts = [], asyncio.Event()

    class Slow(CountEnv):
        async def step(self, action):
            acts.set()
            await asyncio.sleep(3600)

        async def close(self):
            await asyncio.sleep(0.01)
            await super().close()

    def make():
        made.append(Slow())
        return made[-1]

    host = await started(spec(), make)
    group = asyncio.ensure_future(host.sample_group(Task("t"), seed=1))
    await acts.wait()
    await host.close()
    assert len(made) == 4 and all(env.closed for env in made)  # one was asked for its settings
    with pytest.raises(asyncio.CancelledError):
        await group
