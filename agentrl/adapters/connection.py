"""Connections to an environment host: many env sessions over one socket, or one that blocks."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar, cast

from agentrl.adapters.wire import (
    BATCH,
    PROTOCOL,
    FrameError,
    FrameReader,
    Json,
    encode_frame,
)
from agentrl.core import errors
from agentrl.core.errors import AgentRLError, EnvError

_SWEEP_SECONDS = 0.1
_T = TypeVar("_T")


# Answer, deadline, seconds, env id, operation, session. No NamedTuple: one is made for each step.
_Call: TypeAlias = tuple["asyncio.Future[Json]", float, float, str, str, int]


class Connection(asyncio.Protocol):
    """One socket to one host; any number of sessions, one request at a time in each.

    `lost` is called once when the socket ends; whoever gives it then calls `fail` with the reason
    (`HostProcess` waits for the exit code first). Without it the open calls fail at once.
    """

    def __init__(self, name: str, *, lost: Callable[[], None] | None = None) -> None:
        self.name = name
        self.sessions = 0
        self.reason = ""
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._calls: dict[int, _Call] = {}
        self._numbers = itertools.count(1)
        self._requests: list[Sequence[Json]] = []
        self._flushing = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(
        cls, path: Path, *, name: str, seconds: float, lost: Callable[[], None] | None = None
    ) -> Connection:
        """Connect to the host that listens at `path`; `OSError` when nobody does."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(lambda: cls(name, lost=lost), str(path))
        await connection.call("hello", 0, PROTOCOL, seconds=seconds)
        return connection

    @property
    def alive(self) -> bool:
        """True while requests can be sent."""
        return self._transport is not None and not self.reason

    @property
    def transport(self) -> asyncio.Transport | None:
        """What it writes to, while it lives."""
        return self._transport

    def new_session(self) -> int:
        """A session number that this connection has not used."""
        return next(self._numbers)

    def call(
        self, operation: str, session: int, *arguments: Json, seconds: float, env_id: str = ""
    ) -> asyncio.Future[Json]:
        """The host's answer; the host's error, or `EnvError` after `seconds` or at its end."""
        if self._transport is None or self.reason:
            raise EnvError(_prefix(env_id) + (self.reason or f"{self.name} is not connected"))
        number = next(self._numbers)
        loop = self._loop
        answer: asyncio.Future[Json] = loop.create_future()
        deadline = loop.time() + seconds
        self._calls[number] = (answer, deadline, seconds, env_id, operation, session)
        if self._sweeper is None:
            self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)
        self._requests.append((number, operation, session, *arguments))
        if len(self._requests) >= BATCH:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        return answer

    def forget(self, session: int) -> None:
        """Close `session` without waiting; a request that it is at is cancelled."""
        if self.alive:
            self._requests.append((next(self._numbers), "close", session))
            self._flush()

    def fail(self, reason: str) -> None:
        """End the connection: every call that waits gets `EnvError` with `reason`."""
        self.reason = self.reason or reason
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        calls, self._calls = self._calls, {}
        for answer, _, _, env_id, operation, _ in calls.values():
            if not answer.done():
                text = f"{_prefix(env_id)}{operation} was lost: {self.reason}"
                answer.set_exception(EnvError(text))
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def oldest(self) -> str:
        """The request that waits longest, in words."""
        for answer, _, _, env_id, operation, session in self._calls.values():
            if operation != "ping" and not answer.done():
                return f"{operation} of {env_id or 'no env'} (session {session})"
        return "no request"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, or fail what waits."""
        self._transport = None
        if self._lost is not None:
            self._lost()
        else:
            self.fail(f"{self.name} ended the connection")

    def data_received(self, data: bytes) -> None:
        """Hand each answer to the call that waits for it."""
        calls = self._calls
        try:
            for message in self._reader.feed(data):
                call = calls.pop(cast(int, message[0]), None)
                if call is None or call[0].done():
                    self._unasked(message)
                elif len(message) == 2:
                    call[0].set_result(message[1])
                else:
                    call[0].set_exception(told_error(message))
        except (FrameError, TypeError) as error:
            self.fail(f"{self.name} broke the protocol: {error}")

    def _unasked(self, message: list[Json]) -> None:
        # Number 0 is the host hanging up; others are late: their deadline or task has ended.
        if message[0] == 0:
            raise FrameError(f"it refused us: {message[-1]}")

    def _flush(self) -> None:
        self._flushing = False
        requests, self._requests = self._requests, []
        if not requests or self._transport is None or self._transport.is_closing():
            return
        try:
            self._transport.write(encode_frame(requests))
        except FrameError:
            for request in requests:
                self._send_alone(request)

    def _send_alone(self, request: Sequence[Json]) -> None:
        try:
            frame = encode_frame([request])
        except FrameError as error:
            call = self._calls.pop(cast(int, request[0]), None)
            if call is not None and not call[0].done():
                text = f"{_prefix(call[3])}{call[4]} was not sent: {error}"
                call[0].set_exception(EnvError(text))
            return
        if self._transport is not None:
            self._transport.write(frame)

    def _sweep(self) -> None:
        """Fail the calls whose deadline has passed: one timer for all is cheaper than one each."""
        self._sweeper = None
        now = self._loop.time()
        late = [number for number, call in self._calls.items() if call[1] <= now]
        for number in late:
            answer, _, seconds, env_id, operation, session = self._calls.pop(number)
            if not answer.done():
                text = (
                    f"{_prefix(env_id)}{operation} passed its deadline of {seconds:g} s on "
                    f"{self.name} (session {session})"
                )
                answer.set_exception(EnvError(text))
        if self._calls:
            self._sweeper = self._loop.call_later(_SWEEP_SECONDS, self._sweep)


def _prefix(env_id: str) -> str:
    return f"{env_id}: " if env_id else ""


def told_error(answer: Sequence[Json]) -> AgentRLError:
    """The error that a host's `[number, class, message]` tells of."""
    kind = getattr(errors, str(answer[1]), None)
    message = str(answer[2]) if len(answer) > 2 else "no reason given"
    if isinstance(kind, type) and issubclass(kind, AgentRLError):
        return kind(message)
    return EnvError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds that each request to a host may take."""

    open: float = 60.0
    reset: float = 120.0
    step: float = 120.0
    close: float = 10.0


class Asker:
    """A blocking connection with one session, for the methods of an env that are not coroutines."""

    def __init__(
        self, path: Path, env_id: str, arguments: Mapping[str, Json], *, seconds: float
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)
        self._reader = FrameReader()
        try:
            self._socket.connect(str(path))
            self.ask("hello", 0, PROTOCOL)
            self.ask("open", 1, env_id, arguments)
        except BaseException:
            self.close()
            raise

    def ask(self, operation: str, session: int, *arguments: Json) -> Json:
        """The answer; the host's error, or `OSError` when it is gone or takes too long."""
        self._socket.sendall(encode_frame([(1, operation, session, *arguments)]))
        while True:
            data = self._socket.recv(2**18)
            if not data:
                raise ConnectionResetError("the environment host ended the connection")
            for answer in self._reader.feed(data):
                if len(answer) != 2:
                    raise told_error(answer)
                return answer[1]

    def close(self) -> None:
        """Drop the socket."""
        self._socket.close()
