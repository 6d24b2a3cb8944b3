"""One rollout host: an engine, a renderer and many live episodes in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agentrl.adapters.connection import Deadlines
from agentrl.adapters.envhost_pool import HostPool, HostSettings
from agentrl.core.env import Env
from agentrl.core.errors import EngineError, RecipeError
from agentrl.core.registry import make_env
from agentrl.core.types import Float32, Group, Int32, Task, TrajectoryTree
from agentrl.engine.base import Engine
from agentrl.engine.tokens import load_tokenizer
from agentrl.rollout.deadline import OverdueError, within
from agentrl.rollout.episode import LiveEpisode
from agentrl.rollout.images import ImageStore
from agentrl.rollout.oracle import Oracle
from agentrl.rollout.player import Episode, Sampler
from agentrl.rollout.render import Renderer, Rendering, Tokenizer
from agentrl.rollout.settings import RolloutSettings, SamplingSettings
from agentrl.rollout.stage import Stage
from agentrl.rollout.transcript import Transcript
from agentrl.rollout.watchdog import Stall, Watchdog, stalls

if TYPE_CHECKING:
    from agentrl.engine.settings import AnyEngine

ORACLES = {"oracle": False, "spoiled_oracle": True}
"""Names of the scripts (`ScriptedSettings.script`) that play expert actions -> whether spoiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """Everything a host is made of: plain, picklable settings.

    `model` is a folder or hub id; its tokenizer is `tokenizer`'s, by default its own. A policy that
    speaks text has none (`agentrl.engine.speaks_text`); the images that it is shown are kept in
    the folder `images`, by default in memory.
    """

    env_id: str
    env_args: Mapping[str, object] = field(default_factory=dict)
    engine: AnyEngine
    model: str
    tokenizer: str | None = None
    images: Path | None = None
    sampler: Sampler
    rollout: RolloutSettings = field(default_factory=RolloutSettings)


class RolloutHost:
    """Plays groups of one recipe. Call everything from one event loop.

    At most `rollout.concurrency` episodes are live at once, over all groups; the others wait
    without holding anything. `engine`, `tokenizer` and `make_env` replace what `spec` would build
    (tests, oracles).

    Raises:
        RecipeError: the sampler branches and the environment says `forkable = "no"`.
    """

    def __init__(
        self,
        spec: HostSpec,
        *,
        engine: Engine | None = None,
        tokenizer: Tokenizer | None = None,
        make_env: Callable[[], Env] | None = None,
    ) -> None:
        self.spec = spec
        self._given_engine = engine
        self._given_tokenizer = tokenizer
        self._make_env = make_env or partial(_make, spec.env_id, spec.env_args)
        self._pool = None if make_env else _pool(spec.rollout)
        self._stage: Stage | None = None
        self._watchdog: Watchdog | None = None
        self._oracle: Oracle | None = None
        self._playing: set[asyncio.Future[Sequence[TrajectoryTree]]] = set()

    async def start(self) -> None:
        """Start the environment hosts, if any, and the engine; may be called once."""
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> None:
        if self._pool is not None:
            await self._pool.start()
            self._make_env = await self._pool.factory(self.spec.env_id, self.spec.env_args)
        probe = self._make_env()
        forkable, name = probe.forkable, type(probe).__name__
        with contextlib.suppress(OverdueError):  # it never acted: nothing hangs on its end
            await within(probe.close(), self.spec.rollout.limits.close_seconds)
        if self.spec.sampler.needs_fork and forkable == "no":
            raise RecipeError(
                f"the sampler branches in the middle of an episode and {name} has forkable = "
                "'no'; give it a fork ('copy' or 'replay') or choose sampler.type = 'chain'"
            )
        rollout = self.spec.rollout
        renderer = renderer_for(
            self.spec.model,
            self.spec.engine,
            tokenizer=self._given_tokenizer or self.spec.tokenizer,
            images=self.spec.images,
        )
        engine = self._given_engine or self._build_engine(renderer)
        await engine.start()
        self._stage = Stage(
            make_env=self._make_env,
            engine=engine,
            renderer=renderer,
            sampling=rollout.sampling,
            limits=rollout.limits,
            slots=asyncio.Semaphore(rollout.concurrency),
            retries=rollout.retries,
        )
        self._watchdog = Watchdog(self.stalled, seconds=rollout.stall_seconds)

    @property
    def version(self) -> int:
        """Version of the engine's weights."""
        return self._ready.engine.version

    async def sample_group(
        self, task: Task, *, seed: int, group_id: str = "", half: Literal[0, 1] | None = None
    ) -> Group:
        """Play `task` with the recipe's sampler; failures are in the trees, never raised.

        `half` is that of a sampler in two halves, `EepoSampler`.
        """
        from agentrl.samplers.eepo import EepoSampler  # samplers stand above this room

        sampler = self.spec.sampler
        if half is not None and isinstance(sampler, EepoSampler):
            sampler = sampler.half(half)
        return await self._play(sampler, self._ready, task, seed, group_id)

    async def evaluate(
        self,
        task: Task,
        *,
        seed: int,
        samples: int = 1,
        temperature: float | None = None,
        group_id: str = "",
    ) -> Group:
        """Play `samples` chains of `task`, actions whole; `temperature` replaces the recipe's."""
        from agentrl.samplers.chain import ChainSampler  # samplers stand above this room

        stage = self._ready
        asked: dict[str, float | None] = {"segment_tokens": None}
        if temperature is not None:
            asked["temperature"] = temperature
        sampling = SamplingSettings(**(stage.sampling.model_dump() | asked))
        stage = stage.with_sampling(sampling)
        chain = ChainSampler(trajectories=samples)
        return await self._play(chain, stage, task, seed, group_id or f"eval/{task.id}")

    async def load_weights(self, weights: Path, version: int) -> None:
        """Give the engine new weights; turns under way keep the version that sampled them."""
        await self._ready.engine.load(weights, version)

    async def score(self, token_ids: Sequence[int] | Int32) -> Float32:
        """The engine's log-probabilities (T-1,) of `token_ids` (see `Engine.score`)."""
        return await self._ready.engine.score(token_ids)

    async def restart_engine(self) -> None:
        """Replace the engine by a new one, at version 0; the old one need not be alive."""
        stage = self._ready
        # A dead engine may fail or hang when it is closed: it is given up either way.
        with contextlib.suppress(OverdueError, EngineError):
            await within(stage.engine.close(), 30.0)
        engine = self._build_engine(stage.renderer)
        await engine.start()
        self._stage = stage.with_engine(engine)

    def stalled(self, after: float | None = None) -> list[Stall]:
        """Live episodes in one phase for `after` seconds (default: `rollout.stall_seconds`)."""
        if self._stage is None:
            return []
        seconds = self.spec.rollout.stall_seconds if after is None else after
        return stalls(tuple(self._stage.live), seconds)

    async def close(self) -> None:
        """End what is played, the watchdog, engine and environment hosts; may be called twice."""
        if self._watchdog is not None:
            self._watchdog.stop()
        stage, self._stage = self._stage, None
        async with contextlib.AsyncExitStack() as ending:  # the last first, and all of them
            if self._pool is not None:
                ending.push_async_callback(self._pool.close)
            if self._oracle is not None:
                ending.push_async_callback(self._oracle.close)
            if stage is not None:
                ending.push_async_callback(stage.engine.close)
            # A caller elsewhere that gave up was not heard here; environments close before engines.
            for sampling in self._playing:
                sampling.cancel()
            if self._playing:
                await asyncio.wait(self._playing, timeout=self.spec.rollout.limits.close_seconds)

    @property
    def _ready(self) -> Stage:
        if self._stage is None:
            raise RuntimeError("this rollout host is not started, or closed")
        return self._stage

    async def _play(
        self, sampler: Sampler, stage: Stage, task: Task, seed: int, group_id: str
    ) -> Group:
        group_id = group_id or task.id

        async def start(task: Task, seed: int) -> Episode:
            return await LiveEpisode.start(stage, task, seed=seed, group_id=group_id)

        if self._oracle is not None:
            await self._oracle.add([task])
        sampling = asyncio.ensure_future(sampler.sample(task, start, seed=seed))
        self._playing.add(sampling)
        sampling.add_done_callback(self._playing.discard)
        trees = await sampling
        return Group(group_id, task.id, tuple(trees))

    def _build_engine(self, renderer: Rendering) -> Engine:
        from agentrl.engine import ScriptedSettings, build  # above this room

        settings = self.spec.engine
        if isinstance(settings, ScriptedSettings) and settings.script in ORACLES:
            spoiled = ORACLES[settings.script]
            self._oracle = self._oracle or Oracle(self._make_env(), renderer, spoiled=spoiled)
        transcript = renderer if isinstance(renderer, Transcript) else None
        return build(settings, self.spec.model, script=self._oracle, transcript=transcript)


def renderer_for(
    model: str,
    engine: AnyEngine,
    *,
    tokenizer: Tokenizer | str | None = None,
    images: Path | None = None,
) -> Rendering:
    """What stands between messages and the ids of trees, for the policy `model` on `engine`.

    A tokenizer's `Renderer` (that of `tokenizer`, by default the model's own), or a `Transcript`
    for a policy that speaks text, which keeps images in the folder `images`.

    Raises:
        EngineError: the engine needs a model and none is named, or it has no tokenizer.
        SetupError: transformers is not installed.
    """
    from agentrl.engine import speaks_text  # above this room

    if tokenizer is None and speaks_text(engine, model):
        return Transcript(ImageStore(images))
    if tokenizer is None and not model:
        raise EngineError(f"engine.type {engine.type!r} needs a model, and none is named")
    if tokenizer is None or isinstance(tokenizer, str):
        loaded = load_tokenizer(tokenizer or model)
        return Renderer(loaded)  # type: ignore[arg-type]
    return Renderer(tokenizer)


def _make(env_id: str, env_args: Mapping[str, object]) -> Env:
    return make_env(env_id, **env_args)


def _pool(rollout: RolloutSettings) -> HostPool | None:
    if not rollout.env_hosts:
        return None
    limits = rollout.limits
    settings = HostSettings(
        hosts=rollout.env_hosts,
        memory_mb=int(1024 * (rollout.env_host_memory_gib or 0)),
        # One env may block its host for as long as its own deadline, not longer.
        hang_seconds=max(limits.tool_seconds, limits.reset_seconds),
    )
    deadlines = Deadlines(
        open=limits.reset_seconds,
        reset=limits.reset_seconds,
        step=limits.tool_seconds,
        close=limits.close_seconds,
    )
    return HostPool(settings, deadlines=deadlines)
