"""MiniWoB++: episodes per minute, and what resets and steps cost, beside upstream's own way.

    python benchmarks/miniwob.py [--seconds 8] [--sweep SEEDS]

Episodes are the experts' on twenty pages of several turns, one after the other and several at a
time. The floor is the least that a browser can do: the page loaded and started by Playwright
without any of ours. Upstream's way is its Gymnasium environment over Selenium (`miniwob` with
chromedriver), where that is installed: click-test, a random press in each step. `--sweep` plays
every page's expert on that many seeds instead, and its spoiled form, through the rollout host.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from agentrl.core.types import Task
from agentrl.envs.miniwob import MiniWobEnv
from agentrl.envs.miniwob.browser import BrowserSettings, shared_pool
from agentrl.envs.miniwob.env import ObservationKind

PAGES = (
    *("click-button-sequence", "click-checkboxes-soft", "click-checkboxes-large"),
    *("click-collapsible-2-nodelay", "click-tab-2-hard", "click-menu", "navigate-tree"),
    *("login-user-popup", "enter-password", "use-autocomplete-nodelay", "use-spinner"),
    *("search-engine", "email-inbox-forward-nl-turk", "email-inbox-reply", "read-table-2"),
    *("multi-layouts", "multi-orderings", "form-sequence-3", "guess-number", "copy-paste-2"),
)

# This file's folder comes first on the path, where its name would hide the package's.
sys.path[:] = [one for one in sys.path if Path(one).resolve() != Path(__file__).resolve().parent]


class Timing(NamedTuple):
    """Milliseconds of each reset and step, and how many episodes earned all of it."""

    resets: list[float]
    steps: list[float]
    solved: int
    episodes: int


async def play(env: MiniWobEnv, tasks: Sequence[Task], until: float, timing: Timing) -> Timing:
    """Episodes of `tasks`, round and round until the time is over."""
    resets, steps, solved, episodes = timing
    while time.perf_counter() < until:
        task = tasks[episodes % len(tasks)]
        started = time.perf_counter()
        seen = ["".join(one.text for one in await env.reset(task, seed=0))]
        resets.append(1000 * (time.perf_counter() - started))
        while True:
            action = env.expert_action(task, seen) or "wait()"
            started = time.perf_counter()
            result = await env.step(action)
            steps.append(1000 * (time.perf_counter() - started))
            if result.terminated or result.truncated:
                break
            seen.append("".join(one.text for one in result.observation))
        solved, episodes = solved + int(result.reward == 1.0), episodes + 1
    return Timing(resets, steps, solved, episodes)


async def measure(kind: ObservationKind, seconds: float, at_once: int) -> float:
    """Episodes per minute."""
    envs = [MiniWobEnv(pages=PAGES, observation=kind) for _ in range(at_once)]
    # The experts read text, which costs a picture's observer nothing worth telling.
    tasks = [envs[0].tasks("eval")[n::at_once] for n in range(at_once)]
    await play(envs[0], tasks[0][:1], time.perf_counter() + 0.01, Timing([], [], 0, 0))
    started = time.perf_counter()
    parts = await asyncio.gather(
        *(
            play(env, some, started + seconds, Timing([], [], 0, 0))
            for env, some in zip(envs, tasks, strict=True)
        )
    )
    rate = 60 * sum(one.episodes for one in parts) / (time.perf_counter() - started)
    resets = statistics.median([ms for one in parts for ms in one.resets])
    steps = statistics.median([ms for one in parts for ms in one.steps])
    solved = sum(one.solved for one in parts) / sum(one.episodes for one in parts)
    print(
        f"{kind + ', ' + str(at_once) + ' at a time:':26}{rate:7,.0f} episodes/min"
        f"{resets:8.0f} ms a reset{steps:7.0f} ms a step   {solved:.0%} solved"
    )
    for env in envs:
        await env.close()
    return rate


async def floor() -> float:
    """Milliseconds to load and start a page, by Playwright alone."""
    from agentrl.envs.miniwob.env import _address

    pool = shared_pool(BrowserSettings())

    async def load() -> list[float]:
        slot = await pool.lease(seconds=10)
        taken = []
        for seed in range(20):
            slot.address = _address(PAGES[seed % len(PAGES)])
            started = time.perf_counter()
            await slot.page.goto(slot.address)
            await slot.page.evaluate("s => { Math.seedrandom(s); core.startEpisodeReal() }", seed)
            taken.append(1000 * (time.perf_counter() - started))
        await pool.release(slot, healthy=True)
        return taken

    return statistics.median(await pool.run(load(), seconds=60))


def upstream(seconds: float) -> None:
    """Resets and steps of upstream's own environment."""
    driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or browser is None:
        print("upstream: no chromedriver here (apt-get install chromium-driver)")
        return
    os.environ |= {"MINIWOB_CHROME_BINARY": browser, "MINIWOB_CHROMEDRIVER": driver}
    import gymnasium
    import miniwob
    from miniwob.action import ActionTypes

    gymnasium.register_envs(miniwob)
    env = gymnasium.make("miniwob/click-test-v1")
    resets: list[float] = []
    steps: list[float] = []
    env.reset(seed=0)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        seen, _ = env.reset(seed=len(resets))
        resets.append(1000 * (time.perf_counter() - started))
        ref = next(one["ref"] for one in seen["dom_elements"] if one["tag"] == "button")
        action = env.unwrapped.create_action(ActionTypes.CLICK_ELEMENT, ref=ref)
        started = time.perf_counter()
        env.step(action)
        steps.append(1000 * (time.perf_counter() - started))
    env.close()
    print(
        f"upstream over Selenium:   {60 * len(resets) / seconds:7,.0f} episodes/min (of one click)"
        f"{statistics.median(resets):8.0f} ms a reset{statistics.median(steps):7.0f} ms a step"
    )


async def sweep(seeds: int) -> None:
    """Every page's expert and its spoiled form on `seeds` seeds, through the rollout host."""
    from agentrl.models.tiny import build_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        build_tokenizer(["click(1)"]).save_pretrained(folder)
        for script, wanted in (("oracle", 1.0), ("spoiled_oracle", 0.0)):
            returns: dict[str, float | str] = {}
            for seed in range(seeds):
                tasks = [one for one in MiniWobEnv().tasks("eval") if one.data["seed"] == seed]
                returns |= await through_host(tasks, folder, script)
            wrong = {id_: value for id_, value in returns.items() if value != wanted}
            print(f"{script}: {len(returns) - len(wrong)} of {len(returns)} earn {wanted:g}", wrong)


async def through_host(tasks: Sequence[Task], model: str, script: str) -> dict[str, float | str]:
    """What each task's episode earned, or why it failed."""
    from agentrl.engine.settings import ScriptedSettings
    from agentrl.rollout.host import HostSpec, RolloutHost
    from agentrl.rollout.settings import LimitsSettings, RolloutSettings, SamplingSettings
    from agentrl.samplers import ChainSampler

    spec = HostSpec(
        env_id="miniwob/tasks",
        engine=ScriptedSettings(script=script),
        model=model,
        sampler=ChainSampler(trajectories=1),
        rollout=RolloutSettings(
            sampling=SamplingSettings(max_tokens_per_turn=2048),
            limits=LimitsSettings(max_turns=20, max_tokens=1_000_000),
        ),
    )
    host, gate = RolloutHost(spec), asyncio.Semaphore(6)
    await host.start()

    async def one(task: Task) -> float | str:
        async with gate:
            group = await host.sample_group(task, seed=0)
        if played := group.trajectories():
            return played[0].episode_return
        return "; ".join(failure.message for tree in group.trees for failure in tree.failures)

    try:
        returns = await asyncio.gather(*map(one, tasks))
    finally:
        await host.close()
    return {task.id: value for task, value in zip(tasks, returns, strict=True)}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--sweep", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.sweep:
        await sweep(chosen.sweep)
        return
    least = await floor()
    print(f"floor, a page loaded and started:             {least:8.0f} ms")
    alone = await measure("dom", chosen.seconds, 1)
    several = await measure("dom", chosen.seconds, 4)
    print(f"four at a time: {several / alone:.2f} times as many episodes as one")
    await measure("both", chosen.seconds, 1)
    upstream(chosen.seconds)


if __name__ == "__main__":
    asyncio.run(main())
