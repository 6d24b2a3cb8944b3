"""Docker sandbox: stateless runs, session calls and container starts, beside `docker run` by hand.

    python benchmarks/docker_sandbox.py [--image agentrl-test:latest] [--calls 200]

Needs a Docker daemon and an image with Python; `.ci/system` makes both. Prints milliseconds, the
median of each, and the ratio to what `docker run --rm` with the same limits takes for the same
program. Python's own start, by `docker exec` in a container that runs already, is the floor of
what any way that goes through the daemon for each call costs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable

from agentrl.sandbox import DockerSettings, Limits
from agentrl.sandbox.docker import DockerSandbox

PROGRAM = "print(6 * 7)"
HARDENED = [
    "--network",
    "none",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--pids-limit",
    "34",
    "--memory",
    "512m",
    "--cpus",
    "1",
    "--user",
    "65534:65534",
    "--tmpfs",
    "/tmp:size=64m",
    "--log-driver",
    "none",
]


async def median(call: Callable[[], Awaitable[object]], times: int) -> float:
    """Milliseconds of one call."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        await call()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


async def by_hand(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "docker", *argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    if out != b"42\n":
        raise SystemExit(f"docker {argv[0]} gave {out!r}")


async def measure(image: str, calls: int) -> None:
    run = ("run", "--rm", *HARDENED, image, "python3", "-c", PROGRAM)
    floor = await median(lambda: by_hand(*run), 5)
    show("docker run --rm by hand (the floor)", floor, floor)

    started = subprocess.run(
        ["docker", "run", "-d", "--rm", *HARDENED, image, "sleep", "600"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    try:
        inside = ("exec", started, "python3", "-c", PROGRAM)
        show("docker exec by hand", await median(lambda: by_hand(*inside), 10), floor)
    finally:
        subprocess.run(["docker", "kill", started], capture_output=True, check=True)

    settings = DockerSettings(image=image, pull="never", recycle=1_000_000)
    sandbox = DockerSandbox(settings)
    await sandbox.run_python(PROGRAM)
    show(
        "stateless run in a container that is used again",
        await median(lambda: sandbox.run_python(PROGRAM), calls),
        floor,
    )

    async def batch() -> None:
        await asyncio.gather(*(sandbox.run_python(PROGRAM) for _ in range(8)))

    await batch()
    show("the same, 8 at a time, each", await median(batch, calls // 8) / 8, floor)

    async def opened() -> None:
        await (await sandbox.open()).close()

    show("open and close a session", await median(opened, calls), floor)
    session = await sandbox.open()
    await session.execute("x = 20")
    show("call in a live session", await median(lambda: session.execute("x + 1"), calls), floor)
    shell = ["sh", "-c", "echo $((6 * 7))"]
    show("program in a session", await median(lambda: session.run(shell), calls), floor)
    await session.close()
    await sandbox.close()

    fresh = DockerSandbox(settings.model_copy(update={"recycle": 1}))
    await fresh.run_python(PROGRAM)
    show("start of a container and one run", await median(lambda: fresh.run_python("1"), 8), floor)
    await fresh.close()

    limited = Limits(wall_seconds=0.5)
    strict = DockerSandbox(settings)
    await strict.run_python("1")
    over = await median(lambda: strict.run_python("import time; time.sleep(60)", limits=limited), 3)
    await strict.close()
    print(f"{'a run that is ended after 500 ms, and its container replaced:':62}{over:8.1f} ms")


def show(what: str, milliseconds: float, floor: float) -> None:
    print(
        f"{what + ':':52}{milliseconds:10.2f} ms  {floor / milliseconds:8.1f} x the floor's speed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="agentrl-test:latest")
    parser.add_argument("--calls", type=int, default=200)
    chosen = parser.parse_args()
    asyncio.run(measure(chosen.image, chosen.calls))


if __name__ == "__main__":
    main()
