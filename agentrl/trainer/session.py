"""Opens the workers of a run and the loops over them, and closes both whatever happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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


@asynccontextmanager
async def open_workers(
    recipe: Recipe, out: Path, display: Display, *, model: str, objective: Objective = "policy"
) -> AsyncIterator[Runtime]:
    """The workers and the learner of `recipe` with the policy `model`, for a run in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.yaml").write_text(dump(recipe))
    with display.phase("starting the rollout workers and the learner"):
        runtime = await open_runtime(recipe, model=model, out=out, objective=objective)
    try:
        yield runtime
    finally:
        await runtime.close()


@contextmanager
def open_loop(
    recipe: Recipe,
    env: Env,
    out: Path,
    display: Display,
    runtime: Runtime,
    *,
    start: int = 0,
    lost: Counter[str] | None = None,
) -> Iterator[Loop]:
    """A loop over `runtime` that is ready to run.

    Metrics of iteration `start` and later are dropped from a folder that has some; what their
    `workers/...` counted is added to `lost`, which the loop's next iteration reports.
    """
    log = MetricsLog(
        out,
        tensorboard=recipe.log.tensorboard,
        wandb=recipe.log.wandb,
        name=recipe.name,
        start=start,
    )
    lost = Counter() if lost is None else lost
    for row in log.dropped:
        lost.update({name: row[name] for name in row if name.startswith("workers/")})
    sync = WeightSync(
        runtime.learner,
        runtime.fleet,
        run=out,
        vocabulary=runtime.renderer.vocabulary_size,
        bound=probe_bound(recipe),
        seed=recipe.seed,
    )
    try:
        yield Loop(
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
            lost=lost,
        )
    finally:
        log.close()
        sync.close()
