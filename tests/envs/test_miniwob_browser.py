"""The pool of pages: what dies takes only its own episodes along, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentrl.core.errors import EnvError
from agentrl.core.types import Task
from agentrl.envs.miniwob import MiniWobEnv
from agentrl.envs.miniwob.browser import PROGRAMS, BrowserPool, shared_pool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        not any(map(shutil.which, PROGRAMS)), reason="no Chromium: apt-get install chromium"
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("miniwob") is None, reason='pip install "agentrl[miniwob]"'
    ),
]

CLICK = Task("click-test/0", {"page": "click-test", "seed": 0})

WORKER = """
import asyncio
from agentrl.core.types import Task
from agentrl.envs.miniwob import MiniWobEnv

async def main():
    env = MiniWobEnv()
    await env.reset(Task("t", {"page": "click-test", "seed": 0}), seed=0)
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def processes(pool: BrowserPool) -> dict[str, list[int]]:
    async def ask() -> dict[str, list[int]]:
        return await (await pool.browser()).process_ids()

    return await pool.run(ask(), seconds=30)


async def renderer(env: MiniWobEnv) -> int:
    """The process id of the episode's page."""
    pool = shared_pool(env.browser)
    before = set((await processes(pool))["renderer"])
    # The one whose memory grows is the page's: nothing else tells which process is whose.
    grow = "() => { window.kept = new Uint8Array(96 << 20).fill(1) }"
    sizes = {pid: resident(pid) for pid in before}
    await pool.run(env._session._page.evaluate(grow), seconds=20)
    return max(before, key=lambda pid: resident(pid) - sizes[pid])


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def descendants(root: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


async def test_a_page_that_crashes_ends_its_own_episode_only():
    settings = {"deadline_seconds": 20.0, "max_pages": 3}
    one, other = MiniWobEnv(**settings), MiniWobEnv(**settings)
    await one.reset(CLICK, seed=0)
    await other.reset(CLICK, seed=0)
    os.kill(await renderer(one), signal.SIGKILL)
    with pytest.raises(EnvError):
        await one.step("wait()")
    with pytest.raises(EnvError, match="before reset or after the end"):
        await one.step("wait()")
    assert (await other.step("click(1)")).reward == 1.0
    await one.reset(CLICK, seed=0)
    assert (await one.step("click(1)")).reward == 1.0
    await one.close()
    await other.close()


@pytest.mark.parametrize("victim", ["browser", "driver"])
async def test_a_browser_that_dies_is_replaced_by_the_next_reset(victim):
    settings = {"deadline_seconds": 20.0, "max_pages": 4}
    one, other = MiniWobEnv(**settings), MiniWobEnv(**settings)
    await one.reset(CLICK, seed=0)
    await other.reset(CLICK, seed=0)
    pool = shared_pool(one.browser)
    (browser,) = (await processes(pool))["browser"]
    os.kill(browser if victim == "browser" else parent(browser), signal.SIGKILL)
    for env in (one, other):
        with pytest.raises(EnvError, match="the browser"):
            await env.step("wait()")
    await one.reset(CLICK, seed=0)
    assert (await processes(pool))["browser"] != [browser]
    assert (await one.step("click(1)")).reward == 1.0
    await one.close()
    await other.close()


async def test_pages_are_bounded_and_a_wait_that_is_too_long_says_so():
    one, patient = MiniWobEnv(max_pages=1), MiniWobEnv(max_pages=1)
    hasty = MiniWobEnv(max_pages=1, deadline_seconds=0.5)
    await one.reset(CLICK, seed=0)
    with pytest.raises(EnvError, match=r"all 1 pages were in use for 0\.5 s: raise max_pages"):
        await hasty.reset(CLICK, seed=0)
    waiting = asyncio.create_task(patient.reset(CLICK, seed=0))
    await asyncio.sleep(0.2)
    await one.close()
    assert await waiting
    await patient.close()


async def test_an_env_that_nobody_closes_and_a_step_that_is_cancelled_give_their_pages_back():
    settings = {"deadline_seconds": 20.0, "max_pages": 1}
    forgotten = MiniWobEnv(**settings)
    await forgotten.reset(CLICK, seed=0)
    del forgotten
    gc.collect()
    env = MiniWobEnv(**settings)
    await env.reset(CLICK, seed=0)
    step = asyncio.create_task(env.step('type("' + "a" * 400 + '")'))
    await asyncio.sleep(0.05)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    await env.reset(CLICK, seed=0)
    assert (await env.step("click(1)")).reward == 1.0
    await env.close()


async def test_a_worn_browser_is_replaced_when_no_episode_uses_it():
    for wear in ({"browser_episodes": 2}, {"browser_memory_mb": 1}):
        env = MiniWobEnv(max_pages=2, **wear)
        pool, seen = shared_pool(env.browser), set()
        for _ in range(4 if "browser_episodes" in wear else 17):
            await env.reset(CLICK, seed=0)
            seen.update((await processes(pool))["browser"])
            await env.close()
        assert len(seen) == 2, wear
        for _ in range(100):
            if sum(map(alive, seen)) <= 1:
                break
            await asyncio.sleep(0.1)
        assert sum(map(alive, seen)) <= 1
        # Both are gone once the pool is closed, which an exit of the process does.
        await asyncio.to_thread(pool.close)
        assert not any(map(alive, seen))


async def test_many_episodes_share_one_browser():
    envs = [MiniWobEnv(max_pages=6) for _ in range(6)]
    await asyncio.gather(*(env.reset(CLICK, seed=0) for env in envs))
    found = await processes(shared_pool(envs[0].browser))
    assert len(found["browser"]) == 1
    results = await asyncio.gather(*(env.step("click(1)") for env in envs))
    assert [result.reward for result in results] == [1.0] * 6
    await asyncio.gather(*(env.close() for env in envs))


def test_envs_of_several_event_loops_share_a_browser():
    async def play() -> float:
        env = MiniWobEnv(max_pages=6)
        await env.reset(CLICK, seed=0)
        result = await env.step("click(1)")
        await env.close()
        return result.reward

    assert [asyncio.run(play()) for _ in range(2)] == [1.0, 1.0]


@pytest.mark.parametrize("driver_too", [False, True])
def test_nothing_is_left_of_a_worker_that_is_killed(driver_too):
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE)
    assert worker.stdout is not None and worker.stdout.readline() == b"up\n"
    children = descendants(worker.pid)
    drivers = [
        pid
        for pid in children
        if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"/node")
    ]
    assert len(drivers) == 1 and len(children) >= 4
    if driver_too:
        os.kill(drivers[0], signal.SIGKILL)
    worker.kill()
    worker.wait()
    until = time.monotonic() + 10
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in children if alive(pid)]
