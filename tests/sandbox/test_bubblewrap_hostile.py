"""Hostile programs in bubblewrap: contained, with the right outcome, and nobody else the worse."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hostile import HOSTILE, LIMITS, Hostile, filled

from agentrl.sandbox import BubblewrapSettings, RunStatus
from agentrl.sandbox.bubblewrap import BubblewrapSandbox
from agentrl.sandbox.bubblewrap_session import BubblewrapSession

pytestmark = [
    pytest.mark.slow,
    pytest.mark.bubblewrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap"),
]
SECRET = "a-secret-of-the-worker-71c2"


class Host(NamedTuple):
    """What the programs are after, and what must be the same afterwards."""

    canary: Path
    listener: socket.socket
    abstract: socket.socket
    name: str


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Iterator[Host]:
    canary = tmp_path_factory.mktemp("canary") / "canary.txt"
    canary.write_text(SECRET)
    name = f"agentrl-canary-{os.getpid()}"
    os.environ["AGENTRL_TEST_SECRET"] = SECRET
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind(f"\0{name}")
        abstract.listen()
        for one in (listener, abstract):
            one.setblocking(False)
        yield Host(canary, listener, abstract, name)
    del os.environ["AGENTRL_TEST_SECRET"]


class Neighbours(NamedTuple):
    sandbox: BubblewrapSandbox
    session: BubblewrapSession


@pytest.fixture
async def neighbours() -> AsyncIterator[Neighbours]:
    sandbox = BubblewrapSandbox(BubblewrapSettings(limits=LIMITS))
    session = await sandbox.open({"mine": b"untouched"})
    await session.execute("mine = 42")
    yield Neighbours(sandbox, session)
    await sandbox.close()


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


def processes() -> set[int]:
    """Of this machine, all that descend from this one."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(status.rpartition(")")[2].split()[1])
    mine = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return mine


async def settled(before: set[int]) -> int:
    """How many processes more there are than before, although nothing runs any more."""
    for _ in range(50):
        more = len(processes()) - len(before)
        if more <= 0:
            break
        await asyncio.sleep(0.05)
    return more


async def test_every_hostile_program_is_contained(host, neighbours):
    sandbox, session = neighbours
    await asyncio.gather(*(sandbox.run_python("import time; time.sleep(0.3)") for _ in range(3)))
    before = processes()
    free = shutil.disk_usage("/").free
    places = asyncio.Semaphore(3)
    wrong: list[str] = []

    async def play(case: Hostile) -> None:
        async with places:
            result = await asyncio.wait_for(
                sandbox.run_python(program(case, host), limits=LIMITS), 30.0
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
        if result.seconds > LIMITS.wall_seconds + 3.0:
            wrong.append(f"{case.name}: took {result.seconds:.1f} s")

    await asyncio.gather(*(play(case) for case in HOSTILE))
    assert not wrong, "\n".join(wrong)
    assert await settled(before) <= 0
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


async def test_every_hostile_program_leaves_its_session_usable(host, neighbours):
    sandbox, session = neighbours
    places = asyncio.Semaphore(3)
    wrong: list[str] = []

    async def play(case: Hostile) -> None:
        async with places:
            mine = await sandbox.open({"kept": b"kept"})
            result = await asyncio.wait_for(mine.execute(program(case, host)), 30.0)
            said = result.stdout + result.stderr
            if "ESCAPED" in said or SECRET in said or case.says not in said:
                wrong.append(f"{case.name}: {said[-400:]!r}")
            if result.seconds > LIMITS.wall_seconds + 3.0:
                wrong.append(f"{case.name}: took {result.seconds:.1f} s")
            # A run may find the interpreter that the last one broke; the one after it may not.
            again = [await mine.execute("print(1 + 1)") for _ in range(2)]
            if again[1].stdout != "2\n" or (again[0].stdout != "2\n" and not again[0].restarted):
                wrong.append(f"{case.name}: then {again}")
            await mine.close()

    await asyncio.gather(*(play(case) for case in HOSTILE))
    assert not wrong, "\n".join(wrong)
    assert host.canary.read_text() == SECRET
    assert (await session.execute("mine, open('mine').read()")).stdout == "(42, 'untouched')\n"
