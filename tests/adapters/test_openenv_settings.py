"""`openenv:` against a server of the test that speaks its protocol badly, and wrong settings."""

from __future__ import annotations

import contextlib
import json

import pytest
from websockets.asyncio.server import serve

from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task

TASK = Task("t", {"seed": 1})
GOOD = {"type": "observation", "data": {"observation": {"x": 1}, "reward": None, "done": False}}


@contextlib.asynccontextmanager
async def answering(*answers: str | None):
    """An env whose server gives these answers in turn; None: it says nothing."""

    async def answer(websocket):
        left = list(answers)
        async for message in websocket:
            if json.loads(message)["type"] == "close":
                return
            said = left.pop(0)
            if said is not None:
                await websocket.send(said)

    async with serve(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        env = make_env(f"openenv:http://127.0.0.1:{port}", step_seconds=0.3)
        try:
            yield env
        finally:
            await env.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("not json", "no JSON"),
        ("[1]", "was answered by"),
        ('{"type": "poem"}', "was answered by"),
        ('{"type": "observation", "data": {}}', "shows no observation"),
        (json.dumps({**GOOD, "data": {**GOOD["data"], "done": True}}), "over when it was reset"),
        ('{"type": "error", "data": {"code": "X", "message": "no"}}', r"reset failed .*\(X\): no"),
        (None, "passed its deadline of 0.3 s"),
    ],
)
async def test_what_is_no_answer_to_a_reset_is_a_failure(answer, words):
    async with answering(answer) as env:
        with pytest.raises(EnvError, match=words):
            await env.reset(TASK, seed=0)
        with pytest.raises(EnvError, match="before reset"):
            await env.step("{}")


async def test_no_reward_is_none_and_a_yes_is_one():
    yes = {"type": "observation", "data": {**GOOD["data"], "reward": True, "done": True}}
    async with answering(json.dumps(GOOD), json.dumps(GOOD), json.dumps(yes)) as env:
        await env.reset(TASK, seed=0)
        assert (await env.step("{}")).reward == 0.0
        assert (await env.step("{}")).reward == 1.0


@pytest.mark.parametrize("action", ["", "[]", "[" * 100_000, "1", "{", "\x00"])
async def test_actions_that_are_no_objects_never_reach_the_server(action):
    async with answering(json.dumps(GOOD)) as env:
        await env.reset(TASK, seed=0)
        assert (await env.step(action)).info.malformed_calls == 1


@pytest.mark.parametrize(
    ("id_", "settings"),
    [
        ("openenv:localhost", {}),
        ("openenv:http://x", {"max_turns": 0}),
        ("openenv:http://x", {"fork": "copy"}),
        ("openenv:http://x", {"seeds": 0}),
    ],
)
def test_wrong_settings_are_mistakes_of_the_recipe(id_, settings):
    with pytest.raises(RecipeError):
        make_env(id_, **settings)


def test_tasks_are_seeds():
    env = make_env("openenv:http://x", seeds=3)
    seeds = {task.data["seed"] for split in ("train", "eval") for task in env.tasks(split)}
    assert len(seeds) == 6 and env.forkable == "replay"
