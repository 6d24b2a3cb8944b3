"""Several rollout hosts behind one door: dispatch, loss of a member, weights; knows no Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from agentrl.core.errors import EngineError
from agentrl.core.types import Float32, Group, Int32, StopReason, Task
from agentrl.rollout.deadline import all_of

T = TypeVar("T")

_ALIVE_SECONDS = 60.0
"""How long an engine under suspicion may take to score what it scored before."""

_PUSH_SECONDS = 600.0
"""How long a member may take for new weights, or for probes, before its engine is replaced."""

log = logging.getLogger(__name__)


class MemberLostError(EngineError):
    """A rollout worker's process is gone, with every episode that it was playing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One task to play. `samples` None: the recipe's sampler; a number: that many chains.

    `half` is that of a sampler that plays its trajectories in two (`EepoSampler`).
    """

    task: Task
    group_id: str
    seed: int
    samples: int | None = None
    temperature: float | None = None
    half: Literal[0, 1] | None = None


class Member(Protocol):
    """One rollout host, in this process or in another."""

    async def start(self) -> None:
        """Load engine and environment."""
        ...

    async def play(self, job: Job) -> Group:
        """Play one job; `MemberLostError` when the process died."""
        ...

    async def load(self, weights: Path, version: int) -> None:
        """Give the engine new weights."""
        ...

    async def score(self, token_ids: Int32) -> Float32:
        """The engine's log-probabilities of `token_ids` (see `Engine.score`)."""
        ...

    async def restart_engine(self) -> None:
        """Replace a dead engine; it holds version 0 until the next `load`."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


@dataclass(slots=True)
class FleetReport:
    """What went wrong and was mended since the last report."""

    members_lost: int = 0
    engines_restarted: int = 0
    episodes_lost: int = 0


@dataclass(slots=True)
class _Seat:
    member: Member
    playing: int = 0
    generation: int = 0
    mending: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def mended(self) -> tuple[Member, int]:
        """The member, once it is started and holds the current weights, and its generation."""
        async with self.mending:
            return self.member, self.generation


class Fleet:
    """`size` members made by `make`; each plays at most `jobs_at_once` jobs.

    A lost member is replaced, given the current weights, and its jobs are played again
    elsewhere; `episodes_lost` counts the trajectories that were under way. An engine that fails is
    replaced too, unless `restarts_engines` is False: a server elsewhere is not mended from here.
    New weights may come while jobs are played; one that does not take them within `push_seconds`
    has failed. `written` hears of each new file of weights before a member is told of it.
    """

    def __init__(
        self,
        make: Callable[[int], Member],
        *,
        size: int,
        jobs_at_once: int,
        trajectories: int,
        max_losses: int = 3,
        restarts_engines: bool = True,
        push_seconds: float = _PUSH_SECONDS,
        written: Callable[[], None] = lambda: None,
    ) -> None:
        self.capacity = size * jobs_at_once
        self._make = make
        self._seats = [_Seat(make(index)) for index in range(size)]
        self._slots = asyncio.Semaphore(self.capacity)
        self._trajectories = trajectories
        self._max_losses = max_losses
        self._restarts_engines = restarts_engines
        self._push_seconds = push_seconds
        self._written = written
        self._writing = asyncio.Lock()  # held while the file of weights is written, or reloaded
        self._weights: tuple[Path, int] | None = None
        self._probe: Int32 | None = None
        self.report = FleetReport()

    async def start(self) -> None:
        """Start all members; the first that cannot be started stops the others."""
        await all_of(seat.member.start() for seat in self._seats)

    async def play(
        self, jobs: Sequence[Job], *, done: Callable[[Group], None] | None = None
    ) -> list[Group]:
        """Play all jobs, in any order; groups come back in the order of `jobs`."""

        async def one(job: Job) -> Group:
            group = await self.play_one(job)
            if done is not None:
                done(group)
            return group

        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(one(job)) for job in jobs]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in running]

    async def play_one(self, job: Job) -> Group:
        """Play one job, once there is a free slot for it."""
        async with self._slots:
            return await self._play(job)

    async def _play(self, job: Job) -> Group:
        for _ in range(self._max_losses):
            index = min(range(len(self._seats)), key=lambda i: self._seats[i].playing)
            seat = self._seats[index]
            seat.playing += 1
            try:
                member, generation = await seat.mended()
                group = await member.play(job)
            except MemberLostError:
                self.report.episodes_lost += job.samples or self._trajectories
                await self._replace(index, generation)
                continue
            finally:
                seat.playing -= 1
            if not await self._is_lost(group, seat, generation):
                return group
            self.report.episodes_lost += job.samples or self._trajectories
            await self._restart_engine(seat, generation)
        raise EngineError(
            f"task {job.task.id!r} was lost {self._max_losses} times with its rollout worker; "
            "see the worker's log for what kills it (often memory)"
        )

    async def _is_lost(self, group: Group, seat: _Seat, generation: int) -> bool:
        """True when `group` met a dead engine, so that its failures say nothing about its task."""
        if not self._restarts_engines or not _engine_failed(group):
            return False
        member, now = await seat.mended()
        if _nothing_was_played(group) or now != generation:
            return True
        if self._probe is None:
            return False
        try:
            await asyncio.wait_for(member.score(self._probe), _ALIVE_SECONDS)
        except (EngineError, TimeoutError):
            return True
        return False  # The engine is well: it refused some requests, as it would again.

    async def _replace(self, index: int, generation: int) -> None:
        seat = self._seats[index]
        async with seat.mending:
            if seat.generation != generation:
                return  # Another job that was lost with it has already replaced it.
            self.report.members_lost += 1
            seat.member = self._make(index)
            with suppress(MemberLostError):  # the next job finds this one lost as well
                await seat.member.start()
                await self._reload(seat)

    async def _restart_engine(self, seat: _Seat, generation: int) -> None:
        async with seat.mending:
            if seat.generation != generation:
                return
            self.report.engines_restarted += 1
            with suppress(MemberLostError):  # the next job finds it lost
                await seat.member.restart_engine()
                await self._reload(seat)

    async def _reload(self, seat: _Seat) -> None:
        async with self._writing:
            if self._weights is not None:
                await self._soon(seat.member.load(*self._weights), "new weights")
        seat.generation += 1

    async def load(
        self, weights: Path, version: int, *, write: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Give every engine new weights; a member that died meanwhile is replaced with them.

        `write` makes the file; no member reads it meanwhile.
        """
        async with self._writing:
            if write is not None:
                await write()
            self._weights = (weights, version)
            self._written()
        await self._each(lambda member: member.load(weights, version))

    async def _soon(self, work: Coroutine[object, object, T], what: str) -> T:
        try:
            return await asyncio.wait_for(work, self._push_seconds)
        except TimeoutError as error:
            raise EngineError(
                f"a rollout worker did not take {what} within {self._push_seconds:g} s"
            ) from error

    async def score(self, token_ids: Int32) -> list[Float32]:
        """Every engine's log-probabilities of `token_ids`."""
        scores = await self._each(lambda member: member.score(token_ids))
        self._probe = token_ids
        return scores

    async def _each(self, ask: Callable[[Member], Coroutine[object, object, T]]) -> list[T]:
        """What every member answers; one that is lost meanwhile is replaced and asked again.

        The first error is raised when all are done: nobody is left half replaced.
        """

        async def one(index: int) -> T:
            seat = self._seats[index]
            for _ in range(self._max_losses - 1):
                member, generation = await seat.mended()
                try:
                    return await self._soon(ask(member), "new weights, or probes of them,")
                except MemberLostError:
                    await self._replace(index, generation)
                except EngineError:
                    await self._restart_engine(seat, generation)
            return await self._soon(ask(seat.member), "new weights, or probes of them,")

        asked = [asyncio.ensure_future(one(index)) for index in range(len(self._seats))]
        await asyncio.gather(*asked, return_exceptions=True)
        return [each.result() for each in asked]

    async def close(self) -> None:
        """Close all members; one that cannot be closed is named in the log and given up."""
        ends = (seat.member.close() for seat in self._seats)
        for index, found in enumerate(await asyncio.gather(*ends, return_exceptions=True)):
            if isinstance(found, Exception):
                log.warning("rollout worker %d did not close: %r", index, found)


def _engine_failed(group: Group) -> bool:
    """True when the engine failed at least once, in the middle of an episode or at its start."""
    failures = [failure.stop_reason for tree in group.trees for failure in tree.failures]
    return StopReason.ENGINE_ERROR in [*failures, *(t.stop_reason for t in group.trajectories())]


def _nothing_was_played(group: Group) -> bool:
    return all(trajectory.stop_reason.is_failure for trajectory in group.trajectories())
