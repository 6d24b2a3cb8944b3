"""What the tests of samplers share: lines over a fake engine, sampled, delayed and cancelled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from rollout_fakes import CountEnv, Rule, RuleEngine, shape, stage

from agentrl.core.env import Env, StepResult
from agentrl.core.types import Task, TrajectoryTree
from agentrl.engine.base import Completion
from agentrl.rollout.episode import LiveEpisode
from agentrl.rollout.stage import Stage
from agentrl.samplers import AnySampler


def starter(setting: Stage) -> Callable[..., Awaitable[LiveEpisode]]:
    """Starts lines of the group "g" on `setting`, as a rollout host does."""

    async def start(task: Task, seed: int) -> LiveEpisode:
        return await LiveEpisode.start(setting, task, seed=seed, group_id="g")

    return start


async def sample(
    sampler: AnySampler,
    engine: RuleEngine,
    make_env: Callable[[], Env] = CountEnv,
    *,
    seed: int = 0,
    **limits: Any,
) -> Sequence[TrajectoryTree]:
    """The trees of one task; afterwards no episode is live and no slot is taken."""
    setting = stage(engine, make_env, **limits)
    trees = await sampler.sample(Task("t"), starter(setting), seed=seed)
    assert not setting.live and not setting.slots.locked()
    return trees


def completion(entropies: Sequence[float], kind: Any = "exact") -> Completion:
    """An action of so many tokens with these entropies."""
    values = np.asarray(entropies, np.float32)
    return Completion(
        token_ids=np.zeros(len(values), np.int32),
        logprobs=-values,
        entropies=values,
        entropy_kind=kind,
        finish_reason="stop",
        policy_version=0,
        prefilled_tokens=0,
        seconds=0.0,
    )


def by_turn(entropies: Sequence[float], *, turns: int = 3) -> Rule:
    """Ends after `turns` actions; the entropy of an action depends on its turn alone."""

    def rule(prompt: str, seed: int) -> tuple[str, float]:
        turn = prompt.count("count ")
        said = "stop" if turn == turns - 1 else "go"
        return f"{said} {seed % 997}", entropies[turn]

    return rule


def in_turn(*actions: str) -> Rule:
    """Says `actions` one after the other, whatever it is asked."""
    left = iter(actions)
    return lambda prompt, seed: (next(left), 1.0)


class PaidEnv(CountEnv):
    """As `CountEnv`, but "stop 0.5" earns 0.5."""

    async def step(self, action: str) -> StepResult:
        result = await super().step(action)
        paid = float(action.split()[1]) if result.terminated else 0.0
        return result._replace(reward=paid)


def uneven(prompt: str, seed: int) -> tuple[str, float]:
    """Entropies, lengths and actions by hash of (prompt, seed): every line is its own."""
    rng = random.Random(f"{prompt} {seed}")
    done = prompt.count("count ") > 0 and rng.random() < 0.3
    return f"{'stop' if done else 'go'} {seed % 997}", rng.random() * 3


def check_no_timing_matters(
    sampler: AnySampler, make_env: Callable[[], Env], *, seed: int, fewest: int | None = None
) -> Sequence[TrajectoryTree]:
    """Samples with answers that come at other times and with fewer slots: the trees are equal.

    They have as many leaves as the sampler's budget, or at least `fewest`.
    """

    async def run(shuffle: int, slots: int) -> Sequence[TrajectoryTree]:
        rng = random.Random(shuffle)
        engine = RuleEngine(uneven)
        generate = engine.generate

        async def late(prompt: Any, sampling: Any) -> Any:
            for _ in range(rng.choice([0, 1, 2, 5, 30]) if shuffle else 0):
                await asyncio.sleep(0)
            return await generate(prompt, sampling)

        engine.generate = late  # type: ignore[method-assign]
        return await sample(sampler, engine, make_env, seed=seed, slots=slots, max_turns=5)

    expected = asyncio.run(run(0, 64))
    leaves = sum(len(tree.leaves) for tree in expected)
    most = sampler.trajectories
    assert (most if fewest is None else fewest) <= leaves <= most
    for shuffle, slots in ((1, 64), (2, 3), (3, 1)):
        found = asyncio.run(run(shuffle, slots))
        assert [shape(tree) for tree in found] == [shape(tree) for tree in expected]
    return expected


async def cancel_while_sampling(
    sampler: AnySampler, setting: Stage, *, after: float | asyncio.Event
) -> None:
    """Cancels `sampler` after so many seconds, or once `after` is set; nothing is live then."""
    task = asyncio.create_task(sampler.sample(Task("t"), starter(setting), seed=0))
    if isinstance(after, asyncio.Event):
        await asyncio.wait_for(after.wait(), 60)
    else:
        await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not setting.live and not setting.slots.locked()


class Blocking:
    """A hook of `CountEnv` that hangs in step `at`; `reached` is set once `lines` lines do."""

    def __init__(self, at: int, *, lines: int = 1) -> None:
        self.at, self.left, self.reached = at, lines, asyncio.Event()

    async def __call__(self, env: CountEnv, action: str) -> None:
        if env.count == self.at:
            self.left -= 1
            if self.left == 0:
                self.reached.set()
            await asyncio.sleep(3600)


async def check_cancelling_closes(sampler: AnySampler, *, lines: int, forks: int) -> None:
    """Cancels `sampler` while `lines` lines act; all `forks` environments are closed then."""
    envs = []

    class Watched(CountEnv):
        async def fork(self) -> Watched:
            twin = await super().fork()
            twin.closed = 0
            envs.append(twin)
            return twin

    block = Blocking(2, lines=lines)
    setting = stage(RuleEngine(by_turn([1.0, 2.0, 3.0])), lambda: Watched(on_step=block))
    await cancel_while_sampling(sampler, setting, after=block.reached)
    assert len(envs) == forks and all(env.closed for env in envs)
