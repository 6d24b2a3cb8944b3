"""An environment host: one process that serves thousands of env sessions over one socket.

`python -m agentrl.adapters.envhost --socket PATH` is what `HostProcess` (envhost_pool.py) starts.
Whoever can connect to the socket can have any importable class called, so it belongs in a
directory that only its user may enter. A host keeps a crash, a leak and a dependency away from
the rest of a run; it does not confine what an env does to files and network (that is a sandbox).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import logging
import math
import os
import shutil
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from agentrl.adapters.wire import (
    BATCH,
    MAX_FRAME,
    PROTOCOL,
    FrameError,
    FrameReader,
    Json,
    decode_task,
    encode_frame,
    encode_observation,
    encode_step,
    encode_task,
    plain,
)
from agentrl.core import errors
from agentrl.core.env import Env
from agentrl.core.errors import AgentRLError, EnvError
from agentrl.core.registry import build_env, env_class, make_env

EXIT_MEMORY = 86
"""Exit code of a host that passed its memory cap."""

_IDLE_RUNNERS = 64
_SLICE_SECONDS = 0.01
_WATCH_SECONDS = 0.1
_CANCEL_SECONDS = 5.0

_log = logging.getLogger(__name__)


class _Session:
    """One env of one connection and the request that it is at."""

    __slots__ = ("closed", "env", "env_id", "running", "used")

    def __init__(self, env_id: str, env: Env, now: float) -> None:
        self.env_id = env_id
        self.env = env
        self.running: asyncio.Task[None] | None = None
        self.closed = False
        self.used = now


class EnvHost:
    """Serves env sessions, on a Unix socket (`start`) or over what `join` is given.

    Requests are `[number, operation, session, ...]`, answered in any order by `[number, value]`
    or `[number, error class, message]`. One session plays one request at a time. Requests do not
    get a task each: runners take them from a common queue, and a second runner starts only when
    the first one waits inside an env, so an env that answers at once costs no task switch.
    At most `max_sessions` are open at once; where `idle_seconds` are given, `expire` ends those
    that had no request for so long.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_sessions: int = 1_000_000,
        idle_seconds: float = math.inf,
        max_bytes: int = MAX_FRAME,
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.sessions = 0
        self.queue: deque[tuple[_Connection, list[Json]]] = deque()
        self._max_sessions = max_sessions
        self._idle_seconds = idle_seconds
        self._connections: set[_Connection] = set()
        self._classes: dict[str, type[Env]] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._runners: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._width = 1
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on `path`, if there is one; an old socket there is replaced."""
        self._loop = asyncio.get_running_loop()
        if self.path is None:
            return
        self.path.unlink(missing_ok=True)
        self._server = await self._loop.create_unix_server(
            lambda: _Connection(self), str(self.path)
        )
        self.path.chmod(0o600)

    async def close(self) -> None:
        """Stop listening, drop every connection and close every env; may be called twice."""
        if self._server is not None:
            self._server.close()
        closings = [connection.drop() for connection in list(self._connections)]
        await asyncio.gather(*closings)
        for runner in self._runners:
            runner.cancel()
        await asyncio.gather(*self._runners, return_exceptions=True)

    def join(self, transport: asyncio.Transport) -> asyncio.Protocol:
        """A new client behind `transport`; what it sends goes to `data_received`."""
        connection = _Connection(self)
        connection.connection_made(transport)
        return connection

    def admit(self) -> None:
        """Count a new session; `EnvError` where there are too many."""
        if self.sessions >= self._max_sessions:
            raise EnvError(
                f"{self.sessions} sessions are open, which is this host's limit; close some, or "
                "start it with a higher one"
            )
        self.sessions += 1

    def expire(self) -> None:
        """End the sessions that had no request for too long."""
        before = self._loop.time() - self._idle_seconds
        for connection in list(self._connections):
            connection.expire(before)

    def joined(self, connection: _Connection) -> None:
        """Count `connection` among those that live."""
        self._connections.add(connection)

    def left(self, connection: _Connection) -> None:
        """Forget a connection that is gone."""
        self._connections.discard(connection)

    def make(self, env_id: str, arguments: Mapping[str, Json]) -> Env:
        """A new env; a registered id is looked up once (reading the table takes milliseconds)."""
        if ":" in env_id:
            return make_env(env_id, **arguments)
        cls = self._classes.get(env_id) or env_class(env_id)
        self._classes[env_id] = cls
        return build_env(env_id, cls, arguments)

    def pump(self) -> None:
        """See that somebody works on the queue, now or in the loop's next round."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        waiting = len(self.queue)
        if not waiting:
            self._pumping, self._width = False, 1
            return
        # Every runner that was woken is inside an env if there is still work: wake twice as many.
        for _ in range(min(self._width, waiting)):
            if self._idle:
                self._idle.pop().set_result(None)
            else:
                runner = self._loop.create_task(self._run())
                self._runners.add(runner)
                runner.add_done_callback(self._runners.discard)
        self._width *= 2
        self._loop.call_soon(self._pump)

    async def _run(self) -> None:
        queue, clock = self.queue, self._loop.time
        while True:
            until = clock() + _SLICE_SECONDS
            while queue and clock() < until:
                connection, request = queue.popleft()
                await connection.play(request)
            if queue:
                # Slow envs: the loop gets a turn (pings, timers, other sockets) before the rest.
                self._width = 1
            if len(self._idle) >= _IDLE_RUNNERS:
                return
            wake = self._loop.create_future()
            self._idle.append(wake)
            await wake


class _Connection(asyncio.Protocol):
    """One client: its sessions, and the answers not yet written to it."""

    def __init__(self, host: EnvHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(max_bytes=host.max_bytes)
        self._sessions: dict[int, _Session] = {}
        self._answers: list[Sequence[Json]] = []
        self._flushing = False
        self._greeted = False
        self._transport: asyncio.Transport | None = None
        self._closing: asyncio.Task[None] | None = None
        self._endings: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._host.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = self._loop.create_task(self._end_sessions())

    def pause_writing(self) -> None:
        # A client that does not read its answers is not read either.
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            requests = self._reader.feed(data)
            for request in requests:
                self._admit(request)
        except FrameError as error:
            self._refuse(str(error))

    def _admit(self, request: list[Json]) -> None:
        if not (len(request) >= 3 and type(request[0]) is int and type(request[2]) is int):
            raise FrameError("a request is [number, operation, session, ...]")
        operation = request[1]
        if operation == "hello":
            if request[3:] != [PROTOCOL]:
                raise FrameError(f"this host speaks version {PROTOCOL}, not {request[3:]}")
            self._greeted = True
            self._answer((request[0], None))
        elif not self._greeted:
            raise FrameError("the first request must be hello")
        elif operation == "close":
            self._close_session(request[0], request[2])
        elif operation == "ping":
            self._answer((request[0], None))
        else:
            self._host.queue.append((self, request))
            self._host.pump()

    def _refuse(self, reason: str) -> None:
        """Tell a client that broke the language why, and hang up."""
        _log.warning("refused a client: %s", reason)
        if self._transport is not None:
            self._transport.write(encode_frame([(0, "FrameError", reason)]))
            self._transport.close()

    async def drop(self) -> None:
        """Hang up and end all sessions."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        await self._end_sessions()

    async def _end_sessions(self) -> None:
        sessions = list(self._sessions.values())
        self._sessions.clear()
        self._host.sessions -= len(sessions)
        await asyncio.gather(*[self._end(session) for session in sessions])
        self._host.left(self)

    async def _end(self, session: _Session) -> None:
        session.closed = True
        if session.running is not None:
            session.running.cancel()
            deadline = self._loop.time() + _CANCEL_SECONDS
            while session.running is not None and self._loop.time() < deadline:
                await asyncio.sleep(0.01)
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                await session.env.close()
        except Exception:  # the session is gone for its client whatever its env says
            _log.exception("%s: close failed", session.env_id)

    def _close_session(self, number: int, name: int) -> None:
        session = self._sessions.pop(name, None)
        if session is None:
            self._answer((number, None))
            return
        self._host.sessions -= 1
        task = self._loop.create_task(self._end(session))
        task.add_done_callback(lambda _: self._answer((number, None)))

    def expire(self, before: float) -> None:
        """End the sessions that were used last at loop time `before` or earlier."""
        for name, session in list(self._sessions.items()):
            if session.running is None and session.used <= before:
                del self._sessions[name]
                self._host.sessions -= 1
                ending = self._loop.create_task(self._end(session))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)

    def _answer(self, answer: Sequence[Json]) -> None:
        answers = self._answers
        answers.append(answer)
        if len(answers) >= BATCH:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        answers, self._answers = self._answers, []
        if not answers or self._transport is None:
            return
        try:
            frame = encode_frame(answers)
        except FrameError:
            frame = b"".join([_encode_alone(answer) for answer in answers])
        self._transport.write(frame)

    async def play(self, request: list[Json]) -> None:
        """Do what `request` asks and answer it; never raises but for the host's own end."""
        if self._transport is None:
            return
        number = cast(int, request[0])
        session: _Session | None = None
        try:
            if request[1] == "open":
                self._open(request)
                value: Json = None
            else:
                session = self._sessions.get(cast(int, request[2]))
                if session is None:
                    raise EnvError(
                        f"session {request[2]} is not open on this host: it was closed, or ended "
                        "because nothing was asked of it for too long"
                    )
                if session.running is not None:
                    raise EnvError(f"{session.env_id}: two requests at once in one session")
                session.running = task = cast("asyncio.Task[None]", asyncio.current_task())
                try:
                    if request[1] == "step":
                        value = encode_step(await session.env.step(cast(str, request[3])))
                    else:
                        value = await self._do(session, request)
                finally:
                    session.running = None
                    session.used = self._loop.time()
                    while session.closed and task.cancelling():
                        task.uncancel()
        except asyncio.CancelledError:
            if session is None or task.cancelling():
                raise
            self._answer((number, "EnvError", f"{session.env_id}: {request[1]} was cancelled"))
        except (Exception, SystemExit) as error:
            where = "" if session is None else session.env_id
            self._answer((number, *describe_error(error, where=where, operation=str(request[1]))))
        else:
            self._answer((number, value))

    def _open(self, request: list[Json]) -> None:
        match request:
            case [_, _, int(name), str(env_id), dict(arguments)]:
                if name in self._sessions:
                    raise EnvError(f"session {name} is open already")
                self._host.admit()
                try:
                    env = self._host.make(env_id, arguments)
                except BaseException:
                    self._host.sessions -= 1
                    raise
                self._sessions[name] = _Session(env_id, env, self._loop.time())
            case _:
                raise FrameError("open takes an env id and its arguments")

    async def _do(self, session: _Session, request: list[Json]) -> Json:
        """The operations on an open session other than `step`."""
        env = session.env
        match request[1:2] + request[3:]:
            case ["reset", task, int(seed)]:
                return encode_observation(await env.reset(decode_task(task), seed=seed))
            case ["fork", int(name)]:
                if name in self._sessions:
                    raise EnvError(f"session {name} is open already")
                self._host.admit()
                try:
                    forked = await env.fork()
                    if session.closed:
                        await forked.close()
                        raise EnvError(f"{session.env_id}: closed while it forked")
                except BaseException:
                    self._host.sessions -= 1
                    raise
                self._sessions[name] = _Session(session.env_id, forked, self._loop.time())
                return None
        return about(env, request[1:2] + request[3:])


def about(env: Env, question: Sequence[Json]) -> Json:
    """What `env` says of itself and its tasks: `[operation, ...]`, which no episode is needed for.

    Raises:
        FrameError: no such operation.
    """
    match list(question):
        case ["describe"]:
            return (env.forkable, list(env.stop), plain(env.tool_schemas))
        case ["tasks", str(split)]:
            return [encode_task(task) for task in env.tasks(split)]
        case ["gold", task, int(turn)]:
            return env.gold_action(decode_task(task), turn)
        case ["expert", task, list(seen)]:
            return env.expert_action(decode_task(task), [str(one) for one in seen])
    raise FrameError(f"{question[0]!r} with {len(question) - 1} arguments is no operation")


def _encode_alone(answer: Sequence[Json]) -> bytes:
    """The answer by itself, or the error that says why it cannot travel."""
    try:
        return encode_frame([answer])
    except FrameError as error:
        return encode_frame([(answer[0], "EnvError", str(error))])


def describe_error(error: BaseException, *, where: str, operation: str) -> tuple[str, str]:
    """Class name and message under which `error` travels; an unexpected one is logged whole."""
    if isinstance(error, AgentRLError) and hasattr(errors, type(error).__name__):
        return type(error).__name__, str(error)
    _log.error("%s: %s failed", where, operation, exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    name = f"{where}: " if where else ""
    return "EnvError", f"{name}{operation} raised {type(error).__name__}: {error}{place}"


def _watch(*, parent: int, memory_mb: int, path: Path) -> None:
    """End this process and its children when the parent is gone or memory passes the cap."""
    page = os.sysconf("SC_PAGE_SIZE")
    cap = memory_mb * 2**20
    while True:
        # A parent that is killed leaves no message; the kernel gives its children another parent.
        if parent and os.getppid() != parent:
            path.unlink(missing_ok=True)
            if not list(path.parent.glob("*.sock")):  # the last of the pool's hosts to end
                shutil.rmtree(path.parent, ignore_errors=True)
            os.killpg(0, signal.SIGKILL) if os.getpgrp() == os.getpid() else os._exit(1)
        if cap:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            if resident > cap:
                _log.error("%d MiB resident, the cap is %d MiB", resident >> 20, memory_mb)
                os._exit(EXIT_MEMORY)
        threading.Event().wait(_WATCH_SECONDS)


async def _serve(path: Path) -> None:
    host = EnvHost(path)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await host.start()
    await stop.wait()
    await host.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM, the end of the parent or the memory cap."""
    parser = argparse.ArgumentParser(prog="agentrl.adapters.envhost", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--parent", type=int, default=0, help="end with this process")
    parser.add_argument("--memory-mb", type=int, default=0, help="end above this; 0: no cap")
    options = parser.parse_args(arguments)
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    watch = {
        "parent": options.parent,
        "memory_mb": options.memory_mb,
        "path": options.socket,
    }
    threading.Thread(target=_watch, kwargs=watch, daemon=True).start()
    # Ten thousand idle sessions are live objects: full collections over them are wasted work.
    gc.set_threshold(50_000, 20, 100)
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.socket))


if __name__ == "__main__":
    main()
