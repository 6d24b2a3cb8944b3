"""Tools of MCP servers: real processes that speak MCP, well and badly."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from agentrl.core.errors import EnvError, RecipeError, SetupError, ToolError
from agentrl.tools import mcp as module
from agentrl.tools.mcp import McpServer, McpTools, offered_tools

ODD = str(Path(__file__).with_name("mcp_odd_server.py"))


def odd(*args: str, **settings: object) -> McpServer:
    return McpServer(command=sys.executable, args=("-P", ODD, *args), **settings)


def by_name(tools: McpTools) -> dict[str, object]:
    return {tool.name: tool for tool in tools.tools}


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.slow
async def test_tools_have_the_servers_schemas_and_are_called(monkeypatch) -> None:
    monkeypatch.setenv("AGENTRL_SECRET", "x")
    holder = McpTools([odd(env={"GIVEN": "1"}, max_result_chars=300)])
    tools = by_name(holder)
    assert set(tools) >= {"count_calls", "die", "refuse", "shout"}
    shown = tools["shout"].schema["function"]
    assert shown["description"] == "Make a long result."
    assert shown["parameters"]["properties"]["times"]["type"] == "integer"
    assert await tools["shout"].call({"times": "2"}) == "haha"
    with pytest.raises(ToolError, match="needs the argument 'times'"):
        await tools["shout"].call({})
    assert (await tools["shout"].call({"times": 9000})).startswith("ha" * 150 + "\n[cut: ")
    with pytest.raises(ToolError, match="too warm"):
        await tools["refuse"].call({"why": "too warm"})
    assert await tools["picture"].call({}) == "look:\n[image]"
    seen = await tools["variables"].call({})
    assert "GIVEN" in seen and "PATH" in seen and "AGENTRL_SECRET" not in seen
    await holder.close()


@pytest.mark.slow
async def test_a_server_that_dies_is_told_and_the_next_call_starts_it_again() -> None:
    holder = McpTools([odd()], shared=False)
    tools = by_name(holder)
    assert [await tools["count_calls"].call({}) for _ in range(2)] == ["1", "2"]
    with pytest.raises(EnvError, match=r"die was lost: .*the lights went out"):
        await tools["die"].call({"code": 3})
    assert await tools["count_calls"].call({}) == "1"
    await holder.close()


@pytest.mark.slow
async def test_calls_run_side_by_side_and_a_slow_one_is_given_up() -> None:
    holder = McpTools([odd(timeout=3.0)])
    tools = by_name(holder)
    await tools["shout"].call({"times": 1})
    started = time.perf_counter()
    answers = await asyncio.gather(*(tools["sleep"].call({"seconds": 1.0}) for _ in range(8)))
    assert answers == ["slept"] * 8 and time.perf_counter() - started < 4.0
    with pytest.raises(ToolError, match="did not answer within 3 s"):
        await tools["sleep"].call({"seconds": 60})
    assert await tools["shout"].call({"times": 1}) == "ha"
    await holder.close()


@pytest.mark.slow
async def test_holders_share_a_connection_that_ends_after_the_last(monkeypatch) -> None:
    monkeypatch.setattr(module, "_LINGER_SECONDS", 0.05)
    one, two, own = McpTools([odd()]), McpTools([odd()]), McpTools([odd()], shared=False)
    counted = [await by_name(one)["count_calls"].call({}) for _ in range(2)]
    counted.append(await by_name(two)["count_calls"].call({}))
    counted.append(await by_name(own)["count_calls"].call({}))
    assert counted == ["1", "2", "3", "1"]
    await one.close()
    await one.close()
    await asyncio.sleep(0.3)
    assert await by_name(two)["count_calls"].call({}) == "4"
    await two.close()
    await own.close()
    await asyncio.sleep(0.3)
    assert await by_name(one)["count_calls"].call({}) == "1"
    await one.close()


@pytest.mark.slow
def test_names_are_made_writable_and_chosen() -> None:
    holder = McpTools([odd(prefix="odd_", tools=("count.calls", "shout"))])
    assert [tool.name for tool in holder.tools] == ["odd_count_calls", "odd_shout"]
    with pytest.raises(RecipeError, match="a tool 'count_calls' is there already"):
        _ = McpTools([odd(), odd(max_result_chars=9)]).tools
    with pytest.raises(RecipeError, match=r"offers no tool 'count'\. Its tools: count.calls"):
        _ = McpTools([odd(tools=("count",))]).tools


@pytest.mark.slow
def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(EnvError, match="this server cannot start"):
        offered_tools(odd("broken"))
    with pytest.raises(SetupError, match="there is no program 'no-such-server'"):
        offered_tools(McpServer(command="no-such-server"))
    with pytest.raises(EnvError, match="cannot be reached"):
        offered_tools(McpServer(url="http://127.0.0.1:9/mcp", start_seconds=5.0))
    with pytest.raises(EnvError, match="cannot be reached"):
        offered_tools(McpServer(command="sleep", args=("60",), start_seconds=0.3))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "one of the two"),
        ({"command": "x", "url": "http://y"}, "one of the two"),
        ({"url": "ftp://y"}, "must start with http"),
        ({"command": "x", "timeout": 0}, "greater than 0"),
        ({"comand": "x"}, "comand"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words) -> None:
    with pytest.raises(ValidationError, match=words):
        McpServer(**settings)


@pytest.mark.slow
async def test_a_server_behind_http_is_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-P", ODD, "http", str(port)],
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        for _ in range(200):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            await asyncio.sleep(0.05)
        holder = McpTools([McpServer(url=f"http://127.0.0.1:{port}/mcp")], shared=False)
        tools = by_name(holder)
        assert await tools["shout"].call({"times": 2}) == "haha"
        with pytest.raises(ToolError, match="no"):
            await tools["refuse"].call({"why": "no"})
        with pytest.raises(EnvError, match="die was lost"):
            await tools["die"].call({"code": 0})
        with pytest.raises(EnvError, match="cannot be reached"):
            await tools["shout"].call({"times": 2})
        await holder.close()
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
async def test_the_process_ends_with_its_connection() -> None:
    holder = McpTools([odd()], shared=False)
    await by_name(holder)["shout"].call({"times": 1})
    (connection,) = holder._held.values()
    pids = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if ODD.encode() in path.read_bytes()
    ]
    assert pids and connection._owner is not None
    await holder.close()
    assert not any(running(pid) for pid in pids)
