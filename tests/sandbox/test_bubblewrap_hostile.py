"""Hostile programs in bubblewrap: contained, with the right outcome, and nobody else the worse."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest
from hostile import HOSTILE, LIMITS, Hostile
from hostile_host import SECRET, Host, check_contained, program, watched_host
from process_tree import descendants

from agentrl.sandbox import BubblewrapSettings
from agentrl.sandbox.bubblewrap import BubblewrapSandbox
from agentrl.sandbox.bubblewrap_session import BubblewrapSession

pytestmark = [
    pytest.mark.slow,
    pytest.mark.bubblewrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap"),
]
AT_ONCE = 6
"""Programs under way: most wait for their time to be up."""


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("canary")
    with watched_host(folder, f"agentrl-canary-{os.getpid()}") as found:
        yield found


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


def processes() -> set[int]:
    """Of this machine, all that descend from this one."""
    return descendants(os.getpid()) | {os.getpid()}


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
    await asyncio.gather(
        *(sandbox.run_python("import time; time.sleep(0.3)") for _ in range(AT_ONCE))
    )
    before = processes()
    await check_contained(sandbox, session, host, at_once=AT_ONCE, patience=30.0, late=3.0)
    assert await settled(before) <= 0


async def test_every_hostile_program_leaves_its_session_usable(host, neighbours):
    sandbox, session = neighbours
    places = asyncio.Semaphore(AT_ONCE)
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
            # One run may find the interpreter that the program broke, or that is ended for what
            # it still holds when somebody looks; no other may.
            again = [await mine.execute("print(1 + 1)") for _ in range(3)]
            lost = [one for one in again if one.stdout != "2\n"]
            if len(lost) > 1 or not all(one.restarted for one in lost):
                wrong.append(f"{case.name}: then {again}")
            await mine.close()

    await asyncio.gather(*(play(case) for case in HOSTILE))
    assert not wrong, "\n".join(wrong)
    assert host.canary.read_text() == SECRET
    assert (await session.execute("mine, open('mine').read()")).stdout == "(42, 'untouched')\n"
