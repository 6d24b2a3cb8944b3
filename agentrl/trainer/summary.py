"""What a set of groups amounts to: the numbers that an iteration or an evaluation reports."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agentrl.core.errors import FailureRateError
from agentrl.core.types import ROOT, Group, StopReason, Trajectory, Turn
from agentrl.recipe.schema import Recipe
from agentrl.rollout.segments import count_turns


@dataclass(frozen=True, slots=True)
class Budget:
    """What was spent: the unit in which samplers are compared."""

    trajectories: int = 0
    generated_tokens: int = 0
    prefilled_tokens: int = 0
    tool_calls: int = 0

    def __add__(self, other: Budget) -> Budget:
        return Budget(
            self.trajectories + other.trajectories,
            self.generated_tokens + other.generated_tokens,
            self.prefilled_tokens + other.prefilled_tokens,
            self.tool_calls + other.tool_calls,
        )


def spent(groups: Iterable[Group]) -> Budget:
    """Budget of `groups`; a shared turn counts once, as it was sampled once."""
    trajectories = generated = prefilled = calls = 0
    for group in groups:
        for tree in group.trees:
            trajectories += len(tree.leaves)
            for turn in tree.turns:
                generated += turn.generated_tokens
                prefilled += turn.prefilled_tokens
                calls += len(turn.tool_calls)
    return Budget(trajectories, generated, prefilled, calls)


def component(trajectory: Trajectory, name: str) -> float:
    """A trajectory's total of one reward component, or its return for `"reward"`."""
    if name == "reward":
        return trajectory.episode_return
    return float(sum(turn.rewards.get(name, 0.0) for turn in trajectory.turns))


def component_names(turns: Iterable[Turn]) -> list[str]:
    """Names of all reward components that some turn has, sorted."""
    return sorted({name for turn in turns for name in turn.rewards})


def attempt_scores(group: Group, name: str) -> list[float]:
    """One component of each trajectory of `group` that is no failure."""
    return [component(t, name) for t in group.trajectories() if not t.stop_reason.is_failure]


def task_scores(groups: Iterable[Group], name: str) -> list[float]:
    """Each group's mean of one component over its trajectories; NaN where all were failures."""
    return [_mean(attempt_scores(group, name)) for group in groups]


def turns_mean(groups: Iterable[Group]) -> float:
    """Mean number of turns of the trajectories that are no failures."""
    everything = (t for group in groups for t in group.trajectories())
    finished = [t for t in everything if not t.stop_reason.is_failure]
    return _mean([float(count_turns(t.turns)) for t in finished])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """`rollout/...` and `env/...` metrics of one iteration; failures stay out of the means."""
    everything = [t for group in groups for t in group.trajectories()]
    finished = [t for t in everything if not t.stop_reason.is_failure]
    turns = [turn for group in groups for tree in group.trees for turn in tree.turns]
    returns_by_group = [
        [t.episode_return for t in group.trajectories() if not t.stop_reason.is_failure]
        for group in groups
    ]
    failed = len(everything) - len(finished)
    # The failure that a line stayed broken from is among its tree's failures too.
    failures = sum(len(tree.failures) for group in groups for tree in group.trees)
    retried = max(0, failures - failed)
    budget = spent(groups)
    metrics = {
        "rollout/reward_mean": _mean([t.episode_return for t in finished]),
        "rollout/turns_mean": turns_mean(groups),
        "rollout/trajectories": float(len(finished)),
        "rollout/branches": float(sum(_branches(group) for group in groups)),
        "rollout/tied_groups_fraction": _mean(
            [float(len(r) < 2 or max(r) - min(r) <= 1e-9) for r in returns_by_group]
        ),
        "rollout/generated_tokens": float(budget.generated_tokens),
        "rollout/prefilled_tokens": float(budget.prefilled_tokens),
        "rollout/tool_calls": float(budget.tool_calls),
        "rollout/malformed_calls": float(sum(turn.malformed_calls for turn in turns)),
        "policy/entropy_mean": _mean(
            np.concatenate([t.entropies for t in turns]).tolist() if turns else []
        ),
        "env/failed_episodes": float(failed),
        "env/retried_episodes": float(retried),
        "env/error_rate": (failed + retried) / max(1, len(everything) + retried),
    }
    metrics |= {
        f"rollout/{name}_mean": _mean([component(t, name) for t in finished])
        for name in component_names(turns)
    }
    metrics |= _lengths(finished) | _env_times(turns) | _failures(groups)
    reasons = Counter(t.stop_reason for t in everything)
    return metrics | {f"stop/{reason}": float(reasons[reason]) for reason in StopReason}


def _lengths(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Median and 95th percentile of the generated tokens of a trajectory."""
    sizes = [sum(len(turn.action_ids) for turn in t.turns) for t in trajectories]
    return {f"rollout/trajectory_tokens_p{q}": _quantile(sizes, q) for q in (50, 95)}


def _env_times(turns: Sequence[Turn]) -> dict[str, float]:
    """Seconds of a turn in its environment, and of each tool in all of them.

    Of tools only calls that were run are named: other names are whatever the policy wrote.
    """
    # With a segment that goes on nothing has reached an environment.
    seconds = [turn.env_seconds for turn in turns if not turn.goes_on]
    tools: dict[str, float] = defaultdict(float)
    for turn in turns:
        for call in turn.tool_calls:
            if call.ok:
                tools[call.name] += call.seconds
    return {
        "env/seconds_p50": _quantile(seconds, 50),
        "env/seconds_p95": _quantile(seconds, 95),
        "env/seconds_max": max(seconds, default=float("nan")),
        **{f"tools/{name}_seconds": total for name, total in sorted(tools.items())},
    }


def _failures(groups: Iterable[Group]) -> dict[str, float]:
    """Infrastructure failures by type, those that were mended and those for good."""
    found: Counter[StopReason] = Counter()
    for group in groups:
        for tree in group.trees:
            noted = Counter(failure.stop_reason for failure in tree.failures)
            ended = Counter(r for r in tree.leaves.values() if r.is_failure)
            # A line that stayed broken is noted and ended both; one that was cancelled only ended.
            found += noted | ended
    kinds = [reason for reason in StopReason if reason.is_failure]
    return {f"failures/{reason}": float(found[reason]) for reason in kinds}


def _quantile(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(values, percent)) if len(values) else float("nan")


class SlowTask(NamedTuple):
    """A task, the seconds that its environments took, and the tool that took most ("": none)."""

    task_id: str
    seconds: float
    tool: str


def slowest_tasks(groups: Iterable[Group], count: int = 3) -> list[SlowTask]:
    """The `count` tasks whose environments took longest, the slowest first."""
    found = []
    for group in groups:
        seconds = 0.0
        tools: dict[str, float] = defaultdict(float)
        for tree in group.trees:
            for turn in tree.turns:
                seconds += turn.env_seconds
                for call in turn.tool_calls:
                    tools[call.name] += call.seconds
        tool = max(tools, key=lambda name: tools[name]) if tools else ""
        found.append(SlowTask(group.task_id, seconds, tool))
    return sorted(found, key=lambda one: (-one.seconds, one.task_id))[:count]


def _branches(group: Group) -> int:
    """Turns (or segments) that continue a node which another one already continued."""
    count = 0
    for tree in group.trees:
        children = Counter(parent for parent in tree.parents if parent != ROOT)
        count += sum(n - 1 for n in children.values())
        count += max(0, tree.parents.count(ROOT) - 1)
    return count


def failure_messages(groups: Iterable[Group]) -> Counter[str]:
    """How often each infrastructure failure occurred, by its message."""
    return Counter(
        f"{failure.stop_reason}: {failure.message}"
        for group in groups
        for tree in group.trees
        for failure in tree.failures
    )


def check_failures(recipe: Recipe, iteration: int, groups: Sequence[Group], rate: float) -> None:
    """Raise FailureRateError where the `rate` of failures of an iteration passes the limit."""
    limit = recipe.rollout.max_failure_rate
    if rate <= limit:
        return
    causes = failure_messages(groups).most_common(3)
    raise FailureRateError(
        f"{100 * rate:.0f} % of the episodes of iteration {iteration + 1} on "
        f"{recipe.env.id!r} failed, more than rollout.max_failure_rate = {limit}. "
        "Most frequent: " + "; ".join(f"{count} x {text}" for text, count in causes)
    )
