"""Jobs of a recipe and their playing, for training and for both kinds of evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from agentrl.core.types import Group, Task
from agentrl.recipe.schema import Recipe
from agentrl.rollout.seeds import derive
from agentrl.trainer.display import Display
from agentrl.workers.fleet import Fleet, Job


def eval_jobs(recipe: Recipe, tasks: Sequence[Task]) -> list[Job]:
    """A job for each task as `recipe.eval` says; seeds hang on the recipe's seed and the order."""
    return [
        Job(
            task=task,
            group_id=f"eval-{task.id}",
            seed=derive(recipe.seed, "eval", index),
            samples=recipe.eval.samples,
            temperature=recipe.eval.temperature,
        )
        for index, task in enumerate(tasks)
    ]


async def play(fleet: Fleet, jobs: Sequence[Job], display: Display, what: str) -> list[Group]:
    """Play `jobs` under a progress bar named `what`; groups in the order of `jobs`."""
    with display.bar(what, len(jobs)) as bar:
        return await fleet.play(jobs, done=lambda _: bar.advance(bar.task_ids[0]))
