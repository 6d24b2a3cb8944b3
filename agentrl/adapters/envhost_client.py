"""The client of an environment host: many env sessions over one socket, and envs that use them."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeAlias, TypeVar, cast

from agentrl.adapters.wire import (
    BATCH,
    PROTOCOL,
    FrameError,
    FrameReader,
    Json,
    check_plain,
    decode_observation,
    decode_step,
    decode_task,
    encode_frame,
    encode_task,
    plain,
)
from agentrl.core import errors
from agentrl.core.env import Env, Forkable, Observation, StepResult
from agentrl.core.errors import AgentRLError, EnvError
from agentrl.core.types import Task

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
                    call[0].set_exception(_error(message))
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


def _error(answer: Sequence[Json]) -> AgentRLError:
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


class Hosts(Protocol):
    """Where the envs of a factory live: `HostPool`, or one `EnvHost` in a test."""

    async def pick(self) -> Connection:
        """A live connection for a new session, waiting for a restart if there is none."""
        ...

    def path(self) -> Path:
        """The socket of a host that is up."""
        ...


class EnvFactory:
    """Makes the `RemoteEnv`s of one env id and its arguments; all mirror the same class.

    `describe` must have been awaited. `tasks`, `gold_action` and `expert_action` are ordinary
    methods of an env, so they ask the host over a blocking socket of their own: once a split,
    once an action.
    """

    def __init__(
        self,
        hosts: Hosts,
        env_id: str,
        arguments: Mapping[str, object],
        *,
        deadlines: Deadlines,
    ) -> None:
        check_plain(arguments, where=f"arguments of {env_id}")
        self.hosts = hosts
        self.env_id = env_id
        self.arguments = cast("Mapping[str, Json]", plain(arguments))
        self.deadlines = deadlines
        self.forkable: Forkable = "no"
        self.stop: tuple[str, ...] = ()
        self.tool_schemas: tuple[Mapping[str, object], ...] = ()
        self._class: type[RemoteEnv] = RemoteEnv
        self._tasks: dict[str, Sequence[Task]] = {}
        self._asker: _Asker | None = None
        self._lock = threading.Lock()

    async def describe(self) -> None:
        """Open the env once and mirror what its class says of itself."""
        connection = await self.hosts.pick()
        session = await self.open(connection)
        try:
            seconds = self.deadlines.open
            match await connection.call("describe", session, seconds=seconds, env_id=self.env_id):
                case [("copy" | "replay" | "no") as forkable, list(stop), list(schemas)]:
                    self.forkable = forkable
                    # Its own class: `forkable` belongs to classes, and messages name it.
                    name = self.env_id.rpartition(":")[2]
                    self._class = type(name, (RemoteEnv,), {"forkable": forkable})
                    self.stop = tuple([str(one) for one in stop])
                    self.tool_schemas = tuple(cast("list[Mapping[str, object]]", schemas))
                case other:
                    raise EnvError(f"{self.env_id}: the host describes it as {other!r}")
        finally:
            connection.forget(session)

    async def open(self, connection: Connection) -> int:
        """The number of a new session on `connection`."""
        session = connection.new_session()
        request = ("open", session, self.env_id, self.arguments)
        try:
            await connection.call(*request, seconds=self.deadlines.open, env_id=self.env_id)
        except BaseException:
            connection.forget(session)
            raise
        return session

    def __call__(self) -> RemoteEnv:
        """A new env; nothing is sent before its first `reset`."""
        return self._class(self)

    def tasks(self, split: str) -> Sequence[Task]:
        """The env's tasks, asked for once."""
        if split not in self._tasks:
            answer = self._ask("tasks", split)
            self._tasks[split] = tuple([decode_task(one) for one in cast("list[Json]", answer)])
        return self._tasks[split]

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The env's gold action."""
        answer = self._ask("gold", encode_task(task), turn)
        return None if answer is None else str(answer)

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The env's expert action."""
        answer = self._ask("expert", encode_task(task), list(seen))
        return None if answer is None else str(answer)

    def _ask(self, operation: str, *arguments: Json) -> Json:
        with self._lock:
            if self._asker is None:
                self._asker = _Asker(self)
            try:
                return self._asker.ask(operation, 1, *arguments)
            except OSError as error:
                self._asker.close()
                self._asker = None
                raise EnvError(f"{self.env_id}: {operation} was lost: {error}") from error

    def close(self) -> None:
        """Drop the blocking socket; may be called twice."""
        with self._lock:
            if self._asker is not None:
                self._asker.close()
                self._asker = None


class _Asker:
    """A blocking connection with one session, for the methods of an env that are not coroutines."""

    def __init__(self, factory: EnvFactory) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(factory.deadlines.open)
        self._reader = FrameReader()
        try:
            self._socket.connect(str(factory.hosts.path()))
            self.ask("hello", 0, PROTOCOL)
            self.ask("open", 1, factory.env_id, factory.arguments)
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
                    raise _error(answer)
                return answer[1]

    def close(self) -> None:
        """Drop the socket."""
        self._socket.close()


class RemoteEnv(Env):
    """Behaves as the env that it stands for, which lives in an environment host.

    The session is opened by the first `reset` and again after its host died or a request was
    given up (deadline, cancellation): a session in an unknown state is never used again.
    """

    def __init__(self, factory: EnvFactory) -> None:
        self._factory = factory
        self._connection: Connection | None = None
        self._session = 0

    def __repr__(self) -> str:
        return f"<RemoteEnv of {self._factory.env_id}>"

    def tasks(self, split: str) -> Sequence[Task]:
        """The env's tasks; blocks for one exchange with the host, the first time."""
        return self._factory.tasks(split)

    @property
    def tool_schemas(self) -> tuple[Mapping[str, object], ...]:
        """The env's schemas, as it described itself."""
        return self._factory.tool_schemas

    @property
    def stop(self) -> tuple[str, ...]:
        """The env's stop strings, as it described itself."""
        return self._factory.stop

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The env's gold action; blocks for one exchange with the host."""
        return self._factory.gold_action(task, turn)

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The env's expert action; blocks for one exchange with the host."""
        return self._factory.expert_action(task, seen)

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """Start an episode, on another host if the last one died."""
        request = encode_task(task)
        if self._connection is None or not self._connection.alive:
            self._release()
            connection = await self._factory.hosts.pick()
            self._adopt(connection, await self._factory.open(connection))
        seconds = self._factory.deadlines.reset
        return await self._call(decode_observation, seconds, "reset", request, seed)

    async def step(self, action: str) -> StepResult:
        """Play one turn."""
        return await self._call(decode_step, self._factory.deadlines.step, "step", action)

    async def fork(self) -> Self:
        """A copy of the env at this turn, in the same host."""
        if self.forkable != "copy":
            return await super().fork()
        connection = self._live()
        session = connection.new_session()
        try:
            await self._call(_nothing, self._factory.deadlines.reset, "fork", session)
        except BaseException:
            connection.forget(session)
            raise
        forked = type(self)(self._factory)
        forked._adopt(connection, session)
        return forked

    async def close(self) -> None:
        """End the session; a host that died has ended it already."""
        connection, session = self._release()
        if connection is not None and connection.alive:
            try:
                seconds = self._factory.deadlines.close
                await connection.call(
                    "close", session, seconds=seconds, env_id=self._factory.env_id
                )
            except EnvError:
                if connection.alive:
                    raise

    def _adopt(self, connection: Connection, session: int) -> None:
        connection.sessions += 1
        self._connection, self._session = connection, session

    def _release(self) -> tuple[Connection | None, int]:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.sessions -= 1
        return connection, self._session

    def _live(self) -> Connection:
        if self._connection is None:
            raise EnvError(f"{self._factory.env_id}: no session is open; reset comes first")
        return self._connection

    async def _call(
        self, decode: Callable[[Json], _T], seconds: float, operation: str, *arguments: Json
    ) -> _T:
        env_id = self._factory.env_id
        try:
            answer = await self._live().call(
                operation, self._session, *arguments, seconds=seconds, env_id=env_id
            )
            return decode(answer)
        except FrameError as error:
            self._give_up()
            raise EnvError(f"{env_id}: the host's answer cannot be read: {error}") from error
        except BaseException:
            # The env is in a state that nobody knows: the next reset opens another session.
            self._give_up()
            raise

    def _give_up(self) -> None:
        connection, session = self._release()
        if connection is not None:
            connection.forget(session)


def _nothing(answer: Json) -> None:
    if answer is not None:
        raise FrameError(f"expected nothing, got {answer!r}")
