"""Episodes against a real chat server that fails, hangs, cuts and turns away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from hostile_chat_server import hostile

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.types import Message, StopReason, Task, Trajectory
from agentrl.engine import ChatSettings
from agentrl.evals.policy import policy_of
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
from agentrl.samplers.chain import ChainSampler

WORDS = ("red", "green")


class SayEnv(Env):
    """Asks for two words of a task, one after the other."""

    def __init__(self) -> None:
        self.turn = 0

    async def reset(self, task: Task, *, seed: int) -> Observation:
        self.words = task.data["words"]
        self.turn = 0
        return (Message.of("user", f"say {self.words[0]}"),)

    async def step(self, action: str) -> StepResult:
        right = action == self.words[self.turn]
        self.turn += 1
        done = self.turn == len(self.words)
        shown = () if done else (Message.of("user", f"now say {self.words[self.turn]}"),)
        return StepResult(shown, float(right), done, False, StepInfo())


async def played(
    engine: ChatSettings,
    tasks: list[Task],
    *,
    retries: int = 2,
    limits: LimitsSettings | None = None,
) -> list[Trajectory]:
    """The trajectory of one sample of each task, with what was lost at the root as failures."""
    rollout = RolloutSettings(
        retries=retries,
        limits=limits or LimitsSettings(),
        sampling=SamplingSettings(max_tokens_per_turn=8),
    )
    spec = HostSpec(
        env_id="unused", engine=engine, model="", sampler=ChainSampler(), rollout=rollout
    )
    host = RolloutHost(spec, make_env=SayEnv)
    await host.start()
    try:
        groups = await asyncio.gather(*(host.evaluate(one, seed=7) for one in tasks))
    finally:
        await host.close()
    return [trajectory for group in groups for trajectory in group.trajectories()]


def tasks_of(count: int, words: tuple[str, ...] = WORDS) -> list[Task]:
    return [Task(f"t{index}", {"words": list(words)}) for index in range(count)]


async def test_every_episode_ends_well_though_a_tenth_fails_and_some_hang():
    with hostile(failing=0.1, hanging=0.02, seed=3) as server:
        engine = policy_of(server.url).engine
        assert (engine.type, engine.model) == ("chat", "echo")
        quick = engine.model_copy(update={"timeout": 0.4, "backoff": 0.005})
        ended = await played(quick, tasks_of(150))
        assert Counter(one.stop_reason for one in ended) == {StopReason.TERMINATED: 150}
        assert [one.episode_return for one in ended] == [2.0] * 150
        assert server.seen["fine"] == 300
        assert set(server.seen) == {"fine", "hang", "status", "busy", "html", "cut", "half"}
        turns = [turn for one in ended for turn in one.turns]
        assert {(turn.prefilled_tokens, turn.generated_tokens) for turn in turns} == {(20, 3)}


async def test_a_server_that_keeps_failing_is_a_failure_of_that_sample_and_no_score():
    with hostile(failing=0.0, hanging=0.0) as server:
        engine = ChatSettings(base_url=server.url, retries=1, backoff=0.001)
        mixed = [*tasks_of(3), Task("bad", {"words": ["red", "never"]})]
        *good, bad = await played(engine, mixed, retries=1)
        assert [one.episode_return for one in good] == [2.0] * 3
        assert bad.stop_reason is StopReason.ENGINE_ERROR
        assert "failed 2 times; the last time: HTTP 503: 'overloaded'" in (
            bad.tree.failures[-1].message
        )


async def test_limits_count_the_servers_tokens_and_not_bytes():
    with hostile(failing=0.0, hanging=0.0) as server:
        engine = ChatSettings(base_url=server.url)
        words = ("x" * 400, "y" * 400, "z")
        roomy = LimitsSettings(max_tokens=150)
        (whole,) = await played(engine, tasks_of(1, words), limits=roomy)
        # More than 2,000 bytes, which the server says are 23 tokens each time.
        assert whole.stop_reason is StopReason.TERMINATED
        assert len(whole.tree.context_ids(2)) > 1600
        tight = LimitsSettings(max_tokens=22)
        (cut,) = await played(engine, tasks_of(1, ("a", "b")), limits=tight)
        assert cut.stop_reason is StopReason.TRUNCATED_TOKENS
        few = LimitsSettings(max_generated_tokens=3)
        (spent,) = await played(engine, tasks_of(1, ("a", "b")), limits=few)
        assert spent.stop_reason is StopReason.TRUNCATED_BUDGET


async def test_waiting_for_a_slot_is_no_part_of_a_turn():
    with hostile(failing=0.0, hanging=0.35, seed=1) as server:
        # Each hang holds the only slot: the last in line waits longer than a turn may take.
        engine = ChatSettings(base_url=server.url, concurrency=1, timeout=0.2, backoff=0.001)
        limits = LimitsSettings(turn_seconds=0.9)
        started = time.monotonic()
        ended = await played(engine, tasks_of(12, ("a",)), retries=0, limits=limits)
        assert time.monotonic() - started > limits.turn_seconds
        assert {one.stop_reason for one in ended} == {StopReason.TERMINATED}
