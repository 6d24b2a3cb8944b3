"""Grading in processes of their own: a hard deadline that works in any thread, task or Ray actor.

One server process is started fresh (never forked from this one, whose threads and GPUs it must not
inherit). It imports what the grading needs, and forks a worker for each slot: a worker that hangs
or dies is killed by the server and replaced within milliseconds, while the others go on. No signal
reaches the owner. Server and workers end with their owner, however it ends: they see its end of a
socket close, and look for their parent twice a second.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import queue
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

from agentrl.core.errors import SetupError

MAX_REQUEST_BYTES: Final = 65_536
MAX_WAITING: Final = 4096

_START_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_GONE_SECONDS = 0.1
_HEAD = struct.Struct("!I")
_ORDER = struct.Struct("!cI")
_DIED: Final = "the worker died"
_PR_SET_PDEATHSIG = 1


class Reply(NamedTuple):
    """What a worker said; or, where `failure` is not empty, why it said nothing."""

    value: Mapping[str, Any]
    failure: str = ""


@dataclass(slots=True)
class _Job:
    payload: bytes
    deadline: float
    future: Future[Reply] = field(default_factory=Future)


class WorkerPool:
    """Up to `processes` workers that run `answer(payload)` of the module named `serves`.

    `memory_mb` caps the address space of each worker, which fails beyond it. A worker is replaced
    after `requests` requests, so that nothing piles up in it. `package` and `extra` name what has
    to be installed. Safe to use from any number of threads and event loops at once.
    """

    def __init__(
        self,
        serves: str,
        *,
        processes: int = 2,
        memory_mb: int = 1024,
        requests: int = 500,
        package: str = "",
        extra: str = "",
    ) -> None:
        self.serves = serves
        self.processes = processes
        self.memory_mb = memory_mb
        self.requests = requests
        self.package = package
        self.extra = extra
        self._lock = threading.Lock()
        self._owner = 0
        self._server: _Server | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting = 0

    def start(self) -> None:
        """Start server and workers in the background, where they are not running; returns at once.

        Raises:
            SetupError: what they need is not installed; names the command that brings it.
        """
        with self._lock:
            if self._owner == os.getpid():
                return
            if self.package and importlib.util.find_spec(self.package) is None:
                raise SetupError(
                    f'grading needs the package {self.package}: pip install "agentrl[{self.extra}]"'
                )
            # After a fork the threads and the children are those of the parent.
            self._owner = os.getpid()
            self._jobs = queue.SimpleQueue()
            self._waiting = 0
            self._server = _Server(self)
            for _ in range(self.processes):
                slot = _Slot(self, self._server, self._jobs)
                threading.Thread(target=slot.serve, name="agentrl-grader", daemon=True).start()
            atexit.register(self.close)

    def submit(self, payload: Mapping[str, Any], *, deadline: float = 1.0) -> Future[Reply]:
        """The reply to `payload`, in the future; its `deadline` (seconds) starts with the work.

        A request that is too large, or one too many in the queue, fails at once. Await it with
        `asyncio.wrap_future`.
        """
        job = _Job(json.dumps(payload).encode(), deadline)
        if len(job.payload) > MAX_REQUEST_BYTES:
            job.future.set_result(Reply({}, f"a request of {len(job.payload)} bytes"))
            return job.future
        self.start()
        with self._lock:
            if self._waiting >= MAX_WAITING:
                job.future.set_result(Reply({}, f"{MAX_WAITING} requests are waiting already"))
                return job.future
            self._waiting += 1
        job.future.add_done_callback(self._done)
        self._jobs.put(job)
        return job.future

    def call(self, payload: Mapping[str, Any], *, deadline: float = 1.0) -> Reply:
        """As `submit`, waiting for it in this thread."""
        return self.submit(payload, deadline=deadline).result()

    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the live workers, for tests and people."""
        return self._server.pids() if self._server is not None else ()

    def close(self) -> None:
        """End server and workers; may be called twice. A later request starts them anew."""
        with self._lock:
            server, self._server = self._server, None
            mine, self._owner = self._owner == os.getpid(), 0
            jobs = self._jobs
        if server is None or not mine:
            return
        for _ in range(self.processes):
            jobs.put(None)
        server.close()

    def _done(self, _: Future[Reply]) -> None:
        with self._lock:
            self._waiting -= 1


class _Server:
    """The owner's side of the server process."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._ids = 0
        self._pids: dict[int, int] = {}

    def spawn(self) -> tuple[int, socket.socket] | None:
        """A new worker's id and socket, once it is ready; None where it did not come up."""
        mine, its = socket.socketpair()
        with its, self._lock:
            if self._closed:
                mine.close()
                return None
            self._ids += 1
            number = self._ids
            try:
                control = self._running()
                socket.send_fds(control, [_ORDER.pack(b"S", number)], [its.fileno()])
            except OSError:
                self._stop()
                mine.close()
                return None
        mine.settimeout(_START_SECONDS)
        try:
            pid = _HEAD.unpack(_received(mine, _HEAD.size))[0]
        except (OSError, EOFError):
            mine.close()
            return None
        self._pids[number] = pid
        return number, mine

    def kill(self, number: int) -> None:
        """End a worker, whatever it does."""
        self._pids.pop(number, None)
        with self._lock, contextlib.suppress(OSError):
            if self._control is not None:
                self._control.sendall(_ORDER.pack(b"K", number))

    def pids(self) -> tuple[int, ...]:
        return tuple(self._pids.values())

    def lost(self) -> bool:
        """Whether the server process is gone, and every worker with it."""
        with self._lock:
            if self._process is None:
                return True
            try:
                # Its workers are told of its end a moment before its owner is.
                self._process.wait(_GONE_SECONDS)
            except subprocess.TimeoutExpired:
                return False
            return True

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._stop()

    def _running(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._stop()
        if self._control is None:
            control, its = socket.socketpair()
            arguments = [self._pool.serves, its.fileno(), self._pool.memory_mb, os.getpid()]
            command = [sys.executable, "-m", __name__, *map(str, arguments)]
            with its:
                self._process = subprocess.Popen(
                    command,
                    pass_fds=(its.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is the owner's
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            self._control = control
        return self._control

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._pids.clear()


class _Slot:
    """A thread that owns one worker and hands it one request at a time."""

    def __init__(
        self, pool: WorkerPool, server: _Server, jobs: queue.SimpleQueue[_Job | None]
    ) -> None:
        self._pool = pool
        self._server = server
        self._jobs = jobs
        self._number = 0
        self._socket: socket.socket | None = None
        self._served = 0

    def serve(self) -> None:
        """Work until the pool is closed; the worker is ready before its first request comes."""
        self._ready()
        while (job := self._jobs.get()) is not None:
            # The reply first: nobody waits for the replacement of a worker.
            job.future.set_result(self._reply(job))
            self._ready()
        self._drop()

    def _ready(self) -> bool:
        if self._served >= self._pool.requests:
            self._drop()
        if self._socket is None:
            spawned = self._server.spawn()
            if spawned is None:
                return False
            self._number, self._socket = spawned
            self._served = 0
        return True

    def _reply(self, job: _Job) -> Reply:
        # A worker may have died while it was idle: that costs no request.
        for _ in range(3):
            if not self._ready():
                continue
            assert self._socket is not None
            self._served += 1
            ends = time.monotonic() + job.deadline
            try:
                self._socket.settimeout(job.deadline)
                self._socket.sendall(_HEAD.pack(len(job.payload)) + job.payload)
            except OSError:
                self._drop()
                continue
            reply = self._answer(self._socket, job, ends)
            # Nor does one that died with its server: the request had no part in that.
            if reply.failure != _DIED or not self._server.lost():
                return reply
        return Reply({}, "no worker could be started")

    def _answer(self, connection: socket.socket, job: _Job, ends: float) -> Reply:
        try:
            size = _HEAD.unpack(_received(connection, _HEAD.size, ends))[0]
            said = json.loads(_received(connection, min(size, MAX_REQUEST_BYTES), ends))
        except TimeoutError:
            self._drop()
            return Reply({}, f"no verdict within {job.deadline:g} s")
        except (OSError, EOFError, ValueError):
            self._drop()
            return Reply({}, _DIED)
        if "failure" in said:
            self._drop()
            return Reply({}, str(said["failure"]))
        return Reply(said["value"])

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._server.kill(self._number)


def _received(connection: socket.socket, size: int, ends: float | None = None) -> bytes:
    """Exactly `size` bytes, before `ends` (of the monotonic clock)."""
    parts = bytearray()
    while len(parts) < size:
        if ends is not None:
            left = ends - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


# The server process


def _serve(serves: str, control: socket.socket, memory_mb: int, owner: int) -> None:
    """Fork and kill workers as the owner asks, until it is gone."""
    module = importlib.import_module(serves)
    module.prepare()
    children: dict[int, int] = {}
    try:
        while True:
            readable, _, _ = select.select([control], [], [], _LOOK_SECONDS)
            _reap(children)
            if os.getppid() != owner:
                return
            if not readable:
                continue
            message, handles, _, _ = socket.recv_fds(control, _ORDER.size, 1)
            if not message:
                return
            while len(message) < _ORDER.size:
                message += control.recv(_ORDER.size - len(message))
            order, number = _ORDER.unpack(message)
            if order == b"K":
                _kill(children.get(number))
                continue
            connection = socket.socket(fileno=handles[0])
            pid = os.fork()
            if pid == 0:
                control.close()
                _work(module.answer, connection, memory_mb, os.getppid())
            connection.close()
            children[number] = pid
    finally:
        for pid in children.values():
            _kill(pid)


def _kill(pid: int | None) -> None:
    # Its own child, not reaped yet: the number cannot be another process's.
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _reap(children: dict[int, int]) -> None:
    for number, pid in list(children.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del children[number]


def _work(
    answer: Callable[[Any], Mapping[str, Any]],
    connection: socket.socket,
    memory_mb: int,
    server: int,
) -> NoReturn:
    """A worker's life: read a request, answer it, until the owner closes the socket."""
    code = 1
    try:
        _confine(memory_mb, server)
        connection.sendall(_HEAD.pack(os.getpid()))
        while True:
            size = _HEAD.unpack(_received(connection, _HEAD.size))[0]
            payload = json.loads(_received(connection, size))
            try:
                said: dict[str, Any] = {"value": answer(payload)}
            except MemoryError:
                said = {"failure": f"more than {memory_mb} MB of memory"}
            except RecursionError:
                said = {"failure": "nested too deeply"}
            except Exception as error:
                # The boundary to code that fails in any way: the owner is told which.
                said = {"failure": f"{type(error).__name__}: {error}"[:500]}
            told = json.dumps(said).encode()
            connection.sendall(_HEAD.pack(len(told)) + told)
    except (EOFError, OSError):
        code = 0
    finally:
        os._exit(code)


def _confine(memory_mb: int, server: int) -> None:
    import resource

    size = memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


if __name__ == "__main__":
    _serve(
        sys.argv[1],
        socket.socket(fileno=int(sys.argv[2])),
        int(sys.argv[3]),
        int(sys.argv[4]),
    )
