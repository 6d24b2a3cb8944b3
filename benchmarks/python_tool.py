"""The Python sandbox: time of a call, calls a second, live sessions and their forks.

    python benchmarks/python_tool.py [--calls 300] [--sessions 1000]

A stateless call runs `import numpy; print(1)` in namespaces and limits of its own; a live call runs
`x = 1` in a session. Floors beside them: a fresh `python -I` that imports NumPy or nothing, and a
plain `os.fork` of a process that has imported NumPy. Goals on 2 cores: at most 4 ms a call, at
least 350 calls/s, at most 0.15 ms a live call, 1,000 live sessions in at most 2.5 GB; 256 sessions
at work at once; no goal for the fork of a session with 100 MB of state.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from agentrl.sandbox import BubblewrapSettings, Limits, RunStatus
from agentrl.sandbox.bubblewrap import BubblewrapSandbox

PROGRAM = "import numpy; print(1)"


def floor(run: Callable[[], object], times: int) -> float:
    """Milliseconds of a call, the median."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return 1e3 * statistics.median(taken)


async def spread(run: Callable[[], Awaitable[object]], times: int) -> tuple[float, float, float]:
    """Milliseconds of a call: median, 90th and 99th of a hundred."""
    for _ in range(10):
        await run()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await run()
        taken.append(1e3 * (time.perf_counter() - started))
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49], cuts[89], cuts[98]


async def rate(run: Callable[[], Awaitable[object]], times: int, at_once: int) -> float:
    """Calls a second with `at_once` under way."""
    places = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with places:
            await run()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(times)))
    return times / (time.perf_counter() - started)


def fork_and_wait() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def below() -> dict[int, list[str]]:
    """What /proc says of every process that this one started, and they."""
    stats: dict[int, list[str]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{entry}/stat").read_text()
            stats[int(entry)] = text.rpartition(")")[2].split()
    found = {os.getpid()}
    while more := {pid for pid, stat in stats.items() if int(stat[1]) in found} - found:
        found |= more
    return {pid: stats[pid] for pid in found - {os.getpid()}}


def used_gb() -> float:
    """Memory of all processes below this one: shared pages by their share, and page tables."""
    kilobytes = 0
    for pid in below():
        with contextlib.suppress(OSError):
            for name, wanted in (("smaps_rollup", "Pss:"), ("status", "VmPTE:")):
                lines = Path(f"/proc/{pid}/{name}").read_text().splitlines()
                kilobytes += next(int(one.split()[1]) for one in lines if one.startswith(wanted))
    return 1024 * kilobytes / 1e9


def available_gb() -> float:
    """What the kernel says that programs of this machine could still get."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = next(int(one.split()[1]) for one in lines if one.startswith("MemAvailable:"))
    return 1024 * kilobytes / 1e9


def processor_seconds() -> float:
    """Of this process and all below it, those that have ended included."""
    ticks = sum(sum(map(int, stat[11:15])) for stat in below().values())
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


async def calls(sandbox: BubblewrapSandbox, times: int) -> None:
    async def stateless() -> None:
        result = await sandbox.run_python(PROGRAM)
        assert result.stdout == "1\n", result

    python = [sys.executable, "-I", "-c"]
    fresh = floor(lambda: subprocess.run([*python, "pass"], check=True), 10)
    heavy = floor(lambda: subprocess.run([*python, "import numpy"], check=True), 5)
    forked = floor(fork_and_wait, 100)
    middle, ninety, last = await spread(stateless, times)
    print(f"fresh interpreter        {fresh:8.2f} ms; with NumPy {heavy:.1f} ms")
    print(f"plain fork, NumPy warm   {forked:8.2f} ms")
    print(f"stateless call, isolated {middle:8.2f} ms, p90 {ninety:.2f}, p99 {last:.2f}; goal 4.00")
    for at_once in (2, 8, 32):
        before = processor_seconds()
        found = await rate(stateless, times, at_once)
        work = 1e3 * (processor_seconds() - before) / times
        print(
            f"  {at_once:3} at once            {found:8.0f} calls/s, {work:.2f} ms of processor "
            f"time a call; goal 350, so 5.71"
        )
    session = await sandbox.open()
    middle, ninety, last = await spread(lambda: session.execute("x = 1"), 10 * times)
    print(
        f"live call                {middle:8.3f} ms, p90 {ninety:.3f}, p99 {last:.3f}; goal 0.150"
    )
    await session.close()


async def forks(sandbox: BubblewrapSandbox) -> None:
    for megabytes in (0, 100):
        session = await sandbox.open()
        made = await session.execute(
            f"import numpy\nx = numpy.ones({megabytes} << 17)\n"
            "open('f', 'wb').write(bytes(1 << 20))"
        )
        assert made.status is RunStatus.OK, made
        taken = []
        for _ in range(10):
            started = time.perf_counter()
            twin = await session.fork()
            taken.append(1e3 * (time.perf_counter() - started))
            await twin.close()
        print(
            f"fork of a session        {statistics.median(taken):8.2f} ms, "
            f"{megabytes} MB of variables and 1 MB of files"
        )
        await session.close()


async def crowd(sandbox: BubblewrapSandbox, count: int) -> None:
    available = available_gb()
    started = time.perf_counter()
    sessions = [await sandbox.open() for _ in range(count)]
    opened = 1e3 * (time.perf_counter() - started) / count
    for number, session in enumerate(sessions):
        assert (await session.execute(f"x = {number}")).status is RunStatus.OK
    await asyncio.sleep(2.0)  # each family's first process looks after it once a second
    print(
        f"{count} live sessions      {used_gb():8.2f} GB, {opened:.2f} ms to open one; goal 2.50 GB"
    )
    gone = available - available_gb()
    print(f"  with the kernel's share{gone:8.2f} GB less on this machine, other work included")
    answers = await asyncio.gather(*(session.execute("print(x)") for session in sessions))
    assert [answer.stdout for answer in answers] == [f"{number}\n" for number in range(count)]
    idle = time.process_time()
    await asyncio.sleep(2.0)
    print(f"  idle                   {50 * (time.process_time() - idle):8.2f} % of a core here")
    await asyncio.gather(*(session.close() for session in sessions))


async def at_work(sandbox: BubblewrapSandbox, count: int) -> None:
    sessions = [await sandbox.open() for _ in range(count)]
    turns = 8
    code = "x = [i * i for i in range(2000)]; print(len(x))"

    async def play(number: int) -> float:
        slowest = 0.0
        for _ in range(turns):
            result = await sessions[number].execute(code)
            assert result.stdout == "2000\n", result
            slowest = max(slowest, result.seconds)
        return slowest

    started = time.perf_counter()
    slowest = await asyncio.gather(*(play(number) for number in range(count)))
    seconds = time.perf_counter() - started
    print(
        f"{count} sessions at work     {count * turns / seconds:8.0f} turns/s, slowest turn "
        f"{1e3 * max(slowest):.0f} ms"
    )
    await asyncio.gather(*(session.close() for session in sessions))


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--calls", type=int, default=300)
    arguments.add_argument("--sessions", type=int, default=1000)
    chosen = arguments.parse_args()
    assert np.ones(2).sum() == 2.0
    limits = Limits(wall_seconds=60.0, cpu_seconds=60.0, memory_mb=512)
    sandbox = BubblewrapSandbox(BubblewrapSettings(limits=limits, sessions=4096))
    try:
        await calls(sandbox, chosen.calls)
        await forks(sandbox)
        await at_work(sandbox, 256)
        await crowd(sandbox, chosen.sessions)
    finally:
        await sandbox.close()


if __name__ == "__main__":
    asyncio.run(main())
