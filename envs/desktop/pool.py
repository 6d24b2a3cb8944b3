"""A bounded pool of desktops: at most so many at once, and a few prepared ahead."""

from __future__ import annotations

import asyncio
import weakref
from typing import NamedTuple, TypeAlias

from agentrl.core.errors import EnvError

from .confinement import DesktopSettings
from .session import Desktop

ATTEMPTS = 3
"""How often a desktop that does not start is tried again."""


class PoolSettings(NamedTuple):
    """What desktops, how many alive at once, and how many of them wait ready for a reset."""

    desktop: DesktopSettings
    desktops: int = 16
    prepared: int = 0
    wait_seconds: float = 120.0


class DesktopPool:
    """Gives out fresh desktops; none is used twice."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self._free = asyncio.Semaphore(settings.desktops)
        self._ready: list[Desktop] = []
        self._preparing: set[asyncio.Task[None]] = set()
        self._given: weakref.WeakSet[Desktop] = weakref.WeakSet()
        self._closed = False

    async def acquire(self) -> Desktop:
        """A desktop that answers; `release` gives its place back.

        Raises:
            EnvError: none became free in time, or none started in `ATTEMPTS` attempts.
        """
        try:
            async with asyncio.timeout(self.settings.wait_seconds):
                await self._free.acquire()
        except TimeoutError as error:
            raise EnvError(
                f"none of {self.settings.desktops} desktops became free within "
                f"{self.settings.wait_seconds:g} s: raise `desktops`, or close environments"
            ) from error
        try:
            desktop = await self._healthy()
        except BaseException:
            self._free.release()
            raise
        self._given.add(desktop)
        self._prepare()
        return desktop

    async def release(self, desktop: Desktop) -> None:
        """End `desktop` and free its place; a second time does nothing."""
        if desktop in self._given:
            self._given.discard(desktop)
            self._free.release()
        await desktop.close()

    async def close(self) -> None:
        """End the desktops that wait; those given out are their owners'."""
        self._closed = True
        for task in self._preparing:
            task.cancel()
        await asyncio.gather(*self._preparing, return_exceptions=True)
        while self._ready:
            await self._ready.pop().close()

    async def _healthy(self) -> Desktop:
        while self._ready:
            desktop = self._ready.pop(0)
            try:
                await desktop.request("ping", seconds=5.0)
            except EnvError:
                await desktop.close()
                continue
            return desktop
        for _ in range(ATTEMPTS - 1):
            try:
                return await Desktop.start(self.settings.desktop)
            except EnvError:
                # A machine that is short of something may have it a moment later.
                await asyncio.sleep(0.2)
        return await Desktop.start(self.settings.desktop)

    def _prepare(self) -> None:
        """See that `prepared` desktops are ready or on their way."""
        missing = self.settings.prepared - len(self._ready) - len(self._preparing)
        for _ in range(0 if self._closed else missing):
            task = asyncio.get_running_loop().create_task(self._make_ready())
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def _make_ready(self) -> None:
        try:
            desktop = await Desktop.start(self.settings.desktop)
        except EnvError:
            # The reset that would have had it starts one itself, and says what is wrong.
            return
        self._ready.append(desktop)


_Pools: TypeAlias = weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[PoolSettings, DesktopPool]
]
_pools: _Pools = weakref.WeakKeyDictionary()


def shared_pool(settings: PoolSettings) -> DesktopPool:
    """The pool of these settings in the running event loop; it lives as long as the process."""
    mine = _pools.setdefault(asyncio.get_running_loop(), {})
    if settings not in mine:
        mine[settings] = DesktopPool(settings)
    return mine[settings]
