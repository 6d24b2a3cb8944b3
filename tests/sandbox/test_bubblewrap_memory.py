"""What a live session costs in memory, and what its fork of the warm interpreter must not lose."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from process_tree import descendants

from agentrl.sandbox import BubblewrapSettings
from agentrl.sandbox.bubblewrap import BubblewrapSandbox

without_bubblewrap = pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="apt-get install bubblewrap"
)
HOOKS = """
import os
from agentrl.sandbox.guest import forking

said = []
real = os.register_at_fork
with forking.noted():
    os.register_at_fork(before=lambda: said.append("before 1"))
    os.register_at_fork(
        before=lambda: said.append("before 2"),
        after_in_parent=lambda: said.append("parent"),
        after_in_child=lambda: said.append("child 1"),
    )
    os.register_at_fork(after_in_child=lambda: 1 / 0)
    os.register_at_fork(after_in_child=lambda: said.append("child 2"))
assert os.register_at_fork is real
if forking.fork() == 0:
    print(*said, sep=", ", flush=True)
    os._exit(0)
os.wait()
print(*said, sep=", ")
"""
THREADS = """
import os, threading
from agentrl.sandbox.guest import forking

wait = threading.Event()
with forking.noted():
    threading.Thread(target=wait.wait, daemon=True).start()
if forking.fork() == 0:
    print(threading.active_count(), flush=True)
    os._exit(0)
os.wait()
print(threading.active_count())
"""


def shown(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def megabytes() -> float:
    """Memory of all of them: pages that no file holds, shared ones by their share; page tables."""
    kilobytes = 0
    for pid in descendants(os.getpid()):
        try:
            texts = [Path(f"/proc/{pid}/{name}").read_text() for name in ("smaps_rollup", "status")]
        except OSError:  # it ended meanwhile, and takes nothing
            continue
        for text, wanted in zip(texts, ("Pss_Anon:", "VmPTE:"), strict=True):
            lines = text.splitlines()
            kilobytes += next(int(one.split()[1]) for one in lines if one.startswith(wanted))
    return 1024 * kilobytes / 1e6


def test_what_modules_ask_for_around_a_fork_is_done_in_pythons_order_whatever_fails():
    child, parent = shown(HOOKS)
    assert child == "before 2, before 1, child 1, child 2"
    assert parent == "before 2, before 1, parent"


def test_a_fork_of_several_threads_leaves_one_that_python_knows_of():
    assert shown(THREADS) == ["1", "2"]


@pytest.mark.bubblewrap
@without_bubblewrap
async def test_every_program_and_session_draws_random_numbers_of_its_own():
    sandbox = BubblewrapSandbox(BubblewrapSettings(preload=("random",)))
    code = "import random; print(random.random())"
    drawn = [(await sandbox.run_python(code)).stdout for _ in range(2)]
    drawn += [(await (await sandbox.open()).execute(code)).stdout for _ in range(2)]
    await sandbox.close()
    assert len(set(drawn)) == 4 and all(0.0 <= float(one) < 1.0 for one in drawn)


@pytest.mark.slow
@pytest.mark.bubblewrap
@without_bubblewrap
async def test_a_live_session_takes_less_than_2_5_mb():
    sandbox = BubblewrapSandbox(BubblewrapSettings())
    sessions, used = [], []
    for _ in range(2):
        for _ in range(16):
            session = await sandbox.open()
            sessions.append(session)
            assert (await session.execute(f"x = {len(sessions)}")).stdout == ""
        await asyncio.sleep(1.5)  # each family's first process looks after it once a second
        used.append(megabytes())
    assert used[1] - used[0] < 16 * 2.5
    answers = [(await session.execute("x")).stdout for session in sessions]
    assert answers == [f"{number}\n" for number in range(1, 33)]
    await sandbox.close()
