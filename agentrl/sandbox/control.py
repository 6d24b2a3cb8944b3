"""The host's side of a family's control socket: questions, answers and news."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from agentrl.core.errors import EnvError
from agentrl.sandbox.guest import wire

_HEAD = 8

News: TypeAlias = Callable[[dict[str, Any] | None], None]


class Control:
    """Frames to and from the first process of a family; answers come in the order of questions.

    `on_news` gets frames that answer nothing (something has ended), and None when the family has
    gone. What comes from here is the sandbox's word: no program of the policy can write it.
    """

    def __init__(
        self, end: socket.socket, on_news: Callable[[dict[str, Any] | None], None]
    ) -> None:
        end.setblocking(False)
        self._end = end
        self.on_news = on_news
        self._asked: deque[asyncio.Future[wire.Frame]] = deque()
        self._buffer = bytearray()
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._readable)
        self.gone = False

    async def ask(
        self,
        what: str,
        header: dict[str, Any] | None = None,
        blobs: Sequence[bytes] = (),
        descriptors: Sequence[int] = (),
    ) -> wire.Frame:
        """Ask and wait for the answer.

        Raises:
            OSError: the question could not be carried out; as it happened in the container.
            EnvError: the family has gone.
        """
        answer: asyncio.Future[wire.Frame] = self._loop.create_future()
        async with self._sending:
            self._asked.append(answer)
            await self._send({"do": what, **(header or {})}, blobs, descriptors)
        frame = await answer
        if "error" in frame.header:
            raise OSError(frame.header["errno"], frame.header["error"])
        return frame

    async def say(
        self, what: str, header: dict[str, Any], blobs: Sequence[bytes], descriptors: Sequence[int]
    ) -> None:
        """Say something long that wants no answer; what goes wrong is news with an `error`."""
        async with self._sending:
            await self._send({"do": what, "quiet": True, **header}, blobs, descriptors)

    def tell(self, what: str, header: dict[str, Any] | None = None) -> None:
        """Say something short that wants no answer."""
        if not self.gone and not self._sending.locked():
            with contextlib.suppress(OSError):
                self._end.send(wire.pack({"do": what, "quiet": True, **(header or {})}))

    async def _send(
        self, header: dict[str, Any], blobs: Sequence[bytes], descriptors: Sequence[int]
    ) -> None:
        data = memoryview(wire.pack(header, list(blobs)))
        try:
            if self.gone:
                raise OSError("it has gone")
            if descriptors:
                sent = socket.send_fds(self._end, [data[: 1 << 15]], list(descriptors))
                data = data[sent:]
            if data:
                await self._loop.sock_sendall(self._end, data)
        except OSError as error:
            self._lose()
            raise EnvError(f"a sandbox session has gone: {error}") from error
        except BaseException:
            self._lose()  # half a frame may have been sent
            raise

    def close(self) -> None:
        """Let the family know that nobody needs this member; may be called twice."""
        if not self.gone:
            self._lose(tell=False)

    def _readable(self) -> None:
        try:
            part = self._end.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._lose()
            return
        self._buffer += part
        while len(self._buffer) >= _HEAD:
            head, rest = wire.lengths(self._buffer)
            if len(self._buffer) < _HEAD + head + rest:
                return
            body = bytes(self._buffer[_HEAD : _HEAD + head + rest])
            del self._buffer[: _HEAD + head + rest]
            self._take(wire.parse(body, head, []))

    def _take(self, frame: wire.Frame) -> None:
        if "ended" in frame.header:
            self.on_news(frame.header)
        elif self._asked:
            answer = self._asked.popleft()
            if not answer.done():
                answer.set_result(frame)
        else:
            self.on_news(frame.header)

    def _lose(self, *, tell: bool = True) -> None:
        if self.gone:
            return
        self.gone = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._end)
        self._end.close()
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(EnvError("a sandbox session's processes have gone"))
        if tell:
            self.on_news(None)
