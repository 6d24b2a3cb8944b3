"""Imitation takes an environment's demonstrations, or else the episodes of its expert."""

from __future__ import annotations

from itertools import islice

import pytest

from agentrl.core.env import Env
from agentrl.core.errors import RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.trainer.demonstrations import demonstrator


class Mute(Env):
    """Has tasks, but nobody who knows what to do."""

    def tasks(self, split):
        return [Task("only", {})]

    async def reset(self, task, *, seed):
        raise AssertionError("nothing is to be played")

    async def step(self, action):
        raise AssertionError("nothing is to be played")


async def test_what_an_environment_demonstrates_is_imitated_as_it_is() -> None:
    env = make_env("search/facts")
    stream = await demonstrator(env, seed=3)
    assert list(islice(stream(), 4)) == list(islice(env.demonstrations(seed=3), 4))


async def test_without_demonstrations_the_expert_is_played_on_every_training_task() -> None:
    env = make_env("demo/calculator")
    tasks = env.tasks("train")
    stream = await demonstrator(env, seed=0)
    first, second = (list(islice(stream(), 2 * len(tasks))) for _ in range(2))
    assert first == second
    rounds = first[: len(tasks)], first[len(tasks) :]
    assert rounds[0] != rounds[1], "each round has an order of its own"
    prompts = [sorted(one.prompt[0].text for one in shown) for shown in rounds]
    assert prompts[0] == prompts[1] and len(set(prompts[0])) > 1
    again = make_env("demo/calculator")
    for task in tasks:
        prompt = await again.reset(task, seed=0)
        (shown,) = {one.turns: one for one in rounds[0] if one.prompt == prompt}.values()
        results = [await again.step(action) for action, _ in shown.turns]
        assert results[-1].terminated and results[-1].reward > 0
        assert [told for _, told in shown.turns[:-1]] == [r.observation for r in results[:-1]]
        assert shown.turns[-1][1] == ()


async def test_an_environment_without_an_expert_is_told_what_to_write() -> None:
    with pytest.raises(RecipeError, match=r"Mute has nothing to imitate.* 1 training.*gold_action"):
        await demonstrator(Mute(), seed=0)
