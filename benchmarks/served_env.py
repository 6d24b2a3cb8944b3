"""An environment behind `agentrl serve env`: calls a second and latency, beside one in process.

    python benchmarks/served_env.py [--sessions 64 1024] [--seconds 3] [--workers 1]

Closed loop: every session has one call in flight. The environment answers at once, so that all
that is measured is the way there and back (JSON, WebSocket, two processes). The floor is the same
environment in this process; beside it stands the environment host over a Unix socket
(`rollout.env_hosts`), which is what one machine uses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from envhost import ACTION, Answers

from agentrl.adapters.envhost_pool import HostPool
from agentrl.core.env import Env
from agentrl.core.registry import make_env
from agentrl.core.types import Task

ENV_ID = "envhost:Answers"


class Row(NamedTuple):
    """One measurement."""

    where: str
    sessions: int
    calls_per_second: float
    p50_ms: float
    p99_ms: float


async def measure(where: str, envs: Sequence[Env], *, seconds: float) -> Row:
    """Step all `envs` side by side."""
    latencies: list[float] = []
    clock = time.perf_counter

    async def play(env: Env, end: float) -> None:
        while clock() < end:
            started = clock()
            await env.step(ACTION)
            latencies.append(clock() - started)
            # An env in process answers without a turn of the loop: let the others have theirs.
            if where == "in process":
                await asyncio.sleep(0)

    await asyncio.gather(*(env.reset(Task(f"t{n}"), seed=n) for n, env in enumerate(envs)))
    started = clock()
    await asyncio.gather(*(play(env, started + seconds) for env in envs))
    taken = clock() - started
    await asyncio.gather(*(env.close() for env in envs))
    p50, p99 = np.percentile(np.array(latencies), [50, 99]) * 1000
    return Row(where, len(envs), len(latencies) / taken, float(p50), float(p99))


@contextlib.asynccontextmanager
async def served(workers: int) -> AsyncIterator[str]:
    """The address of a server in another process."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        (
            *(sys.executable, "-m", "agentrl", "serve", "env", ENV_ID, "--port", "0"),
            *("--workers", str(workers)),
        ),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"at (http://[\d.:]+):", said)
        if not found:
            raise SystemExit(f"the server did not start: {said}{process.stderr.read()}")
        await asyncio.sleep(2.0 * workers)
        yield found[1]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def run(sizes: Sequence[int], seconds: float, workers: int) -> list[Row]:
    """All measurements."""
    rows: list[Row] = []
    async with HostPool() as pool, served(workers) as url:
        factory = await pool.factory(ENV_ID, {})
        for size in sizes:
            made = {
                "in process": [Answers() for _ in range(size)],
                "Unix socket": [factory() for _ in range(size)],
                "HTTP": [make_env(f"remote:{url}") for _ in range(size)],
            }
            for where, envs in made.items():
                rows.append(await measure(where, envs, seconds=seconds))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    rows = asyncio.run(run(options.sessions, options.seconds, options.workers))
    print(
        f"{'where':<12} {'sessions':>8} {'calls/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'of floor':>9}"
    )
    floor = 1.0
    for row in rows:
        floor = row.calls_per_second if row.where == "in process" else floor
        share = row.calls_per_second / floor
        print(
            f"{row.where:<12} {row.sessions:>8} {row.calls_per_second:>9,.0f} {row.p50_ms:>8.2f} "
            f"{row.p99_ms:>8.2f} {share:>8.3f}"
        )


if __name__ == "__main__":
    main()
