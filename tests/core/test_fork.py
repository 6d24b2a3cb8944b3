from __future__ import annotations

import pytest

from agentrl.core.env import Env, StepInfo, StepResult
from agentrl.core.errors import EnvError
from agentrl.core.fork import fork_env
from agentrl.core.types import Message, Task
from agentrl.envs.demo import CalculatorEnv, GuessEnv

TASK = Task("t", {"terms": [1, 2, 3]})


class Drifting(Env):
    """Says how many of its kind were made: no replay agrees with it."""

    forkable = "replay"
    made = 0
    closed = 0

    def __init__(self, ends_early=False):
        type(self).made += 1
        self.number = type(self).made
        self.ends_early = ends_early

    async def reset(self, task, *, seed):
        return (Message.of("user", "hello"),)

    async def step(self, action):
        said = "same" if self.ends_early else str(self.number)
        ended = self.ends_early and self.number > 1
        observation = (Message.of("user", said),)
        return StepResult(observation, 0.0, ended, False, StepInfo())

    async def close(self):
        type(self).closed += 1


async def played(env, actions, seed=3):
    observations = [await env.reset(TASK, seed=seed)]
    for action in actions:
        observations.append((await env.step(action)).observation)
    return observations


async def forked(env, make, actions, observations, seed=3):
    return await fork_env(
        env, make=make, task=TASK, seed=seed, actions=actions, observations=observations
    )


async def test_a_copy_goes_on_from_the_same_turn():
    env = CalculatorEnv()
    actions = ["<add>1 + 2</add>"]
    twin = await forked(env, CalculatorEnv, actions, await played(env, actions))
    assert twin is not env
    assert await twin.step("<answer>6</answer>") == await env.step("<answer>6</answer>")


async def test_a_replay_goes_on_from_the_same_turn_and_leaves_the_original():
    env = GuessEnv()
    actions = ["50", "25"]
    observations = await played(env, actions)
    twin = await forked(env, GuessEnv, actions, observations)
    for _ in range(5):
        last = await twin.step("1")
    assert last.truncated
    assert not (await env.step("1")).truncated


async def test_a_replay_with_other_observations_is_refused_and_closed():
    Drifting.made = Drifting.closed = 0
    env = Drifting()
    observations = await played(env, ["a"])
    with pytest.raises(
        EnvError, match=r"turn 0: another observation than before. Expected 'user: 1'"
    ):
        await forked(env, Drifting, ["a"], observations)
    assert Drifting.closed == 1


async def test_a_replay_that_ends_too_early_is_refused():
    Drifting.made = 0

    def make():
        return Drifting(ends_early=True)

    env = make()
    observations = await played(env, ["a"])
    with pytest.raises(EnvError, match="the episode ended at turn 0"):
        await forked(env, make, ["a"], observations)


async def test_a_replay_needs_an_observation_more_than_actions():
    env = GuessEnv()
    observations = await played(env, ["50"])
    with pytest.raises(EnvError, match="needs 2 observations, that of reset first; got 1"):
        await forked(env, GuessEnv, ["50"], observations[1:])


async def test_an_env_that_cannot_fork_is_refused():
    class Stuck(Drifting):
        forkable = "no"

    env = Stuck()
    with pytest.raises(EnvError, match=r"cannot fork \(forkable = 'no'\)"):
        await forked(env, Stuck, [], await played(env, []))
