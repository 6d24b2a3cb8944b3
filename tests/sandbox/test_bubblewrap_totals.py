"""What the kernel holds all programs of a sandbox to together, and where it would hold none."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentrl.sandbox import BubblewrapSettings, Limits, RunStatus
from agentrl.sandbox.bubblewrap import BubblewrapSandbox
from agentrl.sandbox.guest.limits import UNCOUNTED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.bubblewrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="apt-get install bubblewrap"),
]
LIMITS = Limits(wall_seconds=20.0, processes=16)
FORKS = """
import os, time
made = 0
for _ in range(30):
    try:
        if os.fork() == 0:
            time.sleep(100)
        made += 1
    except OSError:
        pass
print(made)
"""
THREADS = """
import threading, time
made = 0
for _ in range(30):
    try:
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
        made += 1
    except RuntimeError:
        pass
print(made)
"""


def tasks() -> int:
    """Processes and threads below this process."""
    found: dict[int, tuple[int, int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(entry)] = int(fields[1]), int(fields[17])
    mine = {os.getpid()}
    while more := {pid for pid, (parent, _) in found.items() if parent in mine} - mine:
        mine |= more
    return sum(found[pid][1] for pid in mine - {os.getpid()})


@pytest.mark.parametrize("program", [FORKS, THREADS])
async def test_many_sessions_together_have_no_more_processes_than_the_sandbox(program):
    before = tasks()
    sandbox = BubblewrapSandbox(BubblewrapSettings(preload=(), limits=LIMITS, processes=64))
    sessions = [await sandbox.open() for _ in range(6)]
    results = await asyncio.gather(*(session.execute(program) for session in sessions))
    made = [int(result.stdout) for result in results]
    # Of the 64, one is the warm interpreter and two are each session's; bwrap's own are beside.
    assert sum(made) <= 64 - 1 - 2 * len(sessions)
    assert 64 - 16 < tasks() - before <= 64 + 8
    # What starts nothing runs on.
    assert (await sandbox.run_python("print(6 * 7)")).stdout == "42\n"
    assert (await (await sandbox.open()).execute("print(6 * 7)")).stdout == "42\n"
    for session in sessions:
        await session.close()
    for _ in range(100):
        result = await sandbox.run(["sh", "-c", "echo $(echo free)"])
        if result.stdout == "free\n":
            break
        await asyncio.sleep(0.05)
    assert (result.status, result.stdout) == (RunStatus.OK, "free\n")
    await sandbox.close()


async def test_one_program_has_no_more_processes_than_its_limit_in_any_way_it_starts():
    sandbox = BubblewrapSandbox(BubblewrapSettings(preload=(), limits=LIMITS))
    session, other = await sandbox.open(), await sandbox.open()
    twin = await session.fork()
    command = [sys.executable, "-c", FORKS]
    for result in (
        await sandbox.run_python(FORKS),
        await sandbox.run_python(THREADS),
        await sandbox.run(command),
        await session.run(command),
        await other.execute(THREADS),
        await twin.execute(FORKS),
    ):
        # Each member of a family has a place for its interpreter beside what it is given.
        assert 0 < int(result.stdout) <= LIMITS.processes + 2, result
    await sandbox.close()


def test_root_whose_programs_the_kernel_would_not_count_is_refused():
    code = """
import asyncio
from agentrl.sandbox import BubblewrapSettings
from agentrl.sandbox.bubblewrap import BubblewrapSandbox
asyncio.run(BubblewrapSandbox(BubblewrapSettings(preload=())).run_python("print(1)"))
"""
    drop = ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    command = ["setpriv", *drop, sys.executable, "-c", code]
    if os.geteuid() != 0:
        pytest.skip("it is about root: sudo pytest")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "SetupError" in done.stderr and UNCOUNTED in done.stderr
    assert "another user" in done.stderr
