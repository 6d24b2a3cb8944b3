"""Games, household and shop: steps per second, forks and resets, beside the bare transition.

    python benchmarks/games.py [--episodes 200]

Each environment plays its gold actions on training tasks, in one event loop and without a policy.
The floor is the state transition alone: no text is read or written, no key is made. Processor
time, the median of five rounds after one to warm up.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from agentrl.core.env import Env
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.envs.games.frozenlake_map import ACTIONS, Cell, moved
from agentrl.envs.games.sokoban_level import read_level
from agentrl.envs.household.commands import read_command
from agentrl.envs.household.tasks import from_data
from agentrl.envs.household.world import done
from agentrl.envs.webshop.pages import Page, follow, read_action
from agentrl.envs.webshop.shop import Sources, open_shop

ROUNDS = 5


class Played(NamedTuple):
    """A task with the commands of its gold actions, tags left out."""

    task: Task
    actions: list[str]
    commands: list[str]


def episodes(env: Env, amount: int) -> list[Played]:
    found = []
    for task in env.tasks("train")[:amount]:
        actions: list[str] = []
        while (action := env.gold_action(task, len(actions))) is not None:
            actions.append(action)
        commands = [one.partition(">")[2].rpartition("</")[0] for one in actions]
        found.append(Played(task, actions, commands))
    return found


def seconds(work: Callable[[], int]) -> float:
    """Processor seconds for each of the things that `work` says it did."""
    work()
    taken = []
    for _ in range(ROUNDS):
        started = time.process_time()
        count = work()
        taken.append((time.process_time() - started) / count)
    return statistics.median(taken)


def sokoban(played: list[Played]) -> int:
    for one in played:
        level = read_level(one.task.data["grid"])
        position = level.start
        for command in one.commands:
            position = level.move(position, command[0]).position
    return sum(len(one.commands) for one in played)


def frozenlake(played: list[Played]) -> int:
    for one in played:
        lake, cell = tuple(one.task.data["map"]), Cell(0, 0)
        for command in one.commands:
            cell = moved(lake, cell, ACTIONS.index(command))
    return sum(len(one.commands) for one in played)


def household(played: list[Played]) -> int:
    for one in played:
        now = from_data(one.task.id, one.task.data).household
        for command in one.commands:
            now = done(now, read_command(command)).household
    return sum(len(one.commands) for one in played)


def webshop(played: list[Played]) -> int:
    shop = open_shop(Sources(480))
    for one in played:
        page = Page()
        for command in one.commands:
            action = read_action(command)
            if action.verb == "search":
                page = Page("results", shop.search(action.text))
            else:
                page = follow(page, action.text, shop.products)
    return sum(len(one.commands) for one in played)


FLOORS = {
    "games/sokoban": sokoban,
    "games/frozenlake": frozenlake,
    "household/tasks": household,
    "webshop/tasks": webshop,
}


class Costs(NamedTuple):
    """Seconds of a step, a fork and a reset."""

    step: float
    fork: float
    reset: float


def costs(id_: str, played: list[Played]) -> Costs:
    env = make_env(id_)

    async def resets() -> int:
        for one in played:
            await env.reset(one.task, seed=0)
        return len(played)

    async def steps() -> int:
        count = 0
        for one in played:
            await env.reset(one.task, seed=0)
            for action in one.actions:
                await env.step(action)
                count += 1
        return count

    async def forks() -> int:
        for _ in range(1000):
            await env.fork()
        return 1000

    with asyncio.Runner() as runner:
        reset = seconds(lambda: runner.run(resets()))
        turns = sum(len(one.actions) for one in played) / len(played)
        step = seconds(lambda: runner.run(steps())) - reset / turns
        runner.run(env.reset(played[0].task, seed=0))
        fork = seconds(lambda: runner.run(forks()))
    return Costs(step, fork, reset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=200)
    amount = parser.parse_args().episodes
    print(f"{'':18}{'steps/s':>10}{'floor/s':>11}{'ratio':>7}{'fork µs':>9}{'reset ms':>10}")
    for id_, floor in FLOORS.items():
        played = episodes(make_env(id_), amount)
        bare = seconds(lambda floor=floor, played=played: floor(played))
        found = costs(id_, played)
        print(
            f"{id_:18}{1 / found.step:10,.0f}{1 / bare:11,.0f}{found.step / bare:7.1f}"
            f"{found.fork * 1e6:9.2f}{found.reset * 1e3:10.3f}"
        )


if __name__ == "__main__":
    main()
