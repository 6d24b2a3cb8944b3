"""Programs in containers of a Docker daemon, which are used again as long as they stay clean."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agentrl.core.env import Forkable
from agentrl.core.errors import EnvError
from agentrl.sandbox.base import Limits, RunResult, RunStatus, Sandbox, Session
from agentrl.sandbox.docker_daemon import Container, Daemon, Shape
from agentrl.sandbox.docker_link import LinkError, Reply
from agentrl.sandbox.docker_pool import Pool
from agentrl.sandbox.settings import DockerSettings

_GRACE_SECONDS: Final = 5.0
"""What the guest may take beyond a run's own limit, to end what will not die."""
_FILE_SECONDS: Final = 30.0
_PROGRAM: Final = "main.py"
_OUT_OF_MEMORY: Final = re.compile(rb"(?:^|\n)MemoryError(?::[^\n]*)?\n*$")
_CUT: Final = "\n[cut: only the first {} characters are shown]"


class DockerSandbox(Sandbox):
    """Containers without a network, each with limits of its own; sessions fork by replay.

    A container has a read-only root and no mount of the host; what may be written is one tmpfs of
    `disk_mb`, which holds the working folder `/tmp/work`, and a `/dev/shm` of 8 MB. Programs run
    as user 65534 without capabilities, under `no-new-privileges` and the daemon's seccomp filter,
    `cpus` processors at most, swap excluded. `memory_mb` holds for all processes together, and a
    program may use as memory what it does not use as disk. The container's first process is ours;
    programs can neither signal nor trace it. It ends the container when its owner is gone.

    `memory_mb`, `processes` and `disk_mb` are fixed when a container starts: a session has those
    of the settings, whatever its calls say.

    Not protected against: holes of the kernel, of runc or of the daemon; the use of time and
    caches of the processor by others; an image that is hostile itself. Who may use the daemon's
    socket is root on its machine: containers never see it, the process of this class does.
    """

    forkable: Forkable = "replay"

    def __init__(self, settings: DockerSettings) -> None:
        self.settings = settings
        self._daemon = Daemon(settings)
        self._pool = Pool(settings, self._daemon)

    async def run_python(
        self,
        code: str,
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run a program of its own, as the file `main.py` of the working folder."""
        program = {**(files or {}), _PROGRAM: _encoded(code)}
        return await self.run(["python3", _PROGRAM], stdin=stdin, files=program, limits=limits)

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run any program of the image in a clean container with `files`."""
        limits = limits or self.settings.limits
        container = await self._pool.take(Shape.of(limits))
        used = Use(self._pool, self._daemon, container)
        fine = False
        try:
            await used.write(files or {})
            result = await used.run(argv, stdin, limits, alone=True)
            fine = used.fine
            return result
        finally:
            await self._pool.give(container, fine=fine)

    async def open(self, files: Mapping[str, bytes] | None = None) -> Session:
        """A session in a container of its own."""
        container = await self._pool.take(Shape.of(self.settings.limits))
        used = Use(self._pool, self._daemon, container)
        try:
            await used.write(files or {})
        except BaseException:
            await self._pool.give(container, fine=False)
            raise
        return DockerSession(self.settings, self._pool, used)

    async def close(self) -> None:
        """Remove every container of this sandbox, open sessions included."""
        await self._pool.close()


class DockerSession(Session):
    """A container with a live interpreter; see `DockerSandbox`.

    Programs that a run leaves in the background end with it, but for children of the interpreter.
    """

    def __init__(self, settings: DockerSettings, pool: Pool, used: Use) -> None:
        self._settings = settings
        self._pool = pool
        self._used: Use | None = used
        self._turn = asyncio.Lock()

    async def execute(self, code: str, *, limits: Limits | None = None) -> RunResult:
        """Run Python that sees what earlier runs defined."""
        async with self._turn:
            return await self._open().execute(code, limits or self._settings.limits)

    async def run(
        self, argv: Sequence[str], *, stdin: str = "", limits: Limits | None = None
    ) -> RunResult:
        """Run a program of the image in the working folder."""
        async with self._turn:
            return await self._open().run(argv, stdin, limits or self._settings.limits, alone=False)

    async def read(self, path: str) -> bytes:
        """A regular file of the working folder, never through a link."""
        async with self._turn:
            return await self._open().read(path)

    async def write(self, path: str, content: bytes) -> None:
        """Write a file; `OSError` where it does not fit or the path is taken."""
        async with self._turn:
            await self._open().write({path: content})

    async def fork(self) -> Session:
        """Not possible: the environment plays its runs again."""
        raise TypeError("sessions of Docker fork by replay, not by copy")

    async def close(self) -> None:
        """End every process, a run that is under way too; the container is cleaned for others."""
        used, self._used = self._used, None
        if used is None:
            return
        if self._turn.locked():
            used.abandon()
        await self._pool.give(used.container, fine=used.fine)

    def _open(self) -> Use:
        if self._used is None:
            raise EnvError("a Docker session was used after it was closed")
        return self._used


class Use:
    """One use of a container, and whether it may be used again (`fine`)."""

    def __init__(self, pool: Pool, daemon: Daemon, container: Container) -> None:
        self._pool = pool
        self._daemon = daemon
        self.container = container
        self.fine = True
        self._gone = False

    def abandon(self) -> None:
        """End the container, and with an `EnvError` what waits for it."""
        self.fine, self._gone = False, True
        self.container.link.close()

    async def run(
        self, argv: Sequence[str], stdin: str, limits: Limits, *, alone: bool
    ) -> RunResult:
        """Run a program; with `alone` nothing else lives in the container."""
        if not argv:
            raise ValueError("a program to run needs a name")
        request = {"do": "run", "argv": list(argv), "alone": alone}
        return await self._run(request, _encoded(stdin), limits)

    async def execute(self, code: str, limits: Limits) -> RunResult:
        """Run code in the live interpreter."""
        return await self._run({"do": "execute"}, _encoded(code), limits)

    async def read(self, path: str) -> bytes:
        """A file; `FileNotFoundError` where there is no regular one that can be read."""
        reply = await self._ask({"do": "read", "path": _checked(path)}, ())
        if "error" in reply.header:
            said = os.strerror(int(reply.header["error"]))
            raise FileNotFoundError(errno.ENOENT, f"no file in the sandbox ({said})", path)
        return reply.blobs[0]

    async def write(self, files: Mapping[str, bytes]) -> None:
        """Write files; `OSError` where one does not fit or its path is taken."""
        if not files:
            return
        paths = [_checked(path) for path in files]
        reply = await self._ask({"do": "write", "paths": paths}, list(files.values()))
        if "error" in reply.header:
            number = int(reply.header["error"])
            raise OSError(number, f"{os.strerror(number)} in the sandbox", ", ".join(paths))

    async def _ask(self, request: Mapping[str, Any], blobs: Sequence[bytes]) -> Reply:
        if self._gone:
            raise EnvError("the Docker session's container is gone")
        try:
            return await self._pool.ask(self.container, request, blobs, seconds=_FILE_SECONDS)
        except BaseException as error:
            self.fine, self._gone = False, True
            if isinstance(error, LinkError):
                raise EnvError(f"Docker container {self.container.id[:12]}: {error}") from error
            raise

    async def _run(self, request: Mapping[str, Any], blob: bytes, limits: Limits) -> RunResult:
        if self._gone:
            raise EnvError("the Docker session's container is gone")
        started = time.perf_counter()
        told = {**request, "limits": limits.model_dump()}
        seconds = limits.wall_seconds + _GRACE_SECONDS
        try:
            header, blobs = await self._pool.ask(self.container, told, [blob], seconds=seconds)
        except LinkError as error:
            if self._gone:
                raise EnvError("a Docker session was closed while it ran") from error
            self.fine, self._gone = False, True
            return await self._lost(error, time.perf_counter() - started)
        except BaseException:
            self.fine, self._gone = False, True
            raise
        if "error" in header:
            self.fine = False
            said = os.strerror(int(header["error"]))
            raise EnvError(f"Docker container {self.container.id[:12]}: the guest failed: {said}")
        status = RunStatus(header["status"])
        if status is RunStatus.ERROR and _OUT_OF_MEMORY.search(blobs[1]):
            # Python asked for more than the machine could ever give, and was told so.
            status, header = RunStatus.MEMORY_LIMIT, {**header, "exit_code": None}
        self.fine = self.fine and status in (RunStatus.OK, RunStatus.ERROR) and not header["left"]
        texts = [one.decode("utf-8", "replace") for one in blobs]
        cuts = [
            more or len(text) > limits.output_chars
            for text, more in zip(texts, header["cut"], strict=True)
        ]
        stdout, stderr = (
            text[: limits.output_chars] + _CUT.format(limits.output_chars) if cut else text
            for text, cut in zip(texts, cuts, strict=True)
        )
        return RunResult(
            status=status,
            stdout=stdout,
            stderr=stderr,
            exit_code=header["exit_code"],
            seconds=time.perf_counter() - started,
            cut=any(cuts),
            restarted=header["restarted"],
        )

    async def _lost(self, error: LinkError, seconds: float) -> RunResult:
        """What became of a run whose container was lost in it."""
        # A daemon that is gone as well fails here: nobody knows then what the program did.
        if await self._daemon.ran_out_of_memory(self.container, seconds=seconds):
            status = RunStatus.MEMORY_LIMIT
        elif str(error) == "no answer in time":
            status = RunStatus.WALL_LIMIT
        else:
            raise EnvError(f"Docker container {self.container.id[:12]}: {error}") from error
        return RunResult(status=status, stdout="", stderr="", seconds=seconds, restarted=True)


def _encoded(text: str) -> bytes:
    # A policy can write a lone surrogate, which no file can hold.
    return text.encode("utf-8", "replace")


def _checked(path: str) -> str:
    """`path`, if it stays below the working folder whatever the links there."""
    parts = path.split("/")
    if not all(parts) or "\0" in path or {".", ".."} & set(parts):
        raise FileNotFoundError(errno.ENOENT, "no path below the working folder", path)
    return path
