"""How often a server may be asked: requests and tokens in every window of a minute."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

WINDOW_SECONDS: Final = 60.0


@dataclass(slots=True, eq=False)
class Asked:
    """One request that was let through: when, for how many tokens, if still counted."""

    at: float
    tokens: int
    counted: bool = True


class Window:
    """A log of the last minute: no window of it holds more requests or tokens than allowed.

    A request for more tokens than a minute has is let through alone. Times are handed in, in
    order.
    """

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        """None: without a limit."""
        self._requests = requests
        self._limit = tokens
        self._log: deque[Asked] = deque()
        self._tokens = 0

    def wait(self, now: float, tokens: int) -> float:
        """Seconds until a request of `tokens` may go, if nothing else happens; 0.0: now."""
        while self._log and self._log[0].at + WINDOW_SECONDS <= now:
            gone = self._log.popleft()
            gone.counted = False
            self._tokens -= gone.tokens
        free_at = now
        if self._requests is not None and len(self._log) >= self._requests:
            free_at = self._log[len(self._log) - self._requests].at + WINDOW_SECONDS
        if self._limit is not None:
            over = self._tokens + min(tokens, self._limit) - self._limit
            for one in self._log:
                if over <= 0:
                    break
                over -= one.tokens
                free_at = max(free_at, one.at + WINDOW_SECONDS)
        return max(free_at - now, 0.0)

    def take(self, now: float, tokens: int) -> Asked:
        """Let a request through; only when `wait` is 0."""
        if self._requests is None and self._limit is None:
            return Asked(now, tokens, counted=False)
        asked = Asked(now, tokens if self._limit is None else min(tokens, self._limit))
        self._log.append(asked)
        self._tokens += asked.tokens
        return asked

    def correct(self, asked: Asked, tokens: int) -> None:
        """Put what the request really used in the place of what was reserved for it."""
        if asked.counted:
            self._tokens += tokens - asked.tokens
            asked.tokens = tokens


class Pace:
    """Lets requests through in the order they came, as fast as a `Window` and the server allow."""

    def __init__(
        self,
        requests: int | None = None,
        tokens: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Limits per minute; `clock` in seconds."""
        self._window = Window(requests, tokens)
        self._clock = clock
        self._quiet_until = -float("inf")
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def admit(self, tokens: int) -> Asked:
        """Wait until a request of about `tokens` (prompt and completion) may be sent."""
        async with self._turn:
            while True:
                now = self._clock()
                wait = max(self._window.wait(now, tokens), self._quiet_until - now)
                if wait <= 0:
                    return self._window.take(now, tokens)
                self._changed.clear()
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    def correct(self, asked: Asked, tokens: int) -> None:
        """Count what a request really used; one that waits for room may go earlier."""
        self._window.correct(asked, tokens)
        self._changed.set()

    def hold(self, seconds: float) -> None:
        """Send nothing for so long: the server asked for it."""
        self._quiet_until = max(self._quiet_until, self._clock() + seconds)
