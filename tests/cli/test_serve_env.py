"""`agentrl serve env`, started for real, played from here and killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from agentrl.cli.app import app as whole_app
from agentrl.core.errors import EnvError
from agentrl.core.registry import make_env


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address that the command tells, and its process."""
    code = "from agentrl.cli.serve import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "env", *arguments, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "AGENTRL_TOKEN": "secret"},
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+):", said)
        assert found, said + process.stderr.read()
        yield found[1], process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


async def calculate(env: object, number: int) -> float:
    task = env.tasks("train")[number]
    await env.reset(task, seed=0)
    for turn in range(2):
        await env.step(env.gold_action(task, turn))
    twin = await env.fork()
    earned = [(await one.step(one.gold_action(task, 2))).reward for one in (env, twin)]
    await twin.close()
    await env.close()
    return sum(earned)


async def until_up(url: str) -> None:
    """Wait for the server's port."""
    port = int(url.rpartition(":")[2])
    for _ in range(600):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_an_environment_is_played_from_another_process_until_that_dies(workers, monkeypatch):
    monkeypatch.setenv("AGENTRL_TOKEN", "secret")
    arguments = ("demo/calculator", "--arg", "max_turns=5", "--workers", workers)
    with server(*arguments) as (url, process):
        await until_up(url)
        for _ in range(100):
            with contextlib.suppress(EnvError):
                make_env(f"remote:{url}").tasks("train")
                break
            await asyncio.sleep(0.2)
        envs = [make_env(f"remote:{url}") for _ in range(16)]
        assert await asyncio.gather(*(calculate(env, n) for n, env in enumerate(envs))) == [2] * 16
        task = envs[0].tasks("train")[0]
        await envs[0].reset(task, seed=0)
        for _ in range(4):
            assert not (await envs[0].step("hm")).truncated
        assert (await envs[0].step("hm")).truncated
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        await envs[1].close()
        with pytest.raises(EnvError, match=r"the server is gone|cannot be reached"):
            await envs[1].reset(task, seed=0)
        with pytest.raises(EnvError, match="the server is gone"):
            await envs[0].step("hm")


@pytest.mark.slow
def test_it_ends_when_it_is_told_to() -> None:
    with server("demo/guess") as (_, process):
        process.terminate()
        assert process.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo/gues"], "Did you mean 'demo/guess'?"),
        (["demo/guess", "--arg", "higest=3"], "Did you mean 'highest'?"),
        (["demo/guess", "--arg", "highest"], "takes key=value"),
        (["demo/guess", "--host", "0.0.0.0"], "set AGENTRL_TOKEN to a secret"),
    ],
)
def test_mistakes_are_said_before_anything_listens(arguments, words, monkeypatch) -> None:
    monkeypatch.delenv("AGENTRL_TOKEN", raising=False)
    result = CliRunner().invoke(whole_app, ["serve", "env", *arguments, "--port", "0"])
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(whole_app, ["serve", "env", "demo/guess", "--port", port])
    assert result.exit_code == 2 and f"cannot listen on 127.0.0.1:{port}" in result.stderr
