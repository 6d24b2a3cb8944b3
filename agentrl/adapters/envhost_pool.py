"""Environment hosts as subprocesses: started, watched, restarted and ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import Field

from agentrl.adapters.connection import Connection, Deadlines
from agentrl.adapters.envhost import EXIT_MEMORY
from agentrl.adapters.envhost_client import EnvFactory
from agentrl.core.errors import EnvError
from agentrl.core.settings import Settings

_PREFIX = "agentrl-hosts-"
_STALE_SECONDS = 60.0
_TAIL = 4096
_CONNECT_SECONDS = 0.02
_REAP_SECONDS = 2.0


class HostSettings(Settings):
    """How environment hosts run.

    `python` is the interpreter of another virtual environment, where an env's dependencies would
    clash with those of this one; it needs agentrl installed. `memory_mb` is resident memory of
    one host, 0 for no cap. A host that answers no ping for `hang_seconds` is killed: an env that
    computes for longer without an `await` needs a larger value. `restarts` deaths in a row, each
    within `stable_seconds` of the start, and the host is given up.
    """

    hosts: int = Field(default=1, ge=1)
    python: str = ""
    memory_mb: int = Field(default=0, ge=0)
    start_seconds: float = Field(default=60.0, gt=0)
    ping_seconds: float = Field(default=5.0, gt=0)
    hang_seconds: float = Field(default=60.0, gt=0)
    restarts: int = Field(default=5, ge=0)
    backoff_seconds: float = Field(default=0.1, ge=0)
    stable_seconds: float = Field(default=30.0, ge=0)


class HostProcess:
    """One environment host in a process of its own, restarted when it dies.

    Its sessions die with it: their calls fail at once with an `EnvError` that names the env and
    how the process ended. The host and everything that it started end with this process, also
    when this process is killed.
    """

    def __init__(self, settings: HostSettings, *, directory: Path, name: str) -> None:
        self.settings = settings
        self.name = name
        self.socket = directory / f"{name}.sock"
        self.deaths = 0
        self.pid = 0
        self.connection: Connection | None = None
        self._tail = b""
        self._reason = ""
        self._changed = asyncio.Condition()
        self._supervisor: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process and wait until it serves; `EnvError` when it does not."""
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise())
        await self.ready()

    async def ready(self) -> Connection:
        """The live connection; waits for a restart, `EnvError` when the host is given up."""
        seconds = self.settings.start_seconds
        try:
            async with asyncio.timeout(seconds), self._changed:
                while self.connection is None or not self.connection.alive:
                    if self._reason:
                        raise EnvError(self._reason)
                    await self._changed.wait()
                return self.connection
        except TimeoutError as error:
            raise EnvError(f"{self.name} was not ready within {seconds:g} s") from error

    async def close(self) -> None:
        """End the process and its children; may be called twice."""
        await self._give_up(f"{self.name} was closed")
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started = loop.time()
            try:
                ending = await self._live_once()
            except OSError as error:
                ending = f"environment {self.name} could not be started: {error}"
            self.deaths += 1
            failures = 1 if loop.time() - started > self.settings.stable_seconds else failures + 1
            if failures > self.settings.restarts:
                await self._give_up(f"{ending}; it died {failures} times in a row and is given up")
                return
            await asyncio.sleep(min(10.0, self.settings.backoff_seconds * 2 ** (failures - 1)))

    async def _give_up(self, reason: str) -> None:
        async with self._changed:
            self._reason = self._reason or reason
            self._changed.notify_all()

    async def _live_once(self) -> str:
        """One life of the process; returns how it ended, after failing what it left behind."""
        process = await self._spawn()
        self.pid = process.pid
        reader = asyncio.get_running_loop().create_task(self._read_tail(process))
        lost = asyncio.Event()
        connection: Connection | None = None
        hang = ""
        try:
            connection = await self._connect(process, lost)
            if connection is None and process.returncode is None:
                hang = f"it did not listen within {self.settings.start_seconds:g} s"
            elif connection is not None:
                async with self._changed:
                    self.connection = connection
                    self._changed.notify_all()
                hang = await self._until_lost(process, connection, lost)
        finally:
            ending = await self._end(process, reader, hang=hang)
            if connection is not None:
                connection.fail(self._reason or ending)
            self.connection = None
        return ending

    async def _spawn(self) -> Process:
        settings = self.settings
        environment = dict(os.environ)
        if not settings.python:
            # The host imports what this process can import: a checkout, a test's directory.
            environment["PYTHONPATH"] = os.pathsep.join([part for part in sys.path if part])
        self._tail = b""
        self.socket.unlink(missing_ok=True)
        return await asyncio.create_subprocess_exec(
            *(settings.python or sys.executable, "-m", "agentrl.adapters.envhost"),
            *("--socket", str(self.socket), "--parent", str(os.getpid())),
            *("--memory-mb", str(settings.memory_mb)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=environment,
            start_new_session=True,
        )

    async def _read_tail(self, process: Process) -> None:
        assert process.stdout is not None
        while data := await process.stdout.read(_TAIL):
            self._tail = (self._tail + data)[-_TAIL:]

    async def _connect(self, process: Process, lost: asyncio.Event) -> Connection | None:
        """The first connection, or None when the process dies or takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.start_seconds
        while process.returncode is None and loop.time() < deadline:
            with contextlib.suppress(OSError):
                seconds = deadline - loop.time()
                return await Connection.open(
                    self.socket, name=self.name, seconds=seconds, lost=lost.set
                )
            await asyncio.sleep(_CONNECT_SECONDS)
        return None

    async def _until_lost(
        self, process: Process, connection: Connection, lost: asyncio.Event
    ) -> str:
        """Ping until the connection ends; returns why it must be killed, or `""`."""
        settings = self.settings
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.ping_seconds):
                    await lost.wait()
            if lost.is_set() or not connection.alive:
                break
            ping = asyncio.ensure_future(
                connection.call("ping", 0, seconds=settings.hang_seconds + 1)
            )
            ended = asyncio.ensure_future(lost.wait())
            await asyncio.wait(
                (ping, ended), timeout=settings.hang_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            answered = ping.done() and ping.exception() is None
            for task in (ping, ended):
                task.cancel()
            await asyncio.gather(ping, ended, return_exceptions=True)
            if not answered and not lost.is_set():
                waiting = connection.oldest()
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGUSR1)  # faulthandler writes where it stands
                await asyncio.sleep(0.2)
                return (
                    f"it answered nothing for {settings.hang_seconds:g} s; the oldest request "
                    f"was {waiting}"
                )
        return ""

    async def _end(self, process: Process, reader: asyncio.Task[None], *, hang: str) -> str:
        """Kill what is left of the process group; returns in words how the process ended."""
        if not hang and process.returncode is None and not self._reason:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REAP_SECONDS):
                    await process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REAP_SECONDS):
                await reader
        return self._describe(process.returncode, hang)

    def _describe(self, code: int | None, hang: str) -> str:
        if hang:
            how = f"was killed: {hang}"
        elif code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        elif code == EXIT_MEMORY:
            how = f"passed its memory cap of {self.settings.memory_mb} MiB"
        else:
            how = f"exited with code {code}"
        said = self._tail.decode(errors="replace").strip()
        if hang:
            said = said.rpartition("most recent call first):\n")[2]
        lines = said.splitlines()[:6] if hang else said.splitlines()[-6:]
        where = "it was" if hang else "its last words:"
        last = f"; {where} {' | '.join([line.strip() for line in lines])}" if lines else ""
        return f"environment {self.name} (pid {self.pid}) {how}{last}"


def _make_directory() -> tuple[Path, int]:
    """A directory for sockets and the descriptor of its lock, held while this process lives.

    Directories whose lock nobody holds any more are removed: when a process is killed together
    with its hosts, nobody is left to do it.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            if time.time() - path.stat().st_mtime > _STALE_SECONDS and _unlocked(path / "lock"):
                shutil.rmtree(path, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return directory, lock


def _unlocked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class HostPool:
    """Some hosts and the envs that live in them; a new session goes to the least loaded host."""

    def __init__(
        self, settings: HostSettings | None = None, *, deadlines: Deadlines | None = None
    ) -> None:
        self.settings = settings or HostSettings()
        self.deadlines = deadlines or Deadlines()
        self.hosts: tuple[HostProcess, ...] = ()
        self._directory: Path | None = None
        self._lock = -1
        self._factories: list[EnvFactory] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start all hosts; `EnvError` when one does not come up."""
        self._directory, self._lock = _make_directory()
        self.hosts = tuple(
            [
                HostProcess(self.settings, directory=self._directory, name=f"host-{index}")
                for index in range(self.settings.hosts)
            ]
        )
        try:
            await asyncio.gather(*[host.start() for host in self.hosts])
        except BaseException:
            await self.close()
            raise

    async def factory(self, env_id: str, arguments: Mapping[str, object]) -> EnvFactory:
        """What makes the envs of `env_id`; `EnvError` (or the env's own) when it cannot be made."""
        factory = EnvFactory(self, env_id, arguments, deadlines=self.deadlines)
        await factory.describe()
        self._factories.append(factory)
        return factory

    async def pick(self) -> Connection:
        """The connection with the fewest sessions; waits where every host is starting again."""
        alive = [
            host.connection
            for host in self.hosts
            if host.connection is not None and host.connection.alive
        ]
        if alive:
            return min(alive, key=lambda connection: connection.sessions)
        if not self.hosts:
            raise EnvError("the pool of environment hosts is not started")
        waits = [asyncio.ensure_future(host.ready()) for host in self.hosts]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            done = [wait for wait in waits if wait.done()]
            good = [wait for wait in done if wait.exception() is None]
            return (good or done)[0].result()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def path(self) -> Path:
        """The socket of a host that is up, or of the first one."""
        for host in self.hosts:
            if host.connection is not None and host.connection.alive:
                return host.socket
        if not self.hosts:
            raise EnvError("the pool of environment hosts is not started")
        return self.hosts[0].socket

    async def close(self) -> None:
        """End all hosts; may be called twice."""
        for factory in self._factories:
            factory.close()
        await asyncio.gather(*[host.close() for host in self.hosts])
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            os.close(self._lock)
            self._directory = None
