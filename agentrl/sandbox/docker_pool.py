"""Containers that are used again: bounded in number, cleaned between uses, replaced in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentrl.core.errors import EnvError
from agentrl.core.threads import in_thread
from agentrl.sandbox.docker_daemon import Container, Daemon, Shape
from agentrl.sandbox.docker_link import LinkError, Reply
from agentrl.sandbox.settings import DockerSettings

_RESET_SECONDS: Final = 10.0


class Pool:
    """At most `settings.containers` live at once, those that wait for a use included.

    A container is given out clean: no process, no file, no shared memory of an earlier use. One
    that cannot be cleaned, whose user asks for it, or that had `settings.recycle` uses is removed.
    """

    def __init__(self, settings: DockerSettings, daemon: Daemon) -> None:
        self._settings = settings
        self._daemon = daemon
        self._slots = asyncio.Semaphore(settings.containers)
        self._starting = 0
        self._idle: list[Container] = []
        self._used: set[Container] = set()
        self._removals: set[asyncio.Task[None]] = set()
        self._preparing = asyncio.Lock()
        self._prepared = False
        self._closed = False

    async def take(self, shape: Shape) -> Container:
        """A clean container of this shape, once one is free; `give` it back."""
        await self._prepare()
        await self._slots.acquire()
        try:
            container = await self._reused(shape) or await self._started(shape)
        except BaseException:
            self._slots.release()
            raise
        container.uses += 1
        self._used.add(container)
        return container

    async def give(self, container: Container, *, fine: bool) -> None:
        """Take a container back; keep it where it is `fine` and can be made clean."""
        self._used.discard(container)
        keep = fine and not self._closed and container.uses < self._settings.recycle
        try:
            keep = keep and await self._clean(container)
        except BaseException:
            keep = False
            raise
        finally:
            if keep and not self._closed:
                self._idle.append(container)
                self._slots.release()
            else:
                self._remove(container, slot=True)

    async def ask(
        self,
        container: Container,
        header: Mapping[str, Any],
        blobs: Sequence[bytes] = (),
        *,
        seconds: float,
    ) -> Reply:
        """The guest's reply.

        Raises:
            LinkError: it does not answer in time, or the container is gone.
        """
        exchange = in_thread(lambda: container.link.exchange(header, blobs, seconds=seconds))
        try:
            return await asyncio.wait_for(exchange, seconds + 1.0)
        except TimeoutError as error:
            raise LinkError("no answer in time") from error

    async def close(self) -> None:
        """Remove every container, and those of dead owners."""
        self._closed = True
        for container in (*self._idle, *self._used):
            self._remove(container, slot=False)
        self._idle.clear()
        self._used.clear()
        await asyncio.gather(*self._removals)
        if self._prepared:
            self._prepared = False
            await self._daemon.sweep(own=True)

    async def _prepare(self) -> None:
        async with self._preparing:
            if self._closed:
                raise EnvError("the Docker sandbox was used after it was closed")
            if not self._prepared:
                await self._daemon.prepare()
                self._prepared = True

    async def _reused(self, shape: Shape) -> Container | None:
        for container in [one for one in self._idle if one.shape == shape][::-1]:
            if container not in self._idle:
                continue
            self._idle.remove(container)
            # It may have been killed from outside while it waited.
            if await self._clean(container):
                return container
            self._remove(container, slot=False)
        return None

    async def _started(self, shape: Shape) -> Container:
        self._starting += 1
        try:
            while self._idle and self._live() > self._settings.containers:
                self._remove(self._idle.pop(0), slot=False)
            container = await self._daemon.start(shape)
        finally:
            self._starting -= 1
        if self._closed:
            self._remove(container, slot=False)
            raise EnvError("the Docker sandbox was closed while a container started")
        return container

    def _live(self) -> int:
        return self._starting + len(self._idle) + len(self._used)

    async def _clean(self, container: Container) -> bool:
        try:
            reply = await self.ask(container, {"do": "reset"}, seconds=_RESET_SECONDS)
        except LinkError:
            return False
        return bool(reply.header.get("clean"))

    def _remove(self, container: Container, *, slot: bool) -> None:
        """Remove in the background; `slot` is freed when it is gone."""

        async def work() -> None:
            try:
                await self._daemon.remove(container)
            except EnvError:
                # Its stream is closed, so that it ends by itself; a sweep takes what is left.
                return
            finally:
                if slot:
                    self._slots.release()

        task = asyncio.create_task(work())
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
