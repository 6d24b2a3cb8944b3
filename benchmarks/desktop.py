"""Desktops: start, reset and step, what an observation costs, how many at once and their memory.

    python benchmarks/desktop.py [--at-once 4]

The floor is what a desktop cannot do without: bubblewrap, Xvfb and a window manager started by
hand. Goals: a desktop ready in under 1 s on a free machine, a screenshot and a tree in under 50 ms
each, under 100 MB of memory before its applications.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable

from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.desktop.confinement import DesktopSettings
from agentrl.envs.desktop.session import Desktop

OBSERVED = {
    "windows": ("windows",),
    "tree and windows": ("windows", "accessibility"),
    "screenshot": ("screenshot",),
    "all three": ("windows", "accessibility", "screenshot"),
}
TURNS = ('CLICK {"x": 700, "y": 400}', 'TYPING {"text": "7"}', 'MOVE_TO {"x": 640, "y": 300}')


async def median(repeats: int, act: Callable[[], Awaitable[object]]) -> float:
    """Seconds of `act`, the median."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        await act()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def floor() -> float:
    """Seconds until a bare display and its window manager stand, in a namespace of their own."""
    script = (
        "mkdir -p /tmp/.X11-unix; Xvfb :7 -screen 0 1280x720x24 -nolisten tcp >/dev/null 2>&1 & "
        "while ! [ -e /tmp/.X11-unix/X7 ]; do sleep 0.01; done; "
        "DISPLAY=:7 openbox >/dev/null 2>&1 & sleep 0.02; kill -9 -1"
    )
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        command = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--tmpfs", "/tmp"]
        command += ["--proc", "/proc", "--unshare-all", "--", "sh", "-c", script]
        subprocess.run(command, check=False)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


async def sessions() -> float:
    """Print what a desktop itself costs; returns the seconds of its start."""

    async def start_and_close() -> None:
        await (await Desktop.start(DesktopSettings())).close()

    start = await median(5, start_and_close)
    desktop = await Desktop.start(DesktopSettings())
    try:
        empty = (await desktop.request("ping"))["memory"] / 1e6
        await desktop.launch(["galculator"])
        while not await desktop.windows():
            await asyncio.sleep(0.02)
        await desktop.request("settle", quiet=0.2, limit=10.0)
        tree = await median(20, lambda: desktop.request("tree", max_nodes=1000))
        picture = await median(20, lambda: desktop.request("screenshot"))
        typed = await median(
            20, lambda: desktop.request("play", events=[["key", "1", True], ["key", "1", False]])
        )
        filled = (await desktop.request("ping"))["memory"] / 1e6
    finally:
        await desktop.close()
    show("start and end of a desktop", start * 1e3, "ms")
    show("accessibility tree of the calculator", tree * 1e3, "ms")
    show("screenshot, 1280x720, as PNG", picture * 1e3, "ms")
    show("a key", typed * 1e3, "ms")
    show("memory of a desktop, empty", empty, "MB")
    show("memory of a desktop, with the calculator", filled, "MB")
    return start


def task_of(name: str) -> Task:
    env = make_env("desktop/tasks")
    return next(one for one in (*env.tasks("train"), *env.tasks("eval")) if one.id == name)


async def episodes() -> None:
    """Print the times of reset by application, and of a step by what is observed."""
    for name in ("calc-product", "pad-append", "files-rename", "term-count", "web-form"):
        env = make_env("desktop/tasks")
        task = task_of(name)
        try:
            seconds = await median(3, lambda env=env, task=task: env.reset(task, seed=0))
        finally:
            await env.close()
        show(f"reset of {name}", seconds * 1e3, "ms")
    for name, views in OBSERVED.items():
        env = make_env("desktop/tasks", observe=views, max_turns=100)
        try:
            await env.reset(task_of("calc-product"), seed=0)
            turns = iter(TURNS * 4)
            seconds = await median(12, lambda env=env, turns=turns: env.step(next(turns)))
        finally:
            await env.close()
        show(f"step, observing {name}", seconds * 1e3, "ms")


async def many(count: int) -> None:
    """Print how fast `count` desktops at once play short episodes."""
    env = make_env("desktop/tasks")
    tasks = [one for one in env.tasks("train") if not one.id.startswith("web")]

    async def play(task: Task) -> float:
        env = make_env("desktop/tasks", desktops=count)
        try:
            seen = [(await env.reset(task, seed=0))[0].text]
            while True:
                action = env.expert_action(task, seen)
                assert action is not None
                result = await env.step(action)
                if result.terminated or result.truncated:
                    return result.reward
                seen.append("\n".join(one.text for one in result.observation))
        finally:
            await env.close()

    room = asyncio.Semaphore(count)

    async def played(task: Task) -> float:
        async with room:
            return await play(task)

    started = time.perf_counter()
    rewards = await asyncio.gather(*map(played, tasks))
    rate = 60 * len(tasks) / (time.perf_counter() - started)
    show(f"scripted episodes, {count} at once", rate, "per minute")
    print(f"solved: {sum(rewards):g} of {len(tasks)}")


def show(what: str, value: float, unit: str) -> None:
    print(f"{what + ':':44}{value:9.0f} {unit}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at-once", type=int, default=4)
    chosen = parser.parse_args()
    bare = floor()
    show("floor: bare display and window manager", bare * 1e3, "ms")
    start = await sessions()
    print(f"ratio of a desktop's start to the floor: {start / bare:.2f}")
    await episodes()
    for count in sorted({1, chosen.at_once}):
        await many(count)


if __name__ == "__main__":
    asyncio.run(main())
