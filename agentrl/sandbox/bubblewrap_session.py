"""A live interpreter in namespaces of its own: run by run, forked with its memory and files."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.core.errors import EnvError
from agentrl.sandbox.base import Limits, RunResult, Session
from agentrl.sandbox.container import Container
from agentrl.sandbox.control import Control
from agentrl.sandbox.guest import interpreter as guest
from agentrl.sandbox.line import Line, Reply
from agentrl.sandbox.outcome import allowance, outcome_of, status_of
from agentrl.sandbox.output import Output, enough_descriptors, stdin_file, two_pipes

_GRACE = 8.0
_TOLD_EVERY = 0.25
_QUICK = 0.02
"""Seconds after which a run's use of the machine is watched; most have ended by then."""


class BubblewrapSession(Session):
    """A forked interpreter that stays; see `BubblewrapSandbox` for what it is kept from."""

    def __init__(self, limits: Limits, slots: asyncio.Semaphore) -> None:
        self._limits = limits
        self._slots = slots
        self._busy = asyncio.Lock()
        self._control: Control
        self._line: Line | None = None
        self._pid = 0
        self._lost = False
        """The interpreter went, and no run has said so yet."""
        self._closed = False
        self._why = ""
        self._ending: asyncio.Future[dict[str, Any] | Reply] | None = None
        self._program = 0
        self._ran = 0.0
        self._early: dict[str, Any] | None = None

    @classmethod
    async def start(
        cls,
        container: Container,
        limits: Limits,
        files: Mapping[str, bytes],
        slots: asyncio.Semaphore,
    ) -> BubblewrapSession:
        """A new family's first session; it gives its place in `slots` back when it is closed."""
        session = cls(limits, slots)
        ours, theirs = socket.socketpair()
        with theirs:
            container.hand(theirs)
        session._control = Control(ours, session._news)
        try:
            await session._begin(files)
        except BaseException:
            session._drop()
            raise
        return session

    async def execute(self, code: str, *, limits: Limits | None = None) -> RunResult:
        """Run `code`; one at a time, others wait."""
        limits = limits or self._limits
        async with self._busy:
            line = await self._ready()
            return await self._execute(line, code.encode("utf-8", "surrogatepass"), limits)

    async def run(
        self, argv: Sequence[str], *, stdin: str = "", limits: Limits | None = None
    ) -> RunResult:
        """Run a program beside the interpreter, which waits meanwhile."""
        if not argv:
            raise ValueError("argv must name a program, got nothing")
        limits = limits or self._limits
        async with self._busy:
            self._check_open()
            outputs: list[Output] = []
            given = [stdin_file(stdin.encode("utf-8", "surrogatepass"))]
            try:
                with enough_descriptors():
                    pipes = two_pipes()
                for read, write in pipes:
                    given.append(write)
                    outputs.append(Output(read, on_flood=lambda: self._end("flood", program=True)))
                return await self._command(list(argv), given, outputs, limits)
            finally:
                for descriptor in given:
                    os.close(descriptor)
                for output in outputs:
                    output.close()

    async def read(self, path: str) -> bytes:
        """A plain file of the folder."""
        async with self._busy:
            self._check_open()
            try:
                return (await self._control.ask("read", {"path": path})).blobs[0]
            except OSError as error:
                raise FileNotFoundError(
                    errno.ENOENT, "no such file in the session", path
                ) from error

    async def write(self, path: str, content: bytes) -> None:
        """Write a plain file of the folder; `OSError` where it leads out or no room is left."""
        async with self._busy:
            self._check_open()
            await self._control.ask("write", {"path": path}, [content])

    async def fork(self) -> BubblewrapSession:
        """A copy-on-write copy of the interpreter with a copy of the folder."""
        await self._slots.acquire()
        twin = BubblewrapSession(self._limits, self._slots)
        try:
            async with self._busy:
                with enough_descriptors():
                    await self._fork_into(await self._ready(), twin)
        except BaseException:
            twin._ending = None  # nobody waits for it
            twin._drop()
            self._slots.release()
            raise
        return twin

    async def close(self) -> None:
        """End it; a run that is under way ends with an `EnvError`."""
        if self._closed:
            return
        self._drop()
        self._slots.release()

    def _drop(self) -> None:
        self._closed = True
        if hasattr(self, "_control"):
            self._control.close()
        if self._line is not None:
            self._line.close()
        if self._ending is not None and not self._ending.done():
            self._ending.set_exception(EnvError("a sandbox session was closed while it ran"))

    def _check_open(self) -> None:
        if self._closed:
            raise EnvError("a sandbox session was used after it was closed")
        if self._control.gone:
            raise EnvError("a sandbox session has gone with its container")

    async def _ready(self) -> Line:
        """The line to a living interpreter; a new one where the last has ended."""
        self._check_open()
        if self._line is None:
            await self._control.ask("kill")
            await self._begin({})
        assert self._line is not None
        return self._line

    async def _begin(self, files: Mapping[str, bytes]) -> None:
        line = Line(lambda: self._end("flood"))
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        channel, out, err = line.theirs
        header = {"limits": allowance(self._limits), "files": list(files)}
        try:
            frame = await self._control.ask(
                "session", header, list(files.values()), (null, out, err, channel)
            )
        except OSError as error:
            line.close()
            raise EnvError(f"the sandbox could not start a session: {error}") from error
        except BaseException:
            line.close()
            raise
        finally:
            os.close(null)
        line.handed_over()
        self._line, self._pid = line, frame.header["pid"]

    async def _execute(self, line: Line, code: bytes, limits: Limits) -> RunResult:
        loop = asyncio.get_running_loop()
        for output in line.outputs:
            output.begin(limits.output_chars)
        self._why = ""
        timers = [
            loop.call_later(min(_QUICK, limits.wall_seconds), self._watch, line, limits),
            loop.call_later(limits.wall_seconds, self._end, "wall"),
        ]
        started = time.perf_counter()
        lost, self._lost = self._lost, False
        try:
            ending = await self._ask(line, guest.RUN, code)
            seconds = time.perf_counter() - started
            if isinstance(ending, Reply):
                for output in line.outputs:
                    output.drain()
                    output.stop()
                if seconds >= _QUICK:
                    self._control.tell("unwatch")
                    self._ran = 0.0
                else:
                    self._count(seconds)
        except BaseException:
            self._abandon()
            raise
        finally:
            for timer in timers:
                timer.cancel()
        return self._result(line, ending, seconds, lost)

    async def _ask(
        self, line: Line, what: int, body: bytes = b"", descriptors: Sequence[int] = ()
    ) -> dict[str, Any] | Reply:
        """The interpreter's reply, or the news that it has ended."""
        self._ending = line.waiting = asyncio.get_running_loop().create_future()
        await line.ask(what, body, descriptors)
        return await self._ending

    def _result(
        self, line: Line, ending: dict[str, Any] | Reply, seconds: float, lost: bool
    ) -> RunResult:
        code: int | None
        if isinstance(ending, Reply):
            status, code = status_of(ending), None
        else:
            for output in line.outputs:
                output.drain()
            status, code = outcome_of(ending["code"], self._why or ending["why"])
            self._abandon()
            lost, self._lost = True, False
        out, err = (output.take() for output in line.outputs)
        return RunResult(
            status=status,
            stdout=out.text,
            stderr=err.text,
            exit_code=code,
            seconds=seconds,
            cut=out.cut or err.cut,
            restarted=lost,
        )

    async def _command(
        self, argv: list[str], given: list[int], outputs: list[Output], limits: Limits
    ) -> RunResult:
        loop = asyncio.get_running_loop()
        self._why, self._early = "", None
        ending = self._ending = loop.create_future()
        for output in outputs:
            output.begin(limits.output_chars)
            output.listen(loop)
        header = {"argv": argv, "limits": allowance(limits)}
        started = time.perf_counter()
        try:
            self._program = (await self._control.ask("command", header, (), given)).header["pid"]
        except OSError as error:
            raise EnvError(f"the sandbox could not start {argv[0]!r}: {error}") from error
        if self._early is not None and self._early["ended"] == self._program:
            self._news(self._early)
        timer = loop.call_later(limits.wall_seconds, self._end, "wall", True)
        try:
            news = await ending
        except BaseException:
            self._control.tell("kill_program")
            raise
        finally:
            timer.cancel()
            self._program = 0
        assert isinstance(news, dict)
        seconds = time.perf_counter() - started
        for output in outputs:
            output.drain()
        out, err = (output.take() for output in outputs)
        status, code = outcome_of(news["code"], self._why or news["why"])
        return RunResult(
            status=status,
            stdout=out.text,
            stderr=err.text,
            exit_code=code,
            seconds=seconds,
            cut=out.cut or err.cut,
        )

    async def _fork_into(self, line: Line, twin: BubblewrapSession) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            await self._control.ask("adopt", {}, (), (theirs.fileno(),))
        twin._control = Control(ours, twin._news)
        twin._lost = self._lost
        fresh = twin._line = Line(lambda: twin._end("flood"))
        twin._ending = fresh.waiting = asyncio.get_running_loop().create_future()
        fresh.number = line.upcoming
        try:
            async with asyncio.timeout(_FORK_SECONDS):
                asked = await self._ask(line, guest.FORK, b"", fresh.theirs)
                fresh.handed_over()
                _must(asked, "its interpreter did not fork")
                there = _must(await twin._ending, "the fork did not report")
                await twin._control.ask("furnish", {"pid": there.value})
                _must(await twin._ask(fresh, guest.SETTLE), "the fork could not open its files")
                twin._pid = there.value
        except (TimeoutError, OSError) as error:
            raise EnvError(f"a sandbox session could not be forked: {error}") from error

    def _count(self, seconds: float) -> None:
        """Say from time to time how long quick runs took, lest they count as background work."""
        self._ran += seconds
        if self._ran > _TOLD_EVERY:
            self._control.tell("ran", {"seconds": self._ran})
            self._ran = 0.0

    def _watch(self, line: Line, limits: Limits) -> None:
        """The run is not a quick one: mind what it writes and uses."""
        for output in line.outputs:
            output.listen(asyncio.get_running_loop())
        self._control.tell("watch", {"limits": allowance(limits)})

    def _end(self, why: str, program: bool = False) -> None:
        """End the run that is under way for passing a limit."""
        self._why = self._why or why
        self._control.tell("kill_program" if program else "kill")
        ending = self._ending
        if ending is not None:
            asyncio.get_running_loop().call_later(_GRACE, _fail, ending)

    def _abandon(self) -> None:
        """Let go of an interpreter that has ended, or of which nobody knows what it is doing."""
        if self._line is not None:
            self._line.close()
            self._line = None
        self._lost = True
        self._pid = 0
        self._control.tell("kill")

    def _news(self, news: dict[str, Any] | None) -> None:
        ending = self._ending
        if news is None:
            if self._line is not None:
                self._line.close()
            if ending is not None and not ending.done():
                ending.set_exception(EnvError("a sandbox session's container has died"))
        elif "ended" not in news:
            pass  # a family that could not begin says why, and goes
        elif news["ended"] == self._pid and self._pid:
            if ending is not None and not ending.done() and not self._program:
                ending.set_result(news)
            elif self._line is not None:
                self._abandon()  # between two runs
        elif news["ended"] == self._program and ending is not None and not ending.done():
            ending.set_result(news)
        else:
            self._early = news  # a program may have ended before it is known to have begun


_FORK_SECONDS = 30.0


def _must(reply: dict[str, Any] | Reply, otherwise: str) -> Reply:
    if isinstance(reply, Reply) and reply.status == guest.DONE:
        return reply
    raise OSError(errno.EIO, otherwise)


def _fail(ending: asyncio.Future[dict[str, Any] | Reply]) -> None:
    if not ending.done():
        ending.set_exception(EnvError("the sandbox did not end a run within its grace time"))
