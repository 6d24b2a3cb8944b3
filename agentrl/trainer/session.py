"""Opens everything that a loop runs over, and closes it whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentrl.core.env import Env
from agentrl.recipe.load import dump
from agentrl.recipe.schema import Recipe
from agentrl.trainer.checkpoint import Checkpoints
from agentrl.trainer.display import Display
from agentrl.trainer.loop import Loop
from agentrl.trainer.metrics import MetricsLog
from agentrl.trainer.sync import WeightSync, probe_bound
from agentrl.workers.runtime import Runtime, open_runtime

if TYPE_CHECKING:
    from agentrl.learner.loss import Objective


class Session(NamedTuple):
    """A loop that is ready to run and the workers under it."""

    loop: Loop
    runtime: Runtime


@asynccontextmanager
async def open_session(
    recipe: Recipe,
    env: Env,
    out: Path,
    display: Display,
    *,
    model: str,
    objective: Objective = "policy",
    start: int = 0,
) -> AsyncIterator[Session]:
    """Start workers and learner of `recipe` with the policy `model`, writing into `out`.

    Metrics of iteration `start` and later are dropped from a folder that has some.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.yaml").write_text(dump(recipe))
    with display.phase("starting the rollout workers and the learner"):
        runtime = await open_runtime(recipe, model=model, objective=objective)
    log = MetricsLog(
        out,
        tensorboard=recipe.log.tensorboard,
        wandb=recipe.log.wandb,
        name=recipe.name,
        start=start,
    )
    sync = WeightSync(
        runtime.learner,
        runtime.fleet,
        vocabulary=runtime.renderer.vocabulary_size,
        bound=probe_bound(recipe),
        seed=recipe.seed,
    )
    try:
        yield Session(
            Loop(
                recipe,
                fleet=runtime.fleet,
                learner=runtime.learner,
                sync=sync,
                tasks=env.tasks("train"),
                eval_tasks=env.tasks(recipe.eval.split)[: recipe.eval.tasks],
                out=out,
                display=display,
                log=log,
                checkpoints=Checkpoints(out / "checkpoints", keep=recipe.train.keep_checkpoints),
            ),
            runtime,
        )
    finally:
        log.close()
        sync.close()
        await runtime.close()
        await env.close()
