"""Weights from the learner to every engine, with a version and a check that they arrived."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np

from agentrl.core.types import Float32
from agentrl.engine.probe import PROBE_BOUNDS, ProbeReport, check_probe
from agentrl.learner.base import PolicyLearner
from agentrl.recipe.schema import Recipe
from agentrl.workers.fleet import Fleet

_PROBE_TOKENS = 96
_SHARED_MEMORY = Path("/dev/shm")


def probe_bound(recipe: Recipe) -> float:
    """The recipe's bound, or what the coarser of engine's and learner's dtypes explains."""
    if recipe.policy.probe_bound is not None:
        return recipe.policy.probe_bound
    dtypes = {recipe.learner.dtype, getattr(recipe.engine, "dtype", "float32")}
    return max(PROBE_BOUNDS.get(dtype, 0.0) for dtype in dtypes)


class WeightSync:
    """Pushes weights and compares the log-probabilities of fixed probe tokens after each push.

    The file lies in shared memory of the machine where the learner's first rank runs; what other
    machines need of it is the fleet's affair. It is written over in place while no engine reads
    it: a member that is replaced between two pushes loads it too. A run that was killed and is
    resumed finds the same name again, so kills do not fill the memory.
    """

    def __init__(
        self,
        learner: PolicyLearner,
        fleet: Fleet,
        *,
        run: Path,
        vocabulary: int,
        bound: float,
        seed: int = 0,
    ) -> None:
        """`run` is the folder of the run, which names the file's."""
        base = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
        self._folder = base / f"agentrl-weights-{_digest(run)}"
        self._learner = learner
        self._fleet = fleet
        self._bound = bound
        rng = np.random.default_rng(seed)
        self._probe = rng.integers(0, vocabulary, _PROBE_TOKENS).astype(np.int32)
        self._previous: Float32 | None = None
        self.version = -1

    async def push(self, version: int) -> ProbeReport:
        """Give every engine the learner's weights as `version`; the worst engine's report.

        Raises `WeightSyncError` when an engine's log-probabilities are not the learner's.
        """
        path = self._folder / "weights.safetensors"

        async def write() -> None:
            await asyncio.to_thread(self._learner.publish, path)

        await self._fleet.load(path, version, write=write)
        expected = (await asyncio.to_thread(self._learner.score, [self._probe]))[0]
        reports = [
            check_probe(
                [found],
                [expected],
                bound=self._bound,
                version=version,
                previous_logprobs=None if self._previous is None else [self._previous],
            )
            for found in await self._fleet.score(self._probe)
        ]
        self._previous = expected
        self.version = version
        return max(reports, key=lambda report: report.largest)

    def close(self) -> None:
        """Delete the files."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _digest(run: Path) -> str:
    """A name that no other run, user or machine gives its file."""
    owner = f"{socket.gethostname()}:{os.getuid()}:{run.resolve()}"
    return hashlib.sha256(owner.encode()).hexdigest()[:16]
