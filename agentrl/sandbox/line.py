"""The channel and the output pipes between the host and one live interpreter."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from agentrl.sandbox.guest import interpreter as guest
from agentrl.sandbox.output import Output, two_pipes


class Reply(NamedTuple):
    """What an interpreter said of a request."""

    status: int
    value: int


_MOST_UNASKED = 1 << 16
"""Bytes in which a program may forge replies before it is ended for it."""


def _unguessable() -> int:
    """A number for a request: a program must not answer one that it has not yet been given."""
    return int.from_bytes(os.urandom(4), "little")


class Line:
    """The channel and output pipes of one interpreter; a new one for each that is started."""

    def __init__(self, on_flood: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair()
        out, err = two_pipes()
        self.channel = ours
        self.channel.setblocking(False)
        self.outputs = tuple(Output(pipe[0], on_flood=on_flood) for pipe in (out, err))
        self.theirs: tuple[int, ...] = (theirs.detach(), out[1], err[1])
        self.waiting: asyncio.Future[dict[str, Any] | Reply] | None = None
        self.number, self.upcoming = 0, _unguessable()
        self._buffer = b""
        self._unasked = 0
        self._on_flood = on_flood
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.channel, self._readable)
        self._open = True

    def handed_over(self) -> None:
        """Close the guest's ends, which it has now."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = ()

    def close(self) -> None:
        """Close everything; may be called twice."""
        if self._open:
            self._open = False
            if not self._loop.is_closed():
                self._loop.remove_reader(self.channel)
            self.channel.close()
            self.handed_over()
            for output in self.outputs:
                output.close()

    async def ask(self, what: int, body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Send a request; the reply comes to `waiting`."""
        self.number, self.upcoming = self.upcoming, _unguessable()
        self._unasked = 0
        data = guest.REQUEST.pack(what, self.number, len(body)) + body
        try:
            if descriptors:
                data = data[socket.send_fds(self.channel, [data], list(descriptors)) :]
            else:
                data = data[self.channel.send(data) :]
            if data:
                await self._loop.sock_sendall(self.channel, data)
        except BlockingIOError:
            await self._loop.sock_sendall(self.channel, data)
        except OSError:
            return  # the interpreter has gone: the news of it is on its way

    def _readable(self) -> None:
        try:
            part = self.channel.recv(1 << 12)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._loop.remove_reader(self.channel)
            return
        self._unasked += len(part)
        if self._unasked > _MOST_UNASKED:
            self._loop.remove_reader(self.channel)
            self._on_flood()
            return
        self._buffer += part
        while len(self._buffer) >= guest.REPLY.size:
            number, status, value = guest.REPLY.unpack_from(self._buffer)
            self._buffer = self._buffer[guest.REPLY.size :]
            # Others are forged or late, and say nothing about this run.
            if number == self.number and self.waiting and not self.waiting.done():
                self.waiting.set_result(Reply(status, value))
