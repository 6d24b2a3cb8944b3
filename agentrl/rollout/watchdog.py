"""A stall watchdog: names the environment that is stuck, even one that blocks the event loop."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import NamedTuple

from agentrl.rollout.episode import LiveEpisode

log = logging.getLogger(__name__)


class Stall(NamedTuple):
    """A live episode that has been in one phase for a long time."""

    environment: str
    task_id: str
    group_id: str
    phase: str
    seconds: float


def stalls(episodes: Sequence[LiveEpisode], after: float) -> list[Stall]:
    """Those of `episodes` in a phase for more than `after` seconds, longest first."""
    now = monotonic()
    found = [
        Stall(
            episode.environment,
            episode.task.id,
            episode.tree.group_id,
            episode.phase,
            now - episode.phase_since,
        )
        for episode in episodes
        if episode.phase not in ("idle", "waiting") and now - episode.phase_since > after
    ]
    return sorted(found, key=lambda stall: -stall.seconds)


class Watchdog:
    """A thread that logs stalls and a blocked event loop, with the line of code that blocks it."""

    def __init__(self, find: Callable[[float], list[Stall]], *, seconds: float) -> None:
        self._find = find
        self._seconds = seconds
        self._stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat = monotonic()
        self._thread = threading.Thread(target=self._watch, name="agentrl-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(self._seconds / 2):
            blocked = monotonic() - self._beat
            if blocked > self._seconds:
                log.warning("%s", self._blocker(blocked))
            for stall in self._find(self._seconds):
                log.warning(
                    "%s has been in %s for %.0f s (task %r, group %r)",
                    stall.environment,
                    stall.phase,
                    stall.seconds,
                    stall.task_id,
                    stall.group_id,
                )
            try:
                self._loop.call_soon_threadsafe(self._tick)
            except RuntimeError:  # the loop is closed: nothing left to watch
                return

    def _tick(self) -> None:
        self._beat = monotonic()

    def _blocker(self, seconds: float) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        where = "unknown code"
        if frame is not None:
            where = f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"
        return (
            f"the event loop has been blocked for {seconds:.0f} s by {where}; no episode moves. "
            "Synchronous code belongs in a thread or in an environment host"
        )
