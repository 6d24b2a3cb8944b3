"""Opens what a recipe asks for: the fleet of rollout hosts and the learner, under Ray or here."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.core.errors import RecipeError
from agentrl.engine.settings import TransformersSettings, VllmSettings
from agentrl.learner.base import PolicyLearner
from agentrl.recipe.schema import Recipe
from agentrl.rollout.host import HostSpec
from agentrl.rollout.render import Renderer
from agentrl.workers.fleet import Fleet, Member
from agentrl.workers.local import LocalMember

if TYPE_CHECKING:
    from agentrl.learner.loss import Objective
    from agentrl.workers.cluster import Cluster


@dataclass(slots=True)
class Runtime:
    """Started workers. There is no learner where nothing is trained; `open_learner` makes one."""

    fleet: Fleet
    renderer: Renderer
    model: str
    optional_learner: PolicyLearner | None
    open_learner: Callable[[], PolicyLearner | None]
    cluster: Cluster | None

    @property
    def learner(self) -> PolicyLearner:
        """The learner; only for runs that train."""
        assert self.optional_learner is not None
        return self.optional_learner

    async def restart_learner(self) -> None:
        """Put a new learner, which holds the weights of `model`, in the place of a lost one."""
        self.learner.close()
        self.optional_learner = await asyncio.to_thread(self.open_learner)

    def save_policy(self, folder: Path) -> None:
        """Write the policy in the layout of the model hubs: configuration, tokenizer, weights."""
        folder.mkdir(parents=True, exist_ok=True)
        save_frame(self.model, folder)
        self.learner.export(folder / "model.safetensors")

    async def close(self) -> None:
        """End all workers: the fleet, the learner, then what they had of the cluster."""
        async with AsyncExitStack() as ending:  # the last first, and all of them
            if self.cluster is not None:
                ending.push_async_callback(asyncio.to_thread, self.cluster.close)
            if self.optional_learner is not None:
                ending.callback(self.optional_learner.close)
            ending.push_async_callback(self.fleet.close)


def save_frame(model: str, folder: Path) -> None:
    """Copy everything of `model` but its weights: configuration and tokenizer."""
    source = Path(model)
    if source.is_dir():
        for path in source.iterdir():
            if path.is_file() and path.suffix in {".json", ".jinja", ".txt", ".model"}:
                shutil.copyfile(path, folder / path.name)
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        return
    from transformers import AutoConfig, AutoTokenizer

    AutoConfig.from_pretrained(model).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)


async def open_runtime(
    recipe: Recipe, *, model: str, out: Path | None, objective: Objective = "policy"
) -> Runtime:
    """Start the rollout members and the learner of `recipe`, side by side.

    `model` is the folder or hub id that both load. `out` is the existing folder into which the
    learner will write checkpoints; None: there is no learner.

    Raises:
        SetupError: no cluster answers, it is too small, or a node does not see a folder.
    """
    from transformers import AutoTokenizer

    if Path(model).is_dir():
        model = str(Path(model).absolute())
    renderer = Renderer(AutoTokenizer.from_pretrained(model))
    cluster = _cluster(recipe, ranks=recipe.learner.ranks if out is not None else 0)
    fleet = _fleet(recipe, _spec(recipe, model), cluster)

    def open_learner() -> PolicyLearner | None:
        return None if out is None else _learner(recipe, model, objective, out, cluster)

    try:
        started, trained = await asyncio.gather(
            fleet.start(), asyncio.to_thread(open_learner), return_exceptions=True
        )
    except asyncio.CancelledError:
        await Runtime(fleet, renderer, model, None, open_learner, cluster).close()
        raise
    learner = None if isinstance(trained, BaseException) else trained
    runtime = Runtime(fleet, renderer, model, learner, open_learner, cluster)
    for outcome in (started, trained):
        if isinstance(outcome, BaseException):
            await runtime.close()
            raise outcome
    return runtime


@asynccontextmanager
async def open_fleet(
    recipe: Recipe, *, model: str, images: Path | None = None
) -> AsyncIterator[Fleet]:
    """The started rollout members of `recipe` without a learner; they are closed at the end.

    `model` is the folder or hub id that they load; empty for a policy that speaks text, whose
    images are kept in the folder `images`.

    Raises:
        SetupError: no cluster answers, it is too small, or a node does not see a folder.
    """
    if model and Path(model).is_dir():
        model = str(Path(model).absolute())
    cluster = _cluster(recipe, ranks=0)
    fleet = _fleet(recipe, replace(_spec(recipe, model), images=images), cluster)
    async with AsyncExitStack() as ending:
        if cluster is not None:
            ending.push_async_callback(asyncio.to_thread, cluster.close)
        ending.push_async_callback(fleet.close)
        await fleet.start()
        yield fleet


def _cluster(recipe: Recipe, *, ranks: int) -> Cluster | None:
    if recipe.runtime != "ray":
        return None
    from agentrl.workers.cluster import Cluster

    return Cluster(recipe, ranks=ranks)


def _spec(recipe: Recipe, model: str) -> HostSpec:
    return HostSpec(
        env_id=recipe.env.id,
        env_args=recipe.env.args,
        engine=recipe.engine,
        model=model,
        sampler=recipe.sampler,
        rollout=recipe.rollout,
    )


def _learner(
    recipe: Recipe, model: str, objective: Objective, out: Path, cluster: Cluster | None
) -> PolicyLearner:
    if cluster is not None:
        return cluster.learner(model, objective=objective, out=out)
    if recipe.learner.ranks > 1:
        raise RecipeError(
            f"runtime: local has one process, learner.ranks is {recipe.learner.ranks}; use "
            "runtime: ray"
        )
    from agentrl.learner.learner import Learner

    return Learner(
        recipe.learner,
        model,
        objective=objective,
        temperature=recipe.rollout.sampling.temperature,
        seed=recipe.seed,
    )


def _fleet(recipe: Recipe, spec: HostSpec, cluster: Cluster | None) -> Fleet:
    rollout = recipe.rollout
    if cluster is None and rollout.workers != 1:
        raise RecipeError(
            f"runtime: local has one rollout worker, rollout.workers is {rollout.workers}; "
            "use runtime: ray"
        )

    def make(index: int) -> Member:
        return LocalMember(spec) if cluster is None else cluster.member(index, spec)

    trajectories = recipe.sampler.trajectories
    return Fleet(
        make,
        size=rollout.workers,
        # Enough groups to fill every slot for live episodes, and one that waits for the next.
        jobs_at_once=max(1, -(-rollout.concurrency // trajectories)) + 1,
        trajectories=trajectories,
        restarts_engines=isinstance(recipe.engine, (VllmSettings, TransformersSettings)),
        written=lambda: None if cluster is None else cluster.weights_written(),
    )
