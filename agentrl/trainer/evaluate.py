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
from agentrl.recipe.schema import Recipe
from agentrl.rollout.seeds import derive
from agentrl.trainer.display import Display
from agentrl.trainer.statistics import Interval, mean_interval
from agentrl.trainer.summary import component, spent
from agentrl.workers.fleet import Job
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
    jobs = [
        Job(
            task=task,
            group_id=f"eval-{task.id}",
            seed=derive(recipe.seed, "eval", index),
            samples=recipe.eval.samples,
            temperature=recipe.eval.temperature,
        )
        for index, task in enumerate(tasks)
    ]
    started = time.monotonic()
    try:
        with display.bar("evaluating", len(jobs)) as bar:
            groups = await runtime.fleet.play(jobs, done=lambda _: bar.advance(bar.task_ids[0]))
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
                "scores": result.scores,
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
    played = {
        group.id: done
        for group in groups
        if (done := [t for t in group.trajectories() if not t.stop_reason.is_failure])
    }
    names = {
        name for done in played.values() for t in done for turn in t.turns for name in turn.rewards
    }
    scores = {
        name: mean_interval(
            [sum(component(t, name) for t in done) / len(done) for done in played.values()]
        )
        for name in [*sorted(names), "reward"]
    }
    out.mkdir(parents=True, exist_ok=True)
    return EvalResult(scores, len(played), len(groups) - len(played), out)
