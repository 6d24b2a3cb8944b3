"""Plays the samples of a suite that are missing, and logs each as it finishes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from agentrl.core.errors import AgentRLError, EngineError, EnvError
from agentrl.core.types import Group, Task
from agentrl.evals.record import group_id, lost_sample, sample_of
from agentrl.evals.samples import FailureKind, Key, Sample
from agentrl.evals.tasks import Loaded
from agentrl.rollout.render import Rendering
from agentrl.rollout.seeds import derive
from agentrl.workers.fleet import Job

INFRASTRUCTURE: tuple[FailureKind, ...] = ("environment", "policy_server")
"""Failures of which many in a row mean that something is down for good."""


class Plays(Protocol):
    """What a fleet does here."""

    async def play_one(self, job: Job) -> Group:
        """Play one job."""
        ...


def sample_seed(seed: int, key: Key) -> int:
    """Seed of a sample: it depends on the plan's seed and its key, not on what else is played."""
    return derive(seed, "eval", key.suite, key.task_id, key.number)


class Patience:
    """Ends an evaluation when `limit` samples in a row were lost to infrastructure."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._row = 0

    def note(self, sample: Sample) -> None:
        """Count `sample`.

        Raises:
            EngineError: the policy's server failed once too often.
            EnvError: the environment did.
        """
        if sample.failure in INFRASTRUCTURE:
            self._row += 1
        elif not sample.failure:
            self._row = 0
        if self._row >= self.limit:
            kind = EngineError if sample.failure == "policy_server" else EnvError
            raise kind(f"{self._row} samples in a row were lost; the last one: {sample.error}")


async def play_missing(
    fleet: Plays,
    suite: Loaded,
    missing: Iterable[tuple[Key, Task]],
    *,
    seed: int,
    reader: Rendering,
    at_once: int,
    patience: Patience,
    done: Callable[[Sample], None],
) -> None:
    """Play `missing`, `at_once` at a time; `done` takes each sample as soon as it is there.

    One that is lost is a sample with a `failure`; only `patience` and `done` end the playing
    early, with their own error, and a cancellation, whose samples are not taken.
    """
    waiting: Iterator[tuple[Key, Task]] = iter(missing)

    async def player() -> None:
        for key, task in waiting:
            sample = await play_sample(fleet, suite, key, task, seed=seed, reader=reader)
            done(sample)
            patience.note(sample)

    try:
        async with asyncio.TaskGroup() as players:
            for _ in range(at_once):
                players.create_task(player())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def play_sample(
    fleet: Plays, suite: Loaded, key: Key, task: Task, *, seed: int, reader: Rendering
) -> Sample:
    """Play one sample; whatever goes wrong with it is in it, never raised."""
    own = sample_seed(seed, key)
    planned = suite.suite
    job = Job(
        task=task, group_id=group_id(key), seed=own, samples=1, temperature=planned.temperature
    )
    try:
        group = await fleet.play_one(job)
    except EngineError as error:
        return lost_sample(key, seed=own, failure="policy_server", error=str(error))
    except Exception as error:  # the boundary: one bad sample never ends an evaluation
        return lost_sample(key, seed=own, failure="environment", error=_told(error))
    try:
        return sample_of(group, key=key, seed=own, suite=planned, env=suite.env, reader=reader)
    except Exception as error:  # an environment's `answer_of` may raise anything
        return lost_sample(key, seed=own, failure="environment", error=_told(error))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, AgentRLError) else f"{type(error).__name__}: {error}"
