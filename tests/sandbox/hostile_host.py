"""A worker with something to steal, and the one check that hostile programs are contained."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hostile import HOSTILE, LIMITS, Hostile, filled

from agentrl.sandbox import RunStatus
from agentrl.sandbox.base import Sandbox, Session

SECRET = "a-secret-of-the-worker-71c2"


class Host(NamedTuple):
    """What the programs are after, and what must be the same afterwards."""

    canary: Path
    listener: socket.socket
    abstract: socket.socket
    name: str


@contextmanager
def watched_host(folder: Path, name: str) -> Iterator[Host]:
    """A host with a canary in `folder`, a secret variable, and sockets that nobody may reach."""
    canary = folder / "canary.txt"
    canary.write_text(SECRET)
    with (
        pytest.MonkeyPatch.context() as patched,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        patched.setenv("AGENTRL_TEST_SECRET", SECRET)
        abstract.bind(f"\0{name}")
        abstract.listen()
        for one in (listener, abstract):
            one.setblocking(False)
        yield Host(canary, listener, abstract, name)


def program(case: Hostile, host: Host) -> str:
    """The program of `case`, told where everything of `host` is."""
    return filled(
        case.code,
        PORT=host.listener.getsockname()[1],
        SOCKET=host.name,
        CANARY=host.canary,
        SECRET=SECRET,
        CHECKOUT=Path(__file__).resolve().parents[2],
        WORKER=os.getpid(),
    )


async def check_contained(
    sandbox: Sandbox, session: Session, host: Host, *, at_once: int, patience: float, late: float
) -> None:
    """Run every hostile program, and look at their outcomes, the host and a neighbour's session.

    The session holds `mine = 42` and a file `mine` with "untouched". A program may take
    `late` seconds more than its limit, and `patience` seconds with the time that it waits.
    """
    free = shutil.disk_usage("/").free
    places = asyncio.Semaphore(at_once)
    wrong: list[str] = []

    async def play(case: Hostile) -> None:
        async with places:
            result = await asyncio.wait_for(
                sandbox.run_python(program(case, host), limits=LIMITS), patience
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
        if result.seconds > LIMITS.wall_seconds + late:
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
