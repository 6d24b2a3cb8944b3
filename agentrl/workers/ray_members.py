"""Rollout hosts as Ray actors: each an engine and an event loop of many episodes."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
)

from agentrl.core.types import Float32, Group, Int32
from agentrl.rollout.host import HostSpec
from agentrl.workers.fleet import Job, MemberLostError
from agentrl.workers.local import LocalMember
from agentrl.workers.nodes import Courier, enter, require_policy, this_node
from agentrl.workers.placement import strategy

_CLOSE_SECONDS = 120.0
"""How long a host may take to close before its process is ended as it is."""

log = logging.getLogger(__name__)


class RolloutActor:
    """What runs inside the actor's process: a local member, by method name."""

    def __init__(self, spec: HostSpec, folder: str) -> None:
        enter(folder)
        self._spec = spec
        self._member = LocalMember(spec)

    async def start(self) -> str:
        """See `Member`; returns the id of the node."""
        require_policy(self._spec.model)
        await self._member.start()
        return this_node()

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


class RayMember:
    """A member in an actor of its own; every call of a dead actor is a `MemberLostError`.

    An actor that was lost once is ended: it may only be out of reach, and would keep its GPU.
    """

    def __init__(
        self,
        spec: HostSpec,
        *,
        index: int,
        courier: Courier,
        gpus: float,
        environment: dict[str, str],
    ) -> None:
        actor = ray.remote(RolloutActor)
        self._courier = courier
        self._node = ""
        self.actor = actor.options(
            num_cpus=0,
            num_gpus=gpus,
            scheduling_strategy=strategy(index, gpus=gpus),
            max_concurrency=10_000,
            runtime_env={"env_vars": environment},
        ).remote(spec, os.getcwd())

    async def _call(self, method: str, *arguments: object) -> object:
        try:
            return await getattr(self.actor, method).remote(*arguments)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except (RayActorError, ActorUnschedulableError, ObjectLostError) as error:
            ray.kill(self.actor)
            raise MemberLostError(f"a rollout worker died: {str(error).splitlines()[0]}") from error

    async def start(self) -> None:
        """See `Member`."""
        self._node = str(await self._call("start"))
        self._courier.register(self._node)

    async def play(self, job: Job) -> Group:
        """See `Member`."""
        group = await self._call("play", job)
        assert isinstance(group, Group)
        return group

    async def load(self, weights: Path, version: int) -> None:
        """See `Member`."""
        local = await self._courier.bring(weights, version, self._node)
        await self._call("load", str(local), version)

    async def score(self, token_ids: Int32) -> Float32:
        """See `Member`."""
        scores: Float32 = await self._call("score", token_ids)  # type: ignore[assignment]
        return scores

    async def restart_engine(self) -> None:
        """See `Member`."""
        await self._call("restart_engine")

    async def close(self) -> None:
        """Close the host, then end the process, however that went."""
        try:
            await asyncio.wait_for(self._call("close"), _CLOSE_SECONDS)
        except MemberLostError:
            return
        except TimeoutError:
            log.warning("a rollout worker did not close within %g s: it is ended", _CLOSE_SECONDS)
        finally:
            ray.kill(self.actor)
