"""Rollout hosts as Ray actors: each an engine and an event loop of many episodes."""

from __future__ import annotations

import os
from pathlib import Path

import ray
from ray.exceptions import RayActorError, RayTaskError

from agentrl.core.errors import SetupError
from agentrl.core.types import Float32, Group, Int32
from agentrl.rollout.host import HostSpec
from agentrl.workers.fleet import Job, MemberLostError
from agentrl.workers.local import LocalMember


def connect(address: str | None) -> None:
    """Join the Ray cluster at `address` (`"auto"`: the one of this machine), or start one here."""
    if ray.is_initialized():
        return
    # Workers inherit it: Ray would otherwise print a line for each actor and each warning.
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(
            address=address,
            logging_level="ERROR",
            log_to_driver=bool(os.environ.get("AGENTRL_WORKER_LOGS")),
            **options,
        )
    except ConnectionError as error:
        raise SetupError(
            f"no Ray cluster answers at {address!r} ({error}); start one with `ray start --head` "
            "or leave `cluster` out to run on this machine alone"
        ) from error


class RolloutActor:
    """What runs inside the actor's process: a local member, by method name."""

    def __init__(self, spec: HostSpec) -> None:
        self._member = LocalMember(spec)

    async def start(self) -> None:
        """See `Member`."""
        await self._member.start()

    async def play(self, job: Job) -> Group:
        """See `Member`."""
        return await self._member.play(job)

    async def load(self, weights: str, version: int) -> None:
        """See `Member`."""
        await self._member.load(Path(weights), version)

    async def score(self, token_ids: Int32) -> Float32:
        """See `Member`."""
        return await self._member.score(token_ids)

    async def restart_engine(self) -> None:
        """See `Member`."""
        await self._member.restart_engine()

    async def close(self) -> None:
        """See `Member`."""
        await self._member.close()

    async def pid(self) -> int:
        """Process id, for whoever wants to look at (or kill) it."""
        return os.getpid()


class RayMember:
    """A member in an actor of its own; every call of a dead actor is a `MemberLostError`."""

    def __init__(self, spec: HostSpec, *, gpus: float, environment: dict[str, str]) -> None:
        actor = ray.remote(RolloutActor)
        self.actor = actor.options(
            num_cpus=0,
            num_gpus=gpus,
            max_concurrency=10_000,
            runtime_env={"env_vars": environment},
        ).remote(spec)

    async def _call(self, method: str, *arguments: object) -> object:
        try:
            return await getattr(self.actor, method).remote(*arguments)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except RayActorError as error:
            raise MemberLostError(f"a rollout worker died: {str(error).splitlines()[0]}") from error

    async def start(self) -> None:
        """See `Member`."""
        await self._call("start")

    async def play(self, job: Job) -> Group:
        """See `Member`."""
        group = await self._call("play", job)
        assert isinstance(group, Group)
        return group

    async def load(self, weights: Path, version: int) -> None:
        """See `Member`."""
        await self._call("load", str(weights), version)

    async def score(self, token_ids: Int32) -> Float32:
        """See `Member`."""
        scores: Float32 = await self._call("score", token_ids)  # type: ignore[assignment]
        return scores

    async def restart_engine(self) -> None:
        """See `Member`."""
        await self._call("restart_engine")

    async def close(self) -> None:
        """Close the host, then end the process; a dead one needs neither."""
        try:
            await self._call("close")
        except MemberLostError:
            return
        ray.kill(self.actor)
