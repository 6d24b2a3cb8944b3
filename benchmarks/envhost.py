"""Environment sessions on one host process: steps a second, latency and memory, beside in process.

    python benchmarks/envhost.py [--sessions 1024 4096 10000] [--seconds 5]

Closed loop: `--at-once` requests are in flight at any time (all sessions by default), so the
latency of N requests in flight cannot be below N / throughput. Memory is what the host and the
client grow by, divided by the sessions, after every session was reset once. Goals
(PERFORMANCE.md): 10,000 sessions without a failure, 80,000 steps/s, p99 100 ms, 16 KB a session.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agentrl.adapters.envhost_pool import HostPool, HostSettings
from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.types import Message, Task

ACTION = "<search>the capital of the country where the Amazon ends</search>"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Answers(Env):
    """Answers at once with a short message: all that is measured is the way there and back."""

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """One message."""
        self._answer = (Message.of("tool", f"<result>{task.id} {seed}</result>"),)
        return self._answer

    async def step(self, action: str) -> StepResult:
        """The same message."""
        return StepResult(self._answer, 0.0, False, False, StepInfo())


class Row(NamedTuple):
    """One measurement."""

    where: str
    sessions: int
    at_once: int
    steps_per_second: float
    p50_ms: float
    p99_ms: float
    failures: int
    kb_per_session: float
    cpu_us_per_step: tuple[float, ...]


def cpu_seconds(pid: int) -> float:
    """Processor time that process `pid` has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> int:
    """Bytes of memory that process `pid` holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


async def play(envs: Sequence[Env], *, at_once: int, seconds: float) -> tuple[np.ndarray, int]:
    """Step `envs`, `at_once` at a time and each session in turn; latencies (s) and failures."""
    latencies: list[float] = []
    failures = 0
    clock = time.perf_counter
    end = clock() + seconds

    async def worker(mine: Sequence[Env]) -> None:
        nonlocal failures
        while True:
            for env in mine:
                start = clock()
                try:
                    await env.step(ACTION)
                except Exception as error:
                    failures += 1
                    print(error, file=sys.stderr)
                    return
                now = clock()
                latencies.append(now - start)
                if now > end:
                    return

    await asyncio.gather(*[worker(envs[index::at_once]) for index in range(at_once)])
    return np.asarray(latencies), failures


async def measure(
    where: str,
    envs: Sequence[Env],
    *,
    at_once: int,
    seconds: float,
    pids: Sequence[int],
    before: int,
) -> Row:
    """Reset all, then step; `before` is the memory of `pids` before the envs were made."""
    for start in range(0, len(envs), 1024):
        resets = [env.reset(Task("t", {}), seed=0) for env in envs[start : start + 1024]]
        await asyncio.gather(*resets)
    grown = (sum(resident(pid) for pid in pids) - before) / len(envs) / 1e3
    await play(envs, at_once=at_once, seconds=min(1.0, seconds))
    start = time.perf_counter()
    cpu = [cpu_seconds(pid) for pid in pids]
    latencies, failures = await play(envs, at_once=at_once, seconds=seconds)
    elapsed = time.perf_counter() - start
    used = [
        (cpu_seconds(pid) - one) / len(latencies) * 1e6 for pid, one in zip(pids, cpu, strict=True)
    ]
    p50, p99 = np.percentile(latencies, (50, 99)) * 1e3
    return Row(
        where,
        len(envs),
        at_once,
        len(latencies) / elapsed,
        float(p50),
        float(p99),
        failures,
        grown,
        tuple(used),
    )


def show(row: Row, base: Row | None) -> None:
    """One line of the table, with the ratio to the in-process baseline."""
    ratio = "" if base is None else f"  {row.steps_per_second / base.steps_per_second:.4f}x"
    cpu = " + ".join(f"{one:.1f}" for one in row.cpu_us_per_step)
    print(
        f"{row.where:<12}{row.sessions:>9}{row.at_once:>9}{row.steps_per_second:>12,.0f}"
        f"{row.p50_ms:>10.2f}{row.p99_ms:>10.2f}{row.failures:>10}{row.kb_per_session:>10.2f}{cpu:>14}{ratio}"
    )


async def run(options: argparse.Namespace) -> list[Row]:
    """All measurements of one run."""
    gc.set_threshold(50_000, 20, 100)
    rows = []
    for sessions in options.sessions:
        pids = [os.getpid()]
        before = sum(resident(pid) for pid in pids)
        envs: list[Env] = [Answers() for _ in range(sessions)]
        base = await measure(
            "in process",
            envs,
            at_once=sessions,
            seconds=options.seconds / 4,
            pids=pids,
            before=before,
        )
        show(base, None)
        rows.append(base)
        for at_once in sorted({min(sessions, one) for one in (*options.at_once, sessions)}):
            async with HostPool(HostSettings(hosts=1)) as pool:
                make = await pool.factory("envhost:Answers", {})
                pids = [os.getpid(), pool.hosts[0].pid]
                before = sum(resident(pid) for pid in pids)
                remote = [make() for _ in range(sessions)]
                row = await measure(
                    "one host",
                    remote,
                    at_once=at_once,
                    seconds=options.seconds,
                    pids=pids,
                    before=before,
                )
                show(row, base)
                rows.append(row)
                await asyncio.gather(*[env.close() for env in remote])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1024, 4096, 10_000])
    parser.add_argument("--at-once", type=int, nargs="*", default=[64, 1024, 4096])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {soft} of {hard} files")
    print(
        f"{'where':<12}{'sessions':>9}{'at once':>9}{'steps/s':>12}{'p50 ms':>10}{'p99 ms':>10}"
        f"{'failures':>10}{'KB each':>10}{'CPU µs a step':>14}  of in process"
    )
    rows = asyncio.run(run(options))
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1))


if __name__ == "__main__":
    main()
