"""Hostile programs in Docker: contained, with the right outcome, and nobody else the worse."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from docker_fakes import here, need_docker, settings
from hostile import HOSTILE, LIMITS, Hostile, filled

from agentrl.sandbox import RunStatus
from agentrl.sandbox.docker import DockerSandbox

pytestmark = [pytest.mark.slow, pytest.mark.docker]
SECRET = "a-secret-of-the-worker-71c2"


class Host(NamedTuple):
    """What the programs are after, and what must be the same afterwards."""

    canary: Path
    listener: socket.socket
    abstract: socket.socket
    name: str


@pytest.fixture
def host(tmp_path, monkeypatch) -> Iterator[Host]:
    canary = tmp_path / "canary.txt"
    canary.write_text(SECRET)
    name = f"agentrl-docker-canary-{os.getpid()}"
    monkeypatch.setenv("AGENTRL_TEST_SECRET", SECRET)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind(f"\0{name}")
        abstract.listen()
        for one in (listener, abstract):
            one.setblocking(False)
        yield Host(canary, listener, abstract, name)


def program(case: Hostile, host: Host) -> str:
    return filled(
        case.code,
        PORT=host.listener.getsockname()[1],
        SOCKET=host.name,
        CANARY=host.canary,
        SECRET=SECRET,
        CHECKOUT=Path(__file__).resolve().parents[2],
        WORKER=os.getpid(),
    )


async def test_every_hostile_program_is_contained_in_docker(host):
    need_docker()
    sandbox = DockerSandbox(settings(containers=6, limits=LIMITS))
    session = await sandbox.open({"mine": b"untouched"})
    await session.execute("mine = 42")
    free = shutil.disk_usage("/").free
    wrong: list[str] = []

    async def play(case: Hostile) -> None:
        result = await asyncio.wait_for(
            sandbox.run_python(program(case, host), limits=LIMITS), 120.0
        )
        said = result.stdout + result.stderr
        if result.status not in case.outcomes:
            wrong.append(f"{case.name}: ended as {result.status}: {said[-400:]!r}")
        if "ESCAPED" in said or SECRET in said:
            wrong.append(f"{case.name}: escaped: {said[-400:]!r}")
        if case.says not in said:
            wrong.append(f"{case.name}: did not say {case.says!r}: {said[-400:]!r}")
        if len(said) > 2 * LIMITS.output_chars + 200 or (case.cut and not result.cut):
            wrong.append(f"{case.name}: {len(said)} characters, cut: {result.cut}")
        if result.seconds > LIMITS.wall_seconds + 5.0:
            wrong.append(f"{case.name}: took {result.seconds:.1f} s")

    await asyncio.gather(*(play(case) for case in HOSTILE))
    assert not wrong, "\n".join(wrong)
    assert host.canary.read_text() == SECRET
    for listener in (host.listener, host.abstract):
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert abs(shutil.disk_usage("/").free - free) < 1 << 30
    assert (await sandbox.run_python("print(6 * 7)")).stdout == "42\n"
    result = await session.execute("print(mine, open('mine').read())")
    assert (result.status, result.stdout, result.restarted) == (
        RunStatus.OK,
        "42 untouched\n",
        False,
    )
    await sandbox.close()
    assert here() == []
