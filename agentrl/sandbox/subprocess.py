"""A plain process with resource limits and NO isolation, for code that you would run yourself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agentrl.core.env import Forkable
from agentrl.core.errors import EnvError
from agentrl.sandbox.base import Limits, RunResult, RunStatus, Sandbox, Session
from agentrl.sandbox.guest import interpreter as guest
from agentrl.sandbox.line import Line, Reply
from agentrl.sandbox.outcome import allowance, outcome_of, status_of
from agentrl.sandbox.output import Output, stdin_file, two_pipes
from agentrl.sandbox.settings import SubprocessSettings

_ROOM = str(Path(__file__).parent)
_START = (
    "import sys; sys.path.insert(0, {!r}); from guest.alone import main; sys.path.pop(0); main()"
)


class SubprocessSandbox(Sandbox):
    """A process for each run, in a temporary folder, with the limits that a process can have.

    NO isolation: the code runs as you, reads and writes your files, reaches the network, and a
    process that leaves its process group outlives the run. What is limited: wall time, processor
    time and memory and file size of each process, open files, output. What is not: the number of
    processes, the sum over them, and what is written outside the folder.
    """

    forkable: Forkable = "replay"

    def __init__(self, settings: SubprocessSettings | None = None) -> None:
        self.settings = settings or SubprocessSettings()

    async def run_python(
        self,
        code: str,
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run a program in a fresh interpreter."""
        with _Folder(files or {}) as folder, tempfile.TemporaryDirectory() as beside:
            program = Path(beside) / "main.py"
            program.write_bytes(code.encode("utf-8", "surrogatepass"))
            limits = limits or self.settings.limits
            return await _play(folder, [str(program)], stdin, limits)

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run any program of the machine."""
        with _Folder(files or {}) as folder:
            return await _play(folder, ["--", *argv], stdin, limits or self.settings.limits)

    async def open(self, files: Mapping[str, bytes] | None = None) -> SubprocessSession:
        """A fresh interpreter that stays."""
        return SubprocessSession(self.settings.limits, files or {})

    async def close(self) -> None:
        """Nothing outlives its run; sessions are closed by those who opened them."""


class SubprocessSession(Session):
    """A live interpreter without isolation."""

    def __init__(self, limits: Limits, files: Mapping[str, bytes]) -> None:
        self._limits = limits
        self._folder = _Folder(files)
        self._busy = asyncio.Lock()
        self._process: _Process | None = None
        self._line: Line | None = None
        self._lost = False
        self._closed = False

    async def execute(self, code: str, *, limits: Limits | None = None) -> RunResult:
        """Run `code` in the interpreter; one at a time, others wait."""
        limits = limits or self._limits
        async with self._busy:
            self._check_open()
            process, line = self._ready()
            for output in line.outputs:
                output.begin(limits.output_chars)
                output.listen(asyncio.get_running_loop())
            ending = line.waiting = asyncio.get_running_loop().create_future()
            started = time.perf_counter()
            try:
                await line.ask(guest.RUN, code.encode("utf-8", "surrogatepass"))
                over = {ending, process.ended}
                await asyncio.wait(
                    over, timeout=limits.wall_seconds, return_when=asyncio.FIRST_COMPLETED
                )
            except BaseException:
                self._drop()
                raise
            seconds = time.perf_counter() - started
            lost, self._lost = self._lost, False
            if ending.done() and isinstance(reply := ending.result(), Reply):
                return _told(line.outputs, status_of(reply), None, seconds, restarted=lost)
            overrun = not process.ended.done()
            code_, why = await process.end(), process.why or ("wall" if overrun else "")
            result = _told(line.outputs, *outcome_of(code_, why), seconds, restarted=True)
            self._drop()
            self._lost = False
            return result

    async def run(
        self, argv: Sequence[str], *, stdin: str = "", limits: Limits | None = None
    ) -> RunResult:
        """Run a program in the folder."""
        async with self._busy:
            self._check_open()
            return await _play(self._folder, ["--", *argv], stdin, limits or self._limits)

    async def read(self, path: str) -> bytes:
        """A plain file of the folder."""
        self._check_open()
        return self._folder.read(path)

    async def write(self, path: str, content: bytes) -> None:
        """Write a plain file of the folder; `PermissionError` where the name leads out."""
        self._check_open()
        self._folder.write(path, content)

    async def fork(self) -> Session:
        """Impossible: the environment plays the runs again.

        Raises:
            EnvError: always.
        """
        raise EnvError("a subprocess session cannot be forked: its sandbox says 'replay'")

    async def close(self) -> None:
        """End the interpreter and delete the folder."""
        if not self._closed:
            self._closed = True
            self._drop()
            self._folder.close()

    def _check_open(self) -> None:
        if self._closed:
            raise EnvError("a sandbox session was used after it was closed")

    def _ready(self) -> tuple[_Process, Line]:
        if self._process is not None and self._process.ended.done():
            self._drop()
        if self._process is None or self._line is None:
            self._line = line = Line(self._flood)
            channel, out, err = line.theirs
            stdin = stdin_file(b"")
            self._process = _Process(
                self._folder, [str(channel)], (stdin, out, err), self._limits, keep=(channel,)
            )
            os.close(stdin)
            line.handed_over()
            return self._process, line
        return self._process, self._line

    def _flood(self) -> None:
        if self._process is not None:
            self._process.kill("flood")

    def _drop(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
            self._lost = True
        if self._line is not None:
            self._line.close()
            self._line = None


class _Folder:
    """A temporary folder; names never lead out of it."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="agentrl-")).resolve()
        try:
            for name, content in files.items():
                self.write(name, content)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def read(self, name: str) -> bytes:
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path) or not path.is_file():
            raise FileNotFoundError(f"no file {name!r} in the session")
        return path.read_bytes()

    def write(self, name: str, content: bytes) -> None:
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path) or path == self.path:
            raise PermissionError(f"{name!r} is no path below the working folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class _Process:
    """A process in a session and group of its own, whose end is a future."""

    def __init__(
        self,
        folder: _Folder,
        what: Sequence[str],
        standard: tuple[int, int, int],
        limits: Limits,
        keep: tuple[int, ...] = (),
    ) -> None:
        argv = [sys.executable, "-I", "-c", _START.format(_ROOM)]
        stdin, out, err = standard
        self._child = subprocess.Popen(
            [*argv, json.dumps(allowance(limits)), *what],
            stdin=stdin,
            stdout=out,
            stderr=err,
            pass_fds=keep,
            cwd=folder.path,
            env={**os.environ, "TMPDIR": str(folder.path)},
            start_new_session=True,
        )
        self.why = ""
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._watched = os.pidfd_open(self._child.pid)
        self._loop.add_reader(self._watched, self._over)

    def kill(self, why: str) -> None:
        """End it and its process group."""
        self.why = self.why or why
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    async def end(self) -> int:
        """Its exit code, with nothing of its process group left."""
        self.kill("")
        return await asyncio.shield(self.ended)

    def close(self) -> None:
        """End it without waiting for anything but the kernel."""
        self.kill("")
        if not self._loop.is_closed():
            self._over()

    def _over(self) -> None:
        code = self._child.wait()
        if self._watched >= 0:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1
        if not self.ended.done():
            self.ended.set_result(code)


async def _play(folder: _Folder, what: Sequence[str], stdin: str, limits: Limits) -> RunResult:
    """One process from start to end."""
    loop = asyncio.get_running_loop()
    killers: list[Callable[[str], None]] = []
    pipes = two_pipes()
    outputs = [Output(read, on_flood=lambda: killers[0]("flood")) for read, _ in pipes]
    given = (stdin_file(stdin.encode("utf-8", "surrogatepass")), pipes[0][1], pipes[1][1])
    try:
        started = time.perf_counter()
        process = _Process(folder, what, given, limits)
    finally:
        for descriptor in given:
            os.close(descriptor)
    killers.append(process.kill)
    try:
        for output in outputs:
            output.begin(limits.output_chars)
            output.listen(loop)
        await asyncio.wait({process.ended}, timeout=limits.wall_seconds)
        if not process.ended.done():
            process.kill("wall")
        status, code = outcome_of(await process.end(), process.why)
        return _told(outputs, status, code, time.perf_counter() - started)
    finally:
        process.close()
        for output in outputs:
            output.close()


def _told(
    outputs: Sequence[Output],
    status: RunStatus,
    code: int | None,
    seconds: float,
    *,
    restarted: bool = False,
) -> RunResult:
    for output in outputs:
        output.drain()
        output.stop()
    out, err = (output.take() for output in outputs)
    return RunResult(
        status=status,
        stdout=out.text,
        stderr=err.text,
        exit_code=code,
        seconds=seconds,
        cut=out.cut or err.cut,
        restarted=restarted,
    )
