"""What of a suite or a recipe is played: the plan of it, and its tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentrl.core.env import Env
from agentrl.core.errors import DataError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Task
from agentrl.evals.plan import PlannedSuite
from agentrl.evals.samples import Key
from agentrl.evals.suite import Suite
from agentrl.recipe.schema import Recipe

_SHOWN = 5


def plan_suite(
    suite: Suite, *, data: Path | None = None, tasks: int | None = None, samples: int | None = None
) -> PlannedSuite:
    """`suite` as it will be played: the first `tasks` of its tasks, `samples` times each.

    Rows come from the folder `data`, or else from the hub. None is the suite's own custom.

    Raises:
        DataError: the rows are not in `data`, or are on no hub and no folder was given.
    """
    return PlannedSuite(
        name=suite.name,
        version=suite.version,
        env=suite.env,
        args=suite.env_args(None if data is None else data.absolute()),
        split=suite.split,
        score=suite.score,
        also=suite.also,
        tasks=tasks,
        samples=suite.samples if samples is None else samples,
        temperature=suite.temperature,
        max_turns=suite.max_turns,
        max_tokens_per_turn=suite.max_tokens_per_turn,
    )


def plan_recipe(recipe: Recipe) -> PlannedSuite:
    """What `recipe` evaluates on, as a suite named `recipe:NAME`."""
    evaluation, rollout = recipe.eval, recipe.rollout
    return PlannedSuite(
        name=f"recipe:{recipe.name}",
        version=1,
        env=recipe.env.id,
        args=dict(recipe.env.args),
        split=evaluation.split,
        score=evaluation.score,
        tasks=evaluation.tasks,
        samples=evaluation.samples,
        temperature=evaluation.temperature,
        max_turns=rollout.limits.max_turns,
        max_tokens_per_turn=rollout.sampling.max_tokens_per_turn,
    )


class Loaded(NamedTuple):
    """A planned suite with its tasks, and an environment of it that reads answers."""

    suite: PlannedSuite
    tasks: tuple[Task, ...]
    env: Env

    def planned(self) -> Iterator[tuple[Key, Task]]:
        """Every sample that is planned, all tasks once before any a second time."""
        for number in range(self.suite.samples):
            for task in self.tasks:
                yield Key(self.suite.tag, task.id, number), task


async def load_suite(suite: PlannedSuite) -> Loaded:
    """Read the tasks of `suite`; the caller closes the environment.

    Raises:
        DataError: there are none, or two of one id.
        RecipeError: a setting of the environment that cannot be, or one that it needs.
    """
    try:
        env = make_env(suite.env, **suite.args)
    except RecipeError as error:
        raise RecipeError(
            f"{suite.tag}: {str(error).rstrip('.')}. Settings of a suite's environment are given "
            "as suite.args.KEY=VALUE"
        ) from error
    try:
        tasks = tuple(env.tasks(suite.split))
        if not tasks:
            raise DataError(
                f"suite {suite.tag!r}: environment {suite.env!r} has no tasks in split "
                f"{suite.split!r}"
            )
        repeated = [id_ for id_, count in Counter(one.id for one in tasks).items() if count > 1]
        if repeated:
            more = f" and {len(repeated) - _SHOWN} more" if len(repeated) > _SHOWN else ""
            raise DataError(
                f"suite {suite.tag!r}: several tasks have one id, and results are kept by it: "
                f"{', '.join(map(repr, repeated[:_SHOWN]))}{more}"
            )
    except BaseException:
        await env.close()
        raise
    return Loaded(suite, tasks[: suite.tasks], env)
