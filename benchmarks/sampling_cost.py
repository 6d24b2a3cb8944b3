"""What a distinct trajectory costs: every sampler beside chains, the same policy, without training.

    python benchmarks/sampling_cost.py --tasks 128 [--engine vllm] [--recipe grpo_search]

Each sampler plays the same tasks with a budget of eight trajectories. For each: generated and
prefilled tokens (what the engine's prefix cache did not have) and tool calls per distinct
trajectory (two of a task are the same where every action is); and how many times as many
trajectories as chains it gives for a generated token and for a tool call.

`formula` is that factor as it should be: a tree costs one chain and, for each further line, what is
left of a chain after as many turns, task by task the mean of `--control` chains. So the root is
counted as a whole chain and every depth as it fell, which is what the 1 / 2 of
(1 + LN) / (1 + LN / 2) stands for; that one is printed for `tree`. `off` is how far the measured
factor is from it, with its standard error over tasks. Goals (PERFORMANCE.md): within 2 %, and for
ARPO at most 0.55 of the tool calls (1.82 times the trajectories). Samplers that choose by entropy
or return where they fork differ from the formula by that choice, and `tree_rl`, which forks within
turns, by the first halves of these.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agentrl.core.registry import make_env
from agentrl.core.types import ROOT, Group, Task, Trajectory, TrajectoryTree
from agentrl.recipe.load import load
from agentrl.recipe.models import resolve_model
from agentrl.recipe.schema import Recipe
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.rollout.seeds import derive
from agentrl.rollout.segments import whole_turns
from agentrl.samplers import (
    AepoSampler,
    AnySampler,
    ArpoReleasedSampler,
    ArpoSampler,
    At2poSampler,
    ChainSampler,
    MctsSampler,
    SpoSampler,
    TreeRlSampler,
    TreeSampler,
)
from agentrl.trainer.summary import spent
from agentrl.trainer.tasks import TaskOrder

SAMPLERS: tuple[AnySampler, ...] = (
    ChainSampler(trajectories=8),
    TreeSampler(trees=2, expansions=3),
    ArpoSampler(trajectories=8, initial=4),
    ArpoReleasedSampler(trajectories=8, initial=4),
    AepoSampler(trajectories=8),
    At2poSampler(initial=2, expansions=3),
    TreeRlSampler(trees=2, expansions=3, continuations=1),
    SpoSampler(widths=(2, 2, 2)),
    MctsSampler(simulations=8),
)


class Cost(NamedTuple):
    """Tokens that were generated and tool calls."""

    tokens: float
    calls: float


class Left:
    """Mean cost of what is left of a task's chains after so many turns."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._seen: dict[tuple[str, int], list[Cost]] = defaultdict(list)
        for group in groups:
            for one in group.trajectories():
                costs = [(turn.generated_tokens, len(turn.tool_calls)) for turn in one.turns]
                for depth in range(len(costs)):
                    tokens, calls = np.sum(costs[depth:], axis=0)
                    self._seen[group.task_id, depth].append(Cost(tokens, calls))
                    self._seen["", depth].append(Cost(tokens, calls))

    def after(self, task: str, depth: int) -> Cost:
        """Over the task's chains that have a turn number `depth`; over all tasks if none has."""
        found = self._seen[task, depth] or self._seen["", depth] or [Cost(0.0, 0.0)]
        return Cost(*np.mean(found, axis=0))

    def predicted(self, group: Group) -> Cost:
        """Cost of `group` if every line of a tree cost what is left of a chain where it starts."""
        lines = [self.after(group.task_id, depth) for tree in group.trees for depth in starts(tree)]
        return Cost(*np.sum(lines, axis=0)) if lines else Cost(0.0, 0.0)


class Row(NamedTuple):
    """One sampler: totals, and how many times the trajectories of chains it gives."""

    trajectories: int
    distinct: int
    generated: float  # per distinct trajectory, as are the next two
    prefilled: float
    calls: float
    gain: Cost
    formula: Cost
    off: Cost
    error: Cost


def row(groups: Sequence[Group], left: Left, chain: Cost) -> Row:
    """What `groups` cost beside chains that cost `chain` each."""
    total, count = spent(groups), distinct(groups)
    sums = np.array([(s.generated_tokens, s.tool_calls) for s in (spent([g]) for g in groups)])
    lines = np.array([left.predicted(group) for group in groups])
    paid, due = sums.sum(axis=0), lines.sum(axis=0)
    spread = (lines - sums * due / paid).std(axis=0, ddof=1) * np.sqrt(len(groups))
    scale = np.array(chain) * total.trajectories
    return Row(
        total.trajectories,
        count,
        total.generated_tokens / count,
        total.prefilled_tokens / count,
        total.tool_calls / count,
        Cost(*scale / paid),
        Cost(*scale / due),
        Cost(*due / paid - 1.0),
        Cost(*spread / paid),
    )


def starts(tree: TrajectoryTree) -> list[int]:
    """The number of turns that each line of `tree` shares with those before it."""
    depths, used = [], set()
    for node, parent in enumerate(tree.parents):
        if parent == ROOT or parent in used:
            depths.append(sum(not tree.turns[one].goes_on for one in tree.path(node)[:-1]))
        used.add(parent)
    return depths


def distinct(groups: Sequence[Group]) -> int:
    """Trajectories of a task that differ in some action, over all tasks."""
    return sum(len({_actions(one) for one in group.trajectories()}) for group in groups)


def _actions(trajectory: Trajectory) -> tuple[bytes, ...]:
    return tuple(turn.action_ids.tobytes() for turn in whole_turns(trajectory.turns))


async def play(recipe: Recipe, sampler: AnySampler, tasks: Sequence[Task]) -> list[Group]:
    """`tasks` by `sampler`, with an engine whose prefix cache is empty."""
    spec = HostSpec(
        env_id=recipe.env.id,
        env_args=recipe.env.args,
        engine=recipe.engine,
        model=resolve_model(recipe.policy.model),
        sampler=sampler,
        rollout=recipe.rollout,
    )
    host = RolloutHost(spec)
    await host.start()
    try:
        works = [
            host.sample_group(task, seed=derive(recipe.seed, "cost", index), group_id=str(index))
            for index, task in enumerate(tasks)
        ]
        return await asyncio.gather(*works)
    finally:
        await host.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recipe", default="grpo_search")
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm")
    parser.add_argument("--tasks", type=int, default=128)
    parser.add_argument("--control", type=int, default=32, help="chains of a task for the formula")
    parser.add_argument("--samplers", nargs="+", help="types; default: all")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    given = [] if options.engine == "vllm" else ["engine={type: transformers}"]
    recipe = load(options.recipe, given)
    env = make_env(recipe.env.id, **recipe.env.args)
    tasks = TaskOrder(env.tasks("train"), seed=recipe.seed).take(0, options.tasks)
    chosen = [
        one
        for one in SAMPLERS
        if one.type == "chain" or one.type in (options.samplers or [s.type for s in SAMPLERS])
    ]
    control = asyncio.run(play(recipe, ChainSampler(trajectories=options.control), tasks))
    total = spent(control)
    chain = Cost(total.generated_tokens / total.trajectories, total.tool_calls / total.trajectories)
    left = Left(control)
    rows: dict[str, dict[str, object]] = {}
    print("                 per distinct trajectory      times chains'   formula         off")
    print("sampler        distinct  gen. prefilled calls tokens calls   tokens calls   tokens")
    for sampler in chosen:
        found = row(asyncio.run(play(recipe, sampler, tasks)), left, chain)
        rows[sampler.type] = found._asdict()
        print(
            f"{sampler.type:14} {found.distinct:8,} {found.generated:5.1f} {found.prefilled:9.1f} "
            f"{found.calls:5.2f} {found.gain.tokens:5.2f}x {found.gain.calls:5.2f}x  "
            f"{found.formula.tokens:5.2f}x {found.formula.calls:5.2f}x  "
            f"{found.off.tokens:+6.1%} ± {found.error.tokens:.1%}"
        )
    tree = next((one for one in chosen if isinstance(one, TreeSampler)), None)
    if tree is not None:
        extra = tree.expansions * tree.rounds
        print(f"(1 + LN) / (1 + LN / 2) for tree: {(1 + extra) / (1 + extra / 2):.2f}x")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
