"""The client of an environment host: envs that stand for those in another process."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar, cast

from agentrl.adapters.connection import Asker, Connection, Deadlines
from agentrl.adapters.wire import (
    FrameError,
    Json,
    check_plain,
    decode_observation,
    decode_step,
    decode_task,
    encode_task,
    plain,
)
from agentrl.core.env import Env, Forkable, Observation, StepResult
from agentrl.core.errors import EnvError
from agentrl.core.types import Task

_T = TypeVar("_T")


class Hosts(Protocol):
    """Where the envs of a factory live: `HostPool`, or one `EnvHost` in a test."""

    async def pick(self) -> Connection:
        """A live connection for a new session, waiting for a restart if there is none."""
        ...

    def path(self) -> Path:
        """The socket of a host that is up."""
        ...


class Origin(Protocol):
    """What a `RemoteEnv` knows of the env that it stands for, and where its sessions are."""

    @property
    def env_id(self) -> str:
        """The env's name in messages."""
        ...

    @property
    def deadlines(self) -> Deadlines:
        """Seconds that its requests may take."""
        ...

    @property
    def tool_schemas(self) -> tuple[Mapping[str, object], ...]:
        """As the env's."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """As the env's."""
        ...

    def tasks(self, split: str) -> Sequence[Task]:
        """As the env's."""
        ...

    def gold_action(self, task: Task, turn: int) -> str | None:
        """As the env's."""
        ...

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """As the env's."""
        ...

    async def pick(self) -> Connection:
        """A live connection for a new session."""
        ...

    async def open(self, connection: Connection) -> int:
        """The number of a new session on `connection`."""
        ...

    async def unused(self) -> None:
        """Hear that a session was closed: connections that have none may end."""
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
        self._asker: Asker | None = None
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

    async def pick(self) -> Connection:
        """A live connection to one of the hosts."""
        return await self.hosts.pick()

    async def open(self, connection: Connection) -> int:
        """The number of a new session on `connection`."""
        return await open_session(self, connection, self.arguments)

    async def unused(self) -> None:
        """The pool keeps its connections."""
        return

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
                seconds = self.deadlines.open
                self._asker = Asker(self.hosts.path(), self.env_id, self.arguments, seconds=seconds)
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


async def open_session(
    origin: Origin, connection: Connection, arguments: Mapping[str, Json]
) -> int:
    """The number of a new session of `origin`'s env on `connection`."""
    session = connection.new_session()
    request = ("open", session, origin.env_id, arguments)
    try:
        await connection.call(*request, seconds=origin.deadlines.open, env_id=origin.env_id)
    except BaseException:
        connection.forget(session)
        raise
    return session


class RemoteEnv(Env):
    """Behaves as the env that it stands for, which lives in an environment host.

    The session is opened by the first `reset` and again after its host died or a request was
    given up (deadline, cancellation): a session in an unknown state is never used again.
    """

    def __init__(self, factory: Origin) -> None:
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
            connection = await self._factory.pick()
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
        forked = copy.copy(self)
        forked._adopt(connection, session)
        return forked

    async def close(self) -> None:
        """End the session; a host that died has ended it already."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await self._end(connection)
            finally:
                # Counted until its answer is there: nobody hangs up before.
                connection.sessions -= 1
        await self._factory.unused()

    async def _end(self, connection: Connection) -> None:
        if not connection.alive:
            return
        seconds, env_id = self._factory.deadlines.close, self._factory.env_id
        try:
            await connection.call("close", self._session, seconds=seconds, env_id=env_id)
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
