"""The default sandbox: Linux namespaces, and interpreters forked from a warm one."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.core.env import Forkable
from agentrl.core.errors import EnvError
from agentrl.sandbox.base import Limits, RunResult, RunStatus, Sandbox
from agentrl.sandbox.bubblewrap_session import BubblewrapSession
from agentrl.sandbox.container import Container, start_container
from agentrl.sandbox.control import Control
from agentrl.sandbox.outcome import allowance, outcome_of
from agentrl.sandbox.output import Output, enough_descriptors, stdin_file, two_pipes
from agentrl.sandbox.settings import BubblewrapSettings

_GRACE = 8.0
_RECYCLE, _KEPT = 256, 16
"""Programs that play one after the other in the same process namespace, and namespaces kept."""


class BubblewrapSandbox(Sandbox):
    """Programs in namespaces of their own, forked from an interpreter that is warm.

    One bubblewrap container holds the interpreter, which has imported `preload`. In it each family
    (a session with all that were forked from it, or one stateless program at a time) has its own
    process, network, IPC, host-name, user and mount namespaces, and its first process, which no
    program can signal or trace, to start, watch and end the rest. What programs can write is one
    file system of `disk_mb` in memory, a session's or program's own; they see the system and this
    Python read only, no network but a loopback of their own, no environment, and run as nobody,
    without capabilities, under a seccomp filter. When this process or the container ends, however
    it ends, the kernel ends all of it.

    Limits: memory is that of a session's or program's processes together, looked at 20 times a
    second while a run lasts and once a second between runs, and RLIMIT_DATA for each process; what
    is in files counts as disk, memory inside of the kernel as nothing. Processor time and
    processes count together (threads are processes). A program may raise `processes` by the room
    that a session keeps for its forks.

    A run that passes a limit ends its session's interpreter, except for memory that is refused at
    once (a MemoryError): variables then stay. A session's memory, processes, files and disk are
    those of the settings; `execute` and `run` may lower time, memory and output.

    `fork` copies the interpreter with copy-on-write memory and the files. Open files are opened
    again in the copy; threads and child processes stay with the original, and sockets, pipes and
    memory that was mapped to be shared stay shared.

    What it does not protect against: a hole in the Linux kernel; use of processors, caches and
    memory bandwidth (timing of neighbours shows); reading what the machine's system folders and
    this Python's packages hold. Forks of one session are kept apart in memory limits and files,
    but share their process and network namespaces and a user: a program that means to can signal
    the processes of its own session's forks (not all at once), talk to them over loopback, take a
    port that they want, or keep a file of the moment of the fork open. Other families are out of
    its sight. And a live interpreter reports its own end: what a session says of itself is the
    word of the policy's program, so a grader must judge from outside, in a fresh run.
    """

    forkable: Forkable = "copy"

    def __init__(self, settings: BubblewrapSettings | None = None) -> None:
        self.settings = settings or BubblewrapSettings()
        self._pool = _Pool(self.settings)

    async def run_python(
        self,
        code: str,
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run a program forked from the warm interpreter, as `__main__`."""
        return await self._program({}, _encoded(code), stdin, files or {}, limits)

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run a program of the read-only system.

        Raises:
            ValueError: `argv` is empty.
        """
        if not argv:
            raise ValueError("argv must name a program, got nothing")
        return await self._program({"argv": list(argv)}, b"", stdin, files or {}, limits)

    async def open(self, files: Mapping[str, bytes] | None = None) -> BubblewrapSession:
        """A session with an interpreter of its own."""
        pool = self._here()
        await pool.slots.acquire()
        try:
            with enough_descriptors():
                return await BubblewrapSession.start(
                    await pool.container(), self.settings.limits, files or {}, pool.slots
                )
        except BaseException:
            pool.slots.release()
            raise

    async def close(self) -> None:
        """End the container and with it every session."""
        self._pool.close()

    def _here(self) -> _Pool:
        """The pool of this process and loop: a fork of the worker, or another loop, has its own."""
        if not self._pool.is_here():
            self._pool = _Pool(self.settings)
        return self._pool

    async def _program(
        self,
        what: dict[str, Any],
        code: bytes,
        stdin: str,
        files: Mapping[str, bytes],
        limits: Limits | None,
    ) -> RunResult:
        pool = self._here()
        async with pool.slots:
            with enough_descriptors():
                runner = await pool.runner()
            run = _Program(runner.control, limits or self.settings.limits)
            clean = False
            try:
                with enough_descriptors():
                    result = await run.play(what, code, stdin, files)
                clean = run.clean
                return result
            finally:
                run.close()
                pool.take_back(runner, clean=clean)


class _Runner:
    """A family's first process that plays one program after the other."""

    def __init__(self, container: Container) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            container.hand(theirs)
        self.control = Control(ours, lambda news: None)
        self.runs = 0


class _Pool:
    """What belongs to one process and event loop: a container and a bound on what lives in it."""

    def __init__(self, settings: BubblewrapSettings) -> None:
        self._settings = settings
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = asyncio.Lock()
        self._container: Container | None = None
        self._idle: list[_Runner] = []
        self.slots = asyncio.Semaphore(settings.sessions)

    def is_here(self) -> bool:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        return self._process == os.getpid() and self._loop is loop

    async def container(self) -> Container:
        """The container; a new one where the last has died."""
        async with self._starting:
            if self._container is None or not self._container.alive:
                self.close()
                self._container = await start_container(
                    self._settings.preload, processes=self._settings.processes
                )
            return self._container

    async def runner(self) -> _Runner:
        """One in whose namespaces nothing runs."""
        while self._idle:
            runner = self._idle.pop()
            if not runner.control.gone:
                return runner
        return _Runner(await self.container())

    def take_back(self, runner: _Runner, *, clean: bool) -> None:
        """Keep `runner` for the next program if nothing is left of this one."""
        runner.runs += 1
        if clean and runner.runs < _RECYCLE and len(self._idle) < _KEPT:
            self._idle.append(runner)
        else:
            runner.control.close()

    def close(self) -> None:
        if self._process != os.getpid():
            return  # the sockets and the poll set are still in use by the process that forked this
        for runner in self._idle:
            runner.control.close()
        self._idle = []
        if self._container is not None:
            self._container.close()
            self._container = None


class _Program:
    """One stateless run."""

    def __init__(self, control: Control, limits: Limits) -> None:
        self._limits = limits
        self._ended: asyncio.Future[dict[str, Any] | None]
        self._ended = asyncio.get_running_loop().create_future()
        self._flooded = False
        self._control = control
        control.on_news = self._news
        self.clean = False
        self._outputs: tuple[Output, ...] = ()

    async def play(
        self,
        what: dict[str, Any],
        code: bytes,
        stdin: str,
        files: Mapping[str, bytes],
    ) -> RunResult:
        """Start it, wait for its end or its deadline, and say how it went."""
        loop = asyncio.get_running_loop()
        pipes = two_pipes()
        self._outputs = tuple(Output(read, on_flood=self._flood) for read, _ in pipes)
        given = [stdin_file(_encoded(stdin)), *(write for _, write in pipes)]
        try:
            for output in self._outputs:
                output.begin(self._limits.output_chars)
                output.listen(loop)
            header = {**what, "files": list(files), "limits": allowance(self._limits)}
            started = time.perf_counter()
            await self._control.say("program", header, [*files.values(), code], given)
        finally:
            for descriptor in given:
                os.close(descriptor)
        overrun = not await self._wait(self._limits.wall_seconds)
        if overrun:
            self._control.tell("kill")
            if not await self._wait(_GRACE):
                raise EnvError("the sandbox did not end a program within its grace time")
        return self._result(self._ended.result(), overrun, time.perf_counter() - started)

    def close(self) -> None:
        """Free what is open."""
        for output in self._outputs:
            output.close()

    async def _wait(self, seconds: float) -> bool:
        done, _ = await asyncio.wait({self._ended}, timeout=seconds)
        return bool(done)

    def _result(self, news: dict[str, Any] | None, overrun: bool, seconds: float) -> RunResult:
        if news is None:
            raise EnvError("the sandbox's container died while a program ran")
        if "error" in news:
            raise EnvError(f"the sandbox could not start a program: {news['error']}")
        self.clean = bool(news["clean"])
        for output in self._outputs:
            output.drain()
        out, err = (output.take() for output in self._outputs)
        why = "flood" if self._flooded else "wall" if overrun else news["why"]
        status, code = outcome_of(news["code"], why)
        return RunResult(
            status=status,
            stdout=out.text,
            stderr=err.text,
            exit_code=code,
            seconds=seconds,
            cut=out.cut or err.cut or status is RunStatus.OUTPUT_LIMIT,
        )

    def _news(self, news: dict[str, Any] | None) -> None:
        if not self._ended.done():
            self._ended.set_result(news)

    def _flood(self) -> None:
        self._flooded = True
        self._control.tell("kill")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
