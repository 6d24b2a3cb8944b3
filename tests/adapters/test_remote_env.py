"""`remote:`: an environment behind HTTP plays as the one that it stands for."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

sys.path.append(str(Path(__file__).parent))

from served_here import served
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentrl.adapters.wire import PROTOCOL, FrameReader, encode_frame
from agentrl.core.env import Env
from agentrl.core.errors import DataError, EnvError, RecipeError, SetupError
from agentrl.core.fork import fork_env
from agentrl.core.registry import env_class, make_env
from agentrl.core.types import Task
from agentrl.testing import check_env, check_env_sync

TASK = Task("t", {})


@pytest.fixture(scope="module")
def calculator():
    with served("demo/calculator", body_bytes=200_000) as (url, _):
        yield url


@pytest.fixture(scope="module")
def counter():
    with served("host_envs:Counter", settings={"goal": 3}, sessions=4) as (url, server):
        yield url, server


def test_it_keeps_the_contract_and_forks_on_the_server(calculator):
    report = check_env_sync(lambda: make_env(f"remote:{calculator}"))
    assert {"fork", "leak", "gold", "repeat"} <= set(report.checked)


def test_it_says_of_itself_what_the_environment_says(calculator):
    here, there = make_env("demo/calculator"), make_env(f"remote:{calculator}")
    assert there.tasks("eval") == tuple(here.tasks("eval"))
    assert (there.forkable, there.stop) == (here.forkable, here.stop)
    assert there.tool_schemas == here.tool_schemas
    task = here.tasks("train")[3]
    assert there.gold_action(task, 1) == here.gold_action(task, 1)
    assert there.expert_action(task, ["a", "b"]) == here.expert_action(task, ["a", "b"])


def test_schemas_of_tools_travel(calculator):
    with served("demo/calculator", settings={"format": "json"}) as (url, _):
        there = make_env(f"remote:{url}")
        assert there.tool_schemas == make_env("demo/calculator", format="json").tool_schemas != ()


@pytest.mark.slow
async def test_it_branches_by_replay_where_the_environment_does():
    with served("demo/guess") as (url, _):
        report = await check_env(lambda: make_env(f"remote:{url}"))
        assert "fork" in report.checked
        env = make_env(f"remote:{url}")
        task = env.tasks("train")[0]
        seen = [await env.reset(task, seed=4), (await env.step("50")).observation]
        twin = await fork_env(
            env,
            make=lambda: make_env(f"remote:{url}"),
            task=task,
            seed=4,
            actions=["50"],
            observations=seen,
        )
        assert (await twin.step("1")).observation == (await env.step("1")).observation
        await twin.close()
        await env.close()


@pytest.mark.parametrize(
    ("action", "kind", "words"),
    [
        ("raise", EnvError, "step raised ValueError: the die has seven sides"),
        ("data error", DataError, r"^corpus.jsonl:3: no text$"),
        ("unsendable", EnvError, "cannot travel"),
    ],
)
async def test_an_error_of_the_environment_arrives_with_its_type(counter, action, kind, words):
    env = make_env(f"remote:{counter[0]}")
    await env.reset(TASK, seed=0)
    with pytest.raises(kind, match=words):
        await env.step(action)
    with pytest.raises(EnvError, match="reset comes first"):
        await env.step("go")
    assert await env.reset(TASK, seed=1)
    await env.close()


async def test_sessions_are_bounded_and_freed(counter):
    url, server = counter
    envs = [make_env(f"remote:{url}") for _ in range(5)]
    for env in envs[:4]:
        await env.reset(TASK, seed=0)
    with pytest.raises(EnvError, match="4 sessions are open, which is this host's limit"):
        await envs[4].reset(TASK, seed=0)
    with pytest.raises(EnvError, match="limit"):
        await envs[0].fork()
    await asyncio.gather(*(env.close() for env in envs))
    assert server.host.sessions == 0
    assert httpx.get(f"{url}/health").json() == {"status": "ok", "sessions": 0}
    await envs[4].reset(TASK, seed=0)
    await envs[4].close()


async def test_all_sessions_share_a_connection_that_ends_with_the_last(counter):
    url, _ = counter
    envs = [make_env(f"remote:{url}") for _ in range(3)]
    for env in envs:
        await env.reset(TASK, seed=0)
    connections = {env._connection for env in envs}
    assert len(connections) == 1
    for env in envs:
        await env.close()
        await env.close()
    assert not connections.pop().alive


async def test_a_session_that_idles_ends_and_says_so():
    with served("host_envs:Counter", settings={"goal": 3}, idle_seconds=0.2) as (url, server):
        env, busy = make_env(f"remote:{url}"), make_env(f"remote:{url}")
        await env.reset(TASK, seed=0)
        await busy.reset(TASK, seed=0)
        for _ in range(10):
            await asyncio.sleep(0.05)
            await busy.reset(TASK, seed=0)
        assert server.host.sessions == 1
        with pytest.raises(EnvError, match="nothing was asked of it for too long"):
            await env.step("go")
        await env.close()
        await busy.close()


async def test_the_token_is_asked_for_everywhere(monkeypatch):
    monkeypatch.setenv("AGENTRL_TOKEN", "wrong")
    with served("demo/guess", token="right") as (url, _):
        env = make_env(f"remote:{url}")
        with pytest.raises(SetupError, match=r"another token.*AGENTRL_TOKEN"):
            env.tasks("train")
        with pytest.raises(SetupError, match="another token"):
            await env.reset(TASK, seed=0)
        with pytest.raises(InvalidStatus):
            await connect(url.replace("http", "ws") + "/v1/episodes")
        assert httpx.post(f"{url}/v1/ask", json=["describe"]).status_code == 401
        assert httpx.get(f"{url}/health").status_code == 200
        monkeypatch.setenv("AGENTRL_TOKEN", "right")
        assert len(make_env(f"remote:{url}").tasks("train")) == 1


async def test_versions_that_differ_refuse_each_other(calculator, monkeypatch):
    monkeypatch.setattr("agentrl.adapters.remote.PROTOCOL", PROTOCOL + 1)
    env = make_env(f"remote:{calculator}", open_seconds=9.0)
    with pytest.raises(
        SetupError, match=f"speaks version {PROTOCOL} .*, the client {PROTOCOL + 1}"
    ):
        env.tasks("train")


async def test_a_server_that_is_gone_or_came_back_is_told_at_once():
    with served("demo/guess") as (url, _):
        env = make_env(f"remote:{url}")
        task = env.tasks("train")[0]
        await env.reset(task, seed=0)
    await asyncio.sleep(0.05)
    with pytest.raises(EnvError, match="the server is gone"):
        await env.step("5")
    with pytest.raises(EnvError, match=r"cannot be reached.*agentrl serve env ID"):
        await env.reset(task, seed=0)
    port = int(url.rpartition(":")[2])
    with served("demo/guess", port=port):
        await env.reset(task, seed=0)
    with served("demo/guess", port=port):
        await asyncio.sleep(0.05)
        with pytest.raises(EnvError, match="started again, and its old sessions are lost"):
            await env.step("5")
        await env.reset(task, seed=0)
        assert (await env.step("x")).observation[0].text == "not a number"
        await env.close()


async def test_another_environment_at_the_same_address_is_noticed():
    with served("demo/guess") as (url, _):
        env = make_env(f"remote:{url}")
        assert env.forkable == "replay"
        await env.reset(env.tasks("train")[0], seed=0)
        await env.close()
    with served("demo/calculator", port=int(url.rpartition(":")[2])):
        await env.reset(Task("x", {"terms": [1, 2, 3]}), seed=0)
        assert env.forkable == "copy" and len(env.tasks("train")) == 32
        await env.close()


def test_a_call_that_gets_no_answer_is_given_up():
    async def play(url: str) -> None:
        env = make_env(f"remote:{url}", step_seconds=0.2)
        await env.reset(TASK, seed=0)
        with pytest.raises(EnvError, match=r"step passed its deadline of 0.2 s"):
            await env.step("hang")
        await env.reset(TASK, seed=0)
        await env.close()

    with served("host_envs:Counter") as (url, _):
        asyncio.run(play(url))


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'["nothing"]', b"[" * 100_000])
def test_a_question_that_is_none_is_refused(calculator, body):
    answer = httpx.post(f"{calculator}/v1/ask", content=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"][0] in ("EnvError", "FrameError")


def test_a_body_that_is_too_large_is_refused_before_it_is_read_whole(calculator):
    answer = httpx.post(f"{calculator}/v1/ask", content=b"x" * 300_000)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "message",
    [
        "text",
        b"\xff\xff\xff\xff",
        encode_frame([[1, "step", 1, "before hello"]]),
        encode_frame([[1, "hello", 0, PROTOCOL + 1]]),
        b"\x00\x00\x00\x02{}",
    ],
)
async def test_a_client_that_breaks_the_protocol_is_told_and_hung_up_on(calculator, message):
    async with connect(calculator.replace("http", "ws") + "/v1/episodes") as websocket:
        await websocket.send(message)
        (answer,) = FrameReader().feed(await websocket.recv(decode=False))
        assert answer[:2] == [0, "FrameError"]
        with pytest.raises(ConnectionClosed):
            await websocket.recv()


def test_web_pages_are_kept_out(calculator):
    answer = httpx.get(f"{calculator}/v1/env", headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://x", "http://", ""])
def test_what_is_no_address_is_a_mistake_of_the_recipe(url):
    with pytest.raises(RecipeError, match="an address like remote:http"):
        make_env(f"remote:{url}")


def test_something_else_at_the_address_is_said(calculator):
    env = make_env(f"remote:{calculator}/deeper")
    with pytest.raises(EnvError, match="no agentrl server answers there \\(status 404"):
        env.tasks("train")


def test_the_id_names_a_class_as_any_other():
    assert issubclass(env_class("remote:http://x:1"), Env)
    with pytest.raises(RecipeError, match="must be above 0"):
        make_env("remote:http://x:1", step_seconds=0)
