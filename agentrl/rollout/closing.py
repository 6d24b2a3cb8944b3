"""Environments that a line has given up: each is closed once, within a deadline, to its end."""

from __future__ import annotations

import asyncio
import logging

from agentrl.core.env import Env
from agentrl.rollout.deadline import OverdueError, all_ended, within

log = logging.getLogger(__name__)


class Closing:
    """The environments of one line that are being closed, each for `seconds` at most.

    An environment belongs to the line that acts in it. What a line has no use for any more, and
    what reaches it when it no longer waits (a copy that came too late), belongs here.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._closing: set[asyncio.Task[None]] = set()

    def begin(self, env: Env) -> None:
        """Close `env` from now on, whoever waits for it."""
        task = asyncio.get_running_loop().create_task(self._close(env))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def ended(self) -> None:
        """Wait until all are closed or given up; cancellations are heard only then."""
        await all_ended(tuple(self._closing))

    async def _close(self, env: Env) -> None:
        try:
            await within(env.close(), self._seconds)
        except OverdueError:
            log.warning("%s did not close within %g s", type(env).__name__, self._seconds)
        except Exception as error:  # the episode is over: nothing is lost but the resource
            log.warning("%s did not close: %r", type(env).__name__, error)
