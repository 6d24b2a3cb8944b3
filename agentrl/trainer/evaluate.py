"""`agentrl eval`: a policy on a recipe's evaluation tasks, without a learner."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from agentrl import store
from agentrl.core.errors import DataError
from agentrl.core.registry import make_env
from agentrl.core.types import Group
from agentrl.evals.statistics import Interval, mean_interval
from agentrl.recipe.schema import Recipe
from agentrl.trainer.display import Display
from agentrl.trainer.play import eval_jobs, play
from agentrl.trainer.summary import component_names, spent, task_scores
from agentrl.workers.runtime import open_runtime


class EvalResult(NamedTuple):
    """Every reward component with its interval, tasks that could not be played, and the folder."""

    scores: dict[str, Interval]
    tasks: int
    unplayed: int
    out: Path


def evaluate_recipe(
    recipe: Recipe, *, policy: str | None = None, out: Path | None = None
) -> EvalResult:
    """Evaluate `policy` (a folder or hub name; default the recipe's) on the recipe's split."""
    if policy is not None:
        recipe = recipe.model_copy(
            update={"policy": recipe.policy.model_copy(update={"model": policy})}
        )
    folder = out or Path("runs") / f"eval-{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return asyncio.run(_evaluate(recipe, folder, Display()))


async def _evaluate(recipe: Recipe, out: Path, display: Display) -> EvalResult:
    env = make_env(recipe.env.id, **recipe.env.args)
    tasks = env.tasks(recipe.eval.split)[: recipe.eval.tasks]
    await env.close()
    if not tasks:
        raise DataError(f"{recipe.env.id!r} has no tasks in split {recipe.eval.split!r}")
    model = recipe.policy.path
    with display.phase("starting the rollout workers"):
        runtime = await open_runtime(recipe, model=model, out=None)
    started = time.monotonic()
    try:
        groups = await play(runtime.fleet, eval_jobs(recipe, tasks), display, "evaluating")
    finally:
        await runtime.close()
    result = summarise(groups, out)
    for name, interval in result.scores.items():
        display.evaluation(name, interval, f"{result.tasks} tasks of split {recipe.eval.split!r}")
    if result.unplayed:
        display.line(f"[yellow]{result.unplayed} tasks could not be played and are not counted[/]")
    budget = spent(groups)
    reasons = Counter(str(t.stop_reason) for g in groups for t in g.trajectories())
    display.line(
        f"{budget.trajectories} episodes, {budget.generated_tokens} generated tokens, "
        f"{budget.tool_calls} tool calls in {time.monotonic() - started:.1f} s; "
        + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    )
    store.write(out / "trees.parquet", groups)
    (out / "result.json").write_text(
        json.dumps(
            {
                "recipe": recipe.name,
                "policy": recipe.policy.model,
                "tasks": result.tasks,
                "unplayed": result.unplayed,
                "scores": {name: one.plain() for name, one in result.scores.items()},
                "spent": {field: getattr(budget, field) for field in budget.__slots__},
                "stop_reasons": reasons,
            },
            indent=1,
        )
    )
    display.line(f"results and trajectories are in {out}")
    return result


def summarise(groups: list[Group], out: Path) -> EvalResult:
    """Scores by component, each task the mean of its samples; failures are shown, not scored."""
    everything = [t for group in groups for t in group.trajectories()]
    played_turns = (turn for t in everything if not t.stop_reason.is_failure for turn in t.turns)
    known = {
        name: [score for score in task_scores(groups, name) if score == score]
        for name in [*component_names(played_turns), "reward"]
    }
    scores = {name: mean_interval(values) for name, values in known.items()}
    played = len(known["reward"])
    out.mkdir(parents=True, exist_ok=True)
    return EvalResult(scores, played, len(groups) - played, out)
