"""The first process of a container: runs what its owner tells it, and ends when the owner is gone.

`docker_daemon` sends the text of this module, of those that it imports and of
`docker_interpreter` to a Python (3.9 or newer); they need its standard library alone.
The guest reads requests from its standard input and writes one reply each to its standard output: a
frame is the length of a JSON object, the object, and the byte strings whose lengths `blobs` lists.

No program in the container can end it, stop it or read it: the kernel shields the first process of
a namespace from the namespace's own signals, and a process that cannot be dumped from being traced
by its own user. Once its input closes it exits, and the kernel ends all the others with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agentrl.sandbox.docker_files import (
    WORK,
    empty,
    read_file,
    read_frame,
    write_file,
    write_frame,
)
from agentrl.sandbox.docker_filter import install_filter
from agentrl.sandbox.docker_usage import Usage, leftovers, processes

_TICK = 0.05
_FLOOD_BYTES = 4 << 20
# What the image sets stays, but for the host's name, which is chance.
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "HOSTNAME"},
    "HOME": WORK,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "TZ": "UTC",
    "USER": "nobody",
}
_PR_SET_DUMPABLE = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


class Ended(NamedTuple):
    """How a run ended: a status of `RunStatus`, its exit code, and what it left running."""

    status: str
    exit_code: int | None
    restarted: bool = False
    left: bool = False


class Interpreter(NamedTuple):
    """A live interpreter and the pipes that it takes code from and reports to."""

    process: subprocess.Popen[bytes]
    code: int
    done: int


class Stream:
    """What a run wrote to one pipe: the first `room` bytes, and how many there were in all."""

    def __init__(self, fd: int, room: int) -> None:
        os.set_blocking(fd, False)
        self.fd, self.room, self.total, self.kept = fd, room, 0, bytearray()

    def pull(self) -> bool:
        """Take what is there, a bounded piece at a time; False at the end of the pipe."""
        for _ in range(64):
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.total += len(data)
            self.kept += data[: max(0, self.room - len(self.kept))]
        return True


class Feed:
    """Bytes on their way into a pipe, which is closed behind them where it is a program's input."""

    def __init__(self, fd: int, data: bytes, close: Callable[[], None] | None = None) -> None:
        os.set_blocking(fd, False)
        self.fd, self.rest, self._close = fd, memoryview(data), close

    def push(self, event: int) -> bool:
        """Write what the pipe takes; False where nothing is left or the reader is gone."""
        try:
            if event & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                self.rest = self.rest[:0]
            else:
                self.rest = self.rest[os.write(self.fd, self.rest[:65536]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            self.rest = self.rest[:0]
        if not self.rest and self._close is not None:
            self._close()
        return bool(self.rest)


class Guest:
    """Serves requests until the owner is gone."""

    def __init__(self, interpreter_source: str) -> None:
        self.source = interpreter_source
        self.interpreter: Interpreter | None = None
        self.exited: dict[int, int] = {}
        # A byte for each child that ends: orphans are reaped at once, since a dead process that
        # nobody waited for still counts against the limit on processes.
        self.deaths, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Answer each request with one reply."""
        while True:
            header, blobs = read_frame()
            try:
                reply, out = self.answer(header, blobs)
            except OSError as error:
                reply, out = {"error": error.errno or errno.EIO}, []
            write_frame(reply, out)

    def answer(
        self, header: Mapping[str, Any], blobs: Sequence[bytes]
    ) -> tuple[dict[str, Any], list[bytes]]:
        """The reply to a request and its blobs."""
        do = header["do"]
        if do == "reset":
            return {"clean": self.reset()}, []
        if do == "write":
            for path, content in zip(header["paths"], blobs):  # noqa: B905
                write_file(path, content)
            return {}, []
        if do == "read":
            return {}, [read_file(header["path"])]
        if do == "execute":
            return self.execute(blobs[0], header["limits"])
        return self.run(header["argv"], blobs[0], header["limits"], alone=header["alone"])

    def run(
        self, argv: Sequence[str], stdin: bytes, limits: Mapping[str, Any], *, alone: bool
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Run a program to its end; what it started ends with it. `alone`: nothing else lives."""
        usage = Usage()
        try:
            process = started(argv, limits, stdin=subprocess.PIPE)
        except (OSError, ValueError) as error:
            return refused(argv[0], error)
        self.exited.pop(process.pid, None)  # an earlier process had the same number
        assert process.stdin and process.stdout and process.stderr
        with process.stdin, process.stdout, process.stderr:
            streams = pulled(process, limits)
            feed = Feed(process.stdin.fileno(), stdin, process.stdin.close)
            status = self.watch(process, streams, limits, usage, feed=feed)
            left = self.end_others(process, alone=alone)
            for stream in streams:
                stream.pull()
        code = self.exit_code(process)
        # An interpreter that lives through a run of another program keeps its state.
        restarted = self.interpreter is not None and not self.survived(self.interpreter.process)
        if restarted:
            self.forget()
        ended = verdict(status, code, usage)
        return told(ended._replace(restarted=restarted, left=left), streams)

    def execute(self, code: bytes, limits: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Run code in the live interpreter, which is started where there is none."""
        lost = self.interpreter is not None and not self.alive(self.interpreter.process)
        if lost:
            self.forget()
        if self.interpreter is None:
            self.interpreter = new_interpreter(self.source, limits)
            self.exited.pop(self.interpreter.process.pid, None)
        process, code_fd, done = self.interpreter
        usage = Usage()
        streams = pulled(process, limits)
        with contextlib.suppress(BlockingIOError):
            # Code may have written here by itself.
            os.read(done, 1 << 16)
        feed = Feed(code_fd, struct.pack("!I", len(code)) + code)
        status = self.watch(process, streams, limits, usage, feed=feed, done=done)
        said = b""
        if status == "":
            with contextlib.suppress(BlockingIOError):
                said = os.read(done, 1)
        if said:
            left = self.end_others(None, alone=False)
            ended = verdict("", 0 if said == b"1" else 1, usage)
        else:
            left = self.end_others(process, alone=True)
            ended = verdict(status, self.exit_code(process), usage)
        for stream in streams:
            stream.pull()
        if not self.alive(process):
            self.forget()
            lost = True
        return told(ended._replace(restarted=lost, left=left), streams)

    def watch(
        self,
        process: subprocess.Popen[bytes],
        streams: Sequence[Stream],
        limits: Mapping[str, Any],
        usage: Usage,
        *,
        feed: Feed,
        done: int = -1,
    ) -> str:
        """Wait until `process` exits or reports on `done`; the limit that it passed, or ""."""
        deadline = time.monotonic() + limits["wall_seconds"]
        poller = select.poll()
        poller.register(0, 0)
        poller.register(self.deaths, select.POLLIN)
        pid_fd = os.pidfd_open(process.pid)
        poller.register(pid_fd, select.POLLIN)
        by_fd = {one.fd: one for one in streams}
        for fd in by_fd:
            poller.register(fd, select.POLLIN)
        if done >= 0:
            poller.register(done, select.POLLIN)
        poller.register(feed.fd, select.POLLOUT)
        flood = max(_FLOOD_BYTES, 64 * max(one.room for one in streams))
        try:
            while True:
                now = time.monotonic()
                if now >= deadline:
                    return "wall_limit"
                if usage.killed() > usage.killed_start:
                    return "memory_limit"
                if usage.cpu() - usage.cpu_start >= limits["cpu_seconds"]:
                    return "cpu_limit"
                if any(one.total > flood for one in streams):
                    return "output_limit"
                finished = False
                for fd, event in poller.poll(1000 * min(_TICK, deadline - now)):
                    if fd == 0:
                        # The owner is gone, and with this process all the others go.
                        os._exit(0)
                    elif fd == self.deaths:
                        os.read(fd, 1 << 16)
                        self.reap()
                    elif fd in by_fd:
                        if not by_fd[fd].pull():
                            poller.unregister(fd)
                    elif fd in (pid_fd, done):
                        finished = True
                    elif not feed.push(event):
                        poller.unregister(fd)
                if finished:
                    return ""
        finally:
            os.close(pid_fd)

    def end_others(self, main: subprocess.Popen[bytes] | None, *, alone: bool) -> bool:
        """End `main` and what no longer has a parent of its own; True where anything was left.

        With `alone` that is every process; else a live interpreter and its children are spared.
        A tree that will not die within two seconds takes the interpreter with it.
        """
        self.reap()
        spared = -1 if alone or self.interpreter is None else self.interpreter.process.pid
        left = any(main is None or pid != main.pid for pid in victims(spared))
        deadline = time.monotonic() + 2.0
        while True:
            doomed = victims(spared)
            if not doomed and (main is None or not self.alive(main)):
                return left
            if spared == -1 or time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            for pid in doomed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
            self.reap()
            if time.monotonic() > deadline + 2.0:
                return True

    def reap(self) -> None:
        """Take the exit status of every child that ended, orphans included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.exited[pid] = os.waitstatus_to_exitcode(status)

    def alive(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether this child still runs."""
        return self.exit_code(process) is None

    def survived(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether this child runs on; one that was killed a moment ago is waited for."""
        while self.alive(process) and _doomed(process.pid):
            time.sleep(0.001)
        return self.alive(process)

    def exit_code(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit code of a child that ended; negative: the signal that ended it."""
        self.reap()
        if process.returncode is None:
            process.returncode = self.exited.pop(process.pid, None)
        return process.returncode

    def forget(self) -> None:
        """Drop an interpreter that ended."""
        assert self.interpreter is not None
        process, code, done = self.interpreter
        self.interpreter = None
        assert process.stdout and process.stderr
        process.stdout.close()
        process.stderr.close()
        os.close(code)
        os.close(done)

    def reset(self) -> bool:
        """Make everything as it was at first; False where that is in doubt."""
        self.end_others(None, alone=True)
        if self.interpreter is not None:
            self.forget()
        self.exited.clear()
        try:
            empty()
        except (OSError, RecursionError):
            return False
        return not leftovers() and not list(processes())


def told(ended: Ended, streams: Sequence[Stream]) -> tuple[dict[str, Any], list[bytes]]:
    """The reply that says how a run ended and what it wrote."""
    cut = [one.total > one.room for one in streams]
    return {**ended._asdict(), "cut": cut}, [bytes(one.kept) for one in streams]


def victims(spared: int) -> list[int]:
    """Processes to end: the descendants of this one but for those of `spared`."""
    children: dict[int, list[int]] = {}
    for pid, parent in processes():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = [pid for pid in children.get(1, []) if pid != spared]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def refused(name: str, error: OSError | ValueError) -> tuple[dict[str, Any], list[bytes]]:
    """The reply that says, as a shell does, why a program could not be started."""
    number = error.errno if isinstance(error, OSError) else None
    why = os.strerror(number) if number else str(error)
    code = 127 if number == errno.ENOENT else 126
    said = f"{name}: {why}\n".encode("utf-8", "replace")
    return {**Ended("error", code)._asdict(), "cut": [False, False]}, [b"", said]


def verdict(status: str, code: int | None, usage: Usage) -> Ended:
    """The status of a run that passed the limit `status` ("" for none) and exited with `code`."""
    if usage.killed() > usage.killed_start:
        return Ended("memory_limit", None)
    if status or code == -signal.SIGXCPU:
        return Ended(status or "cpu_limit", None)
    if code is None or code < 0:
        return Ended("killed", None)
    return Ended("error" if code else "ok", code)


def started(
    argv: Sequence[str], limits: Mapping[str, Any], *, stdin: int, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """A program in the working folder, its output in pipes, under the limits of one process."""
    with contextlib.suppress(FileExistsError):
        # A session may have removed its folder.
        os.mkdir(WORK, 0o755)
    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=WORK,
        env=_ENVIRONMENT,
        pass_fds=tuple(pass_fds),
        start_new_session=True,
        preexec_fn=bounds(limits),
    )


def bounds(limits: Mapping[str, Any]) -> Callable[[], None]:
    """What a child does to itself before it becomes the program."""

    def apply() -> None:
        _LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        # The control group counts all processes together; this bounds one where it cannot.
        seconds = int(limits["cpu_seconds"]) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        files = int(limits["open_files"])
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        os.nice(5)

    return apply


def new_interpreter(source: str, limits: Mapping[str, Any]) -> Interpreter:
    """An interpreter that waits for code. Its processor time is bounded by run, not in all."""
    code_in, code_out = os.pipe()
    done_in, done_out = os.pipe()
    argv = [sys.executable, "-c", source, str(code_in), str(done_out)]
    process = started(
        argv,
        {**limits, "cpu_seconds": 1 << 30},
        stdin=subprocess.DEVNULL,
        pass_fds=(code_in, done_out),
    )
    os.close(code_in)
    os.close(done_out)
    os.set_blocking(done_in, False)
    return Interpreter(process, code_out, done_in)


def pulled(process: subprocess.Popen[bytes], limits: Mapping[str, Any]) -> list[Stream]:
    """The streams of a program's standard output and standard error."""
    assert process.stdout and process.stderr
    room = 4 * int(limits["output_chars"])
    return [Stream(pipe.fileno(), room) for pipe in (process.stdout, process.stderr)]


def _doomed(pid: int) -> bool:
    """Whether a process has been killed and has not ended yet."""
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in pending)


def main(interpreter_source: str) -> None:
    """Serve requests until the owner is gone."""
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    install_filter(_LIBC)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Nothing that a program writes may be imported here.
    sys.path[:] = [one for one in sys.path if one]
    os.chdir("/")
    guest = Guest(interpreter_source)
    write_frame({"clean": guest.reset(), "first": os.getpid() == 1}, [])
    guest.serve()
