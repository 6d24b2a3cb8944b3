"""A rollout host in this process, as a member of a fleet."""

from __future__ import annotations

from pathlib import Path

from agentrl.core.types import Float32, Group, Int32
from agentrl.rollout.host import HostSpec, RolloutHost
from agentrl.workers.fleet import Job


class LocalMember:
    """Implements `Member`; nothing is lost with it but this process."""

    def __init__(self, spec: HostSpec) -> None:
        self.host = RolloutHost(spec)

    async def start(self) -> None:
        """See `Member`."""
        await self.host.start()

    async def play(self, job: Job) -> Group:
        """See `Member`."""
        if job.samples is None:
            return await self.host.sample_group(
                job.task, seed=job.seed, group_id=job.group_id, half=job.half
            )
        return await self.host.evaluate(
            job.task,
            seed=job.seed,
            samples=job.samples,
            temperature=job.temperature,
            group_id=job.group_id,
        )

    async def load(self, weights: Path, version: int) -> None:
        """See `Member`."""
        await self.host.load_weights(weights, version)

    async def score(self, token_ids: Int32) -> Float32:
        """See `Member`."""
        return await self.host.score(token_ids)

    async def restart_engine(self) -> None:
        """See `Member`."""
        await self.host.restart_engine()

    async def close(self) -> None:
        """See `Member`."""
        await self.host.close()
