"""What envs have in common whose sessions are in another process, one place for many of them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import cast

from agentrl.adapters.connection import Connection, Deadlines
from agentrl.adapters.envhost_client import RemoteEnv, open_session
from agentrl.adapters.wire import Json, decode_task, encode_task
from agentrl.core.env import Forkable, StepResult
from agentrl.core.errors import EnvError, RecipeError
from agentrl.core.types import Task


class Elsewhere(ABC):
    """One place with one environment (an `Origin`), shared by all envs of this process that use it.

    Asks the place what the env is like when that is first needed. Keeps for each event loop the
    connections that have sessions.
    """

    def __init__(self, env_id: str, *, deadlines: Deadlines) -> None:
        self.env_id = env_id
        self.deadlines = deadlines
        self._described: tuple[Forkable, tuple[str, ...], tuple[Mapping[str, object], ...]] | None
        self._described = None
        self._tasks: dict[str, Sequence[Task]] = {}
        self._lock = threading.RLock()
        self._connections: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, list[Connection]
        ] = weakref.WeakKeyDictionary()
        self._connecting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._connecting = weakref.WeakKeyDictionary()

    @property
    def forkable(self) -> Forkable:
        """As the env's; blocks for one exchange, the first time."""
        return self._description[0]

    @property
    def stop(self) -> tuple[str, ...]:
        """As the env's; blocks for one exchange, the first time."""
        return self._description[1]

    @property
    def tool_schemas(self) -> tuple[Mapping[str, object], ...]:
        """As the env's; blocks for one exchange, the first time."""
        return self._description[2]

    @property
    def _description(
        self,
    ) -> tuple[Forkable, tuple[str, ...], tuple[Mapping[str, object], ...]]:
        with self._lock:
            if self._described is None:
                match self.ask("describe"):
                    case [("copy" | "replay" | "no") as forkable, list(stop), list(schemas)]:
                        told = tuple(cast("list[Mapping[str, object]]", schemas))
                        self._described = (forkable, tuple([str(one) for one in stop]), told)
                    case other:
                        raise EnvError(f"{self.env_id}: it describes itself as {other!r}")
            return self._described

    def tasks(self, split: str) -> Sequence[Task]:
        """The env's tasks, asked for once."""
        with self._lock:
            if split not in self._tasks:
                answer = cast("list[Json]", self.ask("tasks", split))
                self._tasks[split] = tuple([decode_task(one) for one in answer])
            return self._tasks[split]

    def gold_action(self, task: Task, turn: int) -> str | None:
        """The env's gold action."""
        return cast("str | None", self.ask("gold", encode_task(task), turn))

    def expert_action(self, task: Task, seen: Sequence[str]) -> str | None:
        """The env's expert action."""
        return cast("str | None", self.ask("expert", encode_task(task), list(seen)))

    async def pick(self) -> Connection:
        """The live connection of this event loop with the fewest sessions."""
        loop = asyncio.get_running_loop()
        known = self._connections.setdefault(loop, [])
        async with self._connecting.setdefault(loop, asyncio.Lock()):
            known[:] = [one for one in known if one.alive]
            least = min(known, key=lambda one: one.sessions, default=None)
            if least is None or (least.sessions and len(known) < self._width()):
                least = await self._connect()
                known.append(least)
            return least

    async def open(self, connection: Connection) -> int:
        """The number of a new session on `connection`."""
        try:
            return await open_session(self, connection, self._arguments())
        except EnvError as error:
            await self.explain(error, connection)
            raise

    async def unused(self) -> None:
        """End this event loop's connections that have no session."""
        known = self._connections.get(asyncio.get_running_loop(), [])
        for connection in [one for one in known if not one.sessions]:
            known.remove(connection)
            await self._hang_up(connection)

    def _width(self) -> int:
        """Connections that one event loop may have at most."""
        return 1

    def _arguments(self) -> Mapping[str, Json]:
        return {}

    @abstractmethod
    def ask(self, operation: str, *arguments: Json) -> Json:
        """The answer to a question that needs no session; blocks."""

    @abstractmethod
    async def _connect(self) -> Connection:
        """A new connection, greeted."""

    async def _hang_up(self, connection: Connection) -> None:
        connection.fail(f"{connection.name}: the connection was closed")

    async def explain(self, error: EnvError, connection: Connection | None) -> None:
        """Raise `error` with what became of the other side, where the connection to it ended."""
        if connection is None or connection.alive:
            return
        why = await self.why_lost(connection)
        if why not in str(error):
            raise EnvError(f"{error}; {why}") from error

    async def why_lost(self, connection: Connection) -> str:
        """What became of the other side, in words for an error message."""
        return connection.reason


class EnvElsewhere(RemoteEnv):
    """An env at an `Elsewhere`."""

    _factory: Elsewhere

    @property
    def forkable(self) -> Forkable:  # type: ignore[override]
        """As the env's that it stands for."""
        return self._factory.forkable

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._factory.env_id}>"

    async def step(self, action: str) -> StepResult:
        """Play one turn."""
        connection = self._connection
        try:
            return await super().step(action)
        except EnvError as error:
            await self._factory.explain(error, connection)
            raise


def check_seconds(where: str, *seconds: float) -> None:
    """`RecipeError` for a deadline that is not above 0."""
    if min(seconds) <= 0:
        raise RecipeError(f"{where}: deadlines must be above 0 s, got {list(seconds)}")
