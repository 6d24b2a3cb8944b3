"""Rollout against the floors of PERFORMANCE.md: scheduler, token loop, stragglers, steps, memory.

Run `python benchmarks/rollout.py [row ...]`; without arguments all rows. Every row prints its
figure, the floor measured in the same run where there is one, and the goal.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from rollout_engines import HttpEngine, InstantEngine, serve

from agentrl.core.env import Env, Observation, StepInfo, StepResult
from agentrl.core.types import (
    Group,
    Int32,
    Message,
    Task,
    TrajectoryTree,
)
from agentrl.engine.base import Completion, Sampling
from agentrl.rollout.episode import LiveEpisode
from agentrl.rollout.render import Renderer, Tokenizer
from agentrl.rollout.settings import LimitsSettings, SamplingSettings
from agentrl.rollout.stage import Stage
from agentrl.samplers import ChainSampler
from agentrl.samplers.lines import play_to_end, turn_seed

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ACTION_TOKENS = 32
ROLLOUTS, TURNS = 256, 4


def tokenizer() -> Tokenizer:
    """A byte-level tokenizer with ChatML marks, built on the spot."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([PASSAGE], trainer)
    core.add_special_tokens([AddedToken(m, special=True) for m in ("<|im_start|>", "<|im_end|>")])
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    made.chat_template = TEMPLATE
    return made  # type: ignore[no-any-return]


PASSAGE = (
    "The river rises in the northern hills and reaches the sea after four hundred kilometres; "
    "its mouth was mapped in 1832. "
)


class TalkEnv(Env):
    """Answers every action with a passage; ends after `turns`."""

    forkable = "copy"

    def __init__(self, turns: int = TURNS) -> None:
        self.turns = turns
        self.turn = 0

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """The task's question."""
        self.turn = 0
        return (Message.of("user", f"Question {task.id}: where does the river rise?"),)

    async def step(self, action: str) -> StepResult:
        """A passage and, at the end, a reward."""
        self.turn += 1
        done = self.turn == self.turns
        return StepResult((Message.of("user", PASSAGE),), float(done), done, False, StepInfo())


class Kit(NamedTuple):
    """What the rows share."""

    renderer: Renderer
    action: Int32


def stage(kit: Kit, engine: InstantEngine, make_env: Callable[[], Env], slots: int) -> Stage:
    """A stage without limits that matter."""
    return Stage(
        make_env=make_env,
        engine=engine,
        renderer=kit.renderer,
        sampling=SamplingSettings(max_tokens_per_turn=4096),
        limits=LimitsSettings(max_turns=100_000, max_tokens=10**8),
        slots=asyncio.Semaphore(slots),
    )


async def play_all(one_stage: Stage, rollouts: int, group: int = 8) -> list[Group]:
    """`rollouts` chains in groups of `group`."""
    sampler = ChainSampler(trajectories=group)

    async def start(task: Task, seed: int) -> LiveEpisode:
        return await LiveEpisode.start(one_stage, task, seed=seed, group_id=task.id)

    async def one(index: int) -> Group:
        task = Task(str(index))
        return Group(task.id, task.id, tuple(await sampler.sample(task, start, seed=index)))

    return list(await asyncio.gather(*(one(index) for index in range(rollouts // group))))


class Cost(NamedTuple):
    """Seconds on the clock and of this process's CPU; they differ on a busy machine."""

    wall: float
    cpu: float

    def over(self, count: float) -> Cost:
        """The cost of one of `count`."""
        return Cost(self.wall / count, self.cpu / count)


def timed(work: Callable[[], Awaitable[object]], repeats: int = 5) -> Cost:
    """Medians of `repeats` runs after one that warms up."""

    async def run() -> Cost:
        await work()
        costs = []
        for _ in range(repeats):
            began, cpu = time.perf_counter(), time.process_time()
            await work()
            costs.append(Cost(time.perf_counter() - began, time.process_time() - cpu))
        return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))

    return asyncio.run(run())


def scheduler(kit: Kit) -> None:
    """256 rollouts of 4 turns against an engine that answers at once."""
    turns = ROLLOUTS * TURNS
    engine = InstantEngine(kit.action)
    for slots in (16, 256, 1024):
        taken = timed(lambda slots=slots: play_all(stage(kit, engine, TalkEnv, slots), ROLLOUTS))
        each = taken.over(turns / 1e3)
        show(f"scheduler, in process, {slots} at a time", each.wall, "ms/turn", 0.25, cpu=each.cpu)


def scheduler_http(kit: Kit) -> None:
    """The same over loopback HTTP to another process, beside bare requests."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, kit.action.tolist()), daemon=True
    )
    server.start()
    port = ours.recv()
    request = json.dumps({"prompt": [1] * 200, "max_tokens": 32, "seed": 1}).encode()

    async def bare(slots: int, count: int) -> None:
        engine = HttpEngine(kit.action, port)

        async def line() -> None:
            for _ in range(count // slots):
                await engine.ask(request)

        await asyncio.gather(*(line() for _ in range(slots)))
        for wire in engine.idle:
            assert wire.transport is not None
            wire.transport.close()

    costs = {}
    for slots in (16, 256, 1024):
        rollouts = max(ROLLOUTS, slots)

        async def work(slots: int = slots, rollouts: int = rollouts) -> None:
            engine = HttpEngine(kit.action, port)
            await play_all(stage(kit, engine, TalkEnv, slots), rollouts)
            for wire in engine.idle:
                assert wire.transport is not None
                wire.transport.close()

        turns = rollouts * TURNS
        floor = timed(lambda slots=slots, turns=turns: bare(slots, turns)).over(turns / 1e3)
        each = costs[slots] = timed(work).over(turns / 1e3)
        show(f"scheduler, HTTP, {slots} at a time", each.wall, "ms/turn", 0.25, cpu=each.cpu)
        print(f"    bare requests: {floor.wall:.3f} ms each, CPU {floor.cpu:.3f}")
    wall, cpu = costs[1024].wall / costs[16].wall, costs[1024].cpu / costs[16].cpu
    show("scheduler, HTTP, 1,024 against 16 at a time", wall, "times", 1.5, cpu=cpu)
    server.terminate()
    server.join()


def loop(kit: Kit) -> None:
    """The token-exact loop of 64 turns, on a short and on a long prompt."""

    class Long(TalkEnv):
        async def reset(self, task: Task, *, seed: int) -> Observation:
            self.turn = 0
            return (Message.of("user", PASSAGE * 1000),)

    engine = InstantEngine(kit.action)

    async def work(kind: type[TalkEnv]) -> None:
        one_stage = stage(kit, engine, lambda: kind(64), 1)
        episode = await LiveEpisode.start(one_stage, Task("t"), seed=0)
        turn = 0
        while completion := await episode.propose(seed=turn):
            turn += 1
            if await episode.play(completion) is not None:
                break
        await episode.close()

    for name, kind in (("short", TalkEnv), ("27,000-token", Long)):
        each = timed(partial(work, kind), repeats=25).over(64 / 1e6)
        show(f"token-exact loop, {name} prompt", each.wall, "us/turn", 200, cpu=each.cpu)


def _delay(seed: int) -> float:
    """Log-normal seconds: mean 0.2 before the cut at 5, sigma 1."""
    return min(float(np.random.default_rng(seed).lognormal(np.log(0.2) - 0.5, 1.0)), 5.0)


class LateEngine(InstantEngine):
    """Answers after the delay of the request's seed."""

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """The same completion, late."""
        assert sampling.seed is not None
        await asyncio.sleep(_delay(sampling.seed))
        return self.completion


def stragglers(kit: Kit) -> None:
    """256 rollouts of 4 turns with log-normal latency, beside the slowest rollout's own time."""
    delays = np.array(
        [
            [
                [_delay(turn_seed(group, (line,), turn)) for turn in range(TURNS)]
                for line in range(8)
            ]
            for group in range(ROLLOUTS // 8)
        ]
    )
    slowest = delays.sum(-1).max()
    lock_step = delays.reshape(-1, TURNS).max(0).sum()
    engine = LateEngine(kit.action)
    taken = timed(lambda: play_all(stage(kit, engine, TalkEnv, ROLLOUTS), ROLLOUTS), repeats=1).wall
    show("stragglers, against the slowest rollout", taken / slowest, "times", 1.03)
    print(f"    {taken:.2f} s; slowest rollout {slowest:.2f} s; in lock-step {lock_step:.2f} s")


def steps(kit: Kit) -> None:
    """Environment steps played and recorded with 4,096 environments, beside bare steps."""
    action = kit.action[-1:]
    engine = InstantEngine(action)
    count = 4096 * TURNS
    taken = timed(lambda: play_all(stage(kit, engine, TalkEnv, 4096), 4096), repeats=2)

    async def bare() -> None:
        for _ in range(4096):
            env = TalkEnv()
            await env.reset(Task("t"), seed=0)
            for _ in range(TURNS):
                await env.step("x")

    floor = timed(bare, repeats=2)
    rate, cpu = count / taken.wall, count / taken.cpu
    show("environment steps, recorded", rate, "steps/s", 1e6, least=True, cpu=cpu)
    print(f"    bare steps of the same environment: {count / floor.cpu:,.0f} per CPU second")


class FreshEngine(InstantEngine):
    """Arrays of its own for every completion, as a real engine returns them."""

    async def generate(self, prompt_ids: Sequence[int] | Int32, sampling: Sampling) -> Completion:
        """A copy of the completion."""
        one = self.completion
        return replace(
            one,
            token_ids=one.token_ids.copy(),
            logprobs=one.logprobs.copy(),
            entropies=one.entropies.copy(),
        )


def memory(kit: Kit) -> None:
    """Bytes per token of 256 trajectories: median 1,500 tokens, at most 16,384, half sampled."""
    passage = PASSAGE * 4
    each = 2 * len(kit.renderer.prompt_ids((Message.of("user", passage),)))
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.lognormal(np.log(1500), 1.0, ROLLOUTS), 16_384)
    engine = FreshEngine(np.resize(kit.action, each // 2))

    class Reads(TalkEnv):
        async def step(self, action: str) -> StepResult:
            return (await super().step(action))._replace(observation=(Message.of("user", passage),))

    async def play() -> list[TrajectoryTree]:
        trees = []
        for size in sizes:
            turns = max(round(float(size) / each), 1)
            one_stage = stage(kit, engine, partial(Reads, turns), 1)
            episode = await LiveEpisode.start(one_stage, Task("t"), seed=0)
            trees.append(await play_to_end(episode, seed=0, key=(0,)))
        return trees

    asyncio.run(play())
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    trees = asyncio.run(play())
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    tokens = sum(len(tree.context_ids(len(tree.turns) - 1)) for tree in trees)
    shown = [turn for tree in trees for turn in tree.turns]
    sampled = sum(len(turn.action_ids) for turn in shown) / tokens
    show("trajectory memory", used / tokens, "bytes/token", 10)
    print(f"    {len(shown)} turns, {tokens} tokens, {sampled:.0%} of them sampled")


def show(
    name: str,
    value: float,
    unit: str,
    goal: float,
    *,
    least: bool = False,
    cpu: float | None = None,
) -> None:
    """One line: figure, the same in CPU time, goal and whether the figure reaches it."""
    holds = value >= goal if least else value <= goal
    sign = ">=" if least else "<="
    busy = "" if cpu is None else f"CPU {cpu:,.3f}"
    verdict = "yes" if holds else "NO"
    print(f"{name:46s} {value:11,.3f} {unit:12s} {busy:16s} goal {sign} {goal:g}: {verdict}")


ROWS = {row.__name__: row for row in (scheduler, scheduler_http, loop, stragglers, steps, memory)}


def main() -> None:
    """Run the rows named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], default=[])
    made = tokenizer()
    ids = made.backend_tokenizer.encode(PASSAGE * 2, add_special_tokens=False).ids
    end = made.backend_tokenizer.encode("<|im_end|>", add_special_tokens=False).ids
    kit = Kit(Renderer(made), np.asarray(ids[: ACTION_TOKENS - 1] + end, np.int32))
    for name in parser.parse_args().rows or ROWS:
        ROWS[name](kit)


if __name__ == "__main__":
    main()
