"""One desktop: a confined process with a display of its own, and the requests it answers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from agentrl.core.errors import EnvError

from .confinement import DesktopSettings, check_programs, confined

HOME = "/home/user"
START_SECONDS = 40.0
REQUEST_SECONDS = 30.0
CLOSE_SECONDS = 3.0
READ_BYTES = 16 << 20
_LENGTH = struct.Struct(">I")


class Ran(NamedTuple):
    """What a command said; `code` is None where its deadline passed."""

    code: int | None
    stdout: str
    stderr: str


class Desktop:
    """A running desktop. Every method raises `EnvError` once it is gone; `close` ends all of it."""

    def __init__(self, settings: DesktopSettings, process: asyncio.subprocess.Process) -> None:
        self.settings = settings
        self._process = process
        self._one_at_a_time = asyncio.Lock()
        self._broken = ""

    @classmethod
    async def start(cls, settings: DesktopSettings) -> Self:
        """Start one and wait until it is ready.

        Raises:
            SetupError: a program is missing, with the command that brings it.
            EnvError: it did not start.
        """
        check_programs()
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *confined(settings), stdin=pipe, stdout=pipe, stderr=pipe
        )
        desktop = cls(settings, process)
        try:
            async with asyncio.timeout(START_SECONDS):
                said = await desktop._receive()
        except TimeoutError as error:
            await desktop.close()
            raise EnvError(f"a desktop did not start within {START_SECONDS:g} s") from error
        except EOFError as error:
            said = await desktop._last_words()
            await desktop.close()
            raise EnvError(f"a desktop did not start: {said}") from error
        except BaseException:
            await desktop.close()
            raise
        if "failed" in said:
            await desktop.close()
            raise EnvError(f"a desktop did not start: {said['failed']}")
        return desktop

    @property
    def pid(self) -> int:
        """The process whose end ends the desktop."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still answers, as far as is known."""
        return not self._broken and self._process.returncode is None

    async def request(self, op: str, *, seconds: float = REQUEST_SECONDS, **arguments: Any) -> Any:
        """Ask the desktop's helper; `seconds` is the deadline of the answer."""
        async with self._one_at_a_time:
            if self._broken:
                raise EnvError(f"the desktop is gone: {self._broken}")
            answer: Any = None
            try:
                async with asyncio.timeout(seconds):
                    answer = await self._exchange({"op": op, **arguments})
            except TimeoutError as error:
                self._broken = f"{op} was not answered within {seconds:g} s"
                raise EnvError(f"the desktop is gone: {self._broken}") from error
            except (EOFError, OSError) as error:
                self._broken = f"its process ended during {op}: {await self._last_words()}"
                raise EnvError(f"the desktop is gone: {self._broken}") from error
            finally:
                # An answer that nobody took would be taken for that of the next request.
                if answer is None and not self._broken:
                    self._broken = f"{op} was cancelled"
        if "failed" in answer:
            self._broken = str(answer["failed"])
            raise EnvError(f"the desktop is gone: {self._broken}")
        return answer

    async def _exchange(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        body = json.dumps(request).encode()
        self._process.stdin.write(_LENGTH.pack(len(body)) + body)
        await self._process.stdin.drain()
        return await self._receive()

    async def _receive(self) -> Any:
        assert self._process.stdout is not None
        (length,) = _LENGTH.unpack(await self._process.stdout.readexactly(4))
        answer = json.loads(await self._process.stdout.readexactly(length))
        if "payload" in answer:
            answer["payload"] = await self._process.stdout.readexactly(answer["payload"])
        return answer

    async def _last_words(self) -> str:
        """The last line that it wrote to standard error."""
        assert self._process.stderr is not None
        try:
            async with asyncio.timeout(1.0):
                told = (await self._process.stderr.read()).decode("utf-8", "replace").strip()
        except TimeoutError:
            told = ""
        return told.splitlines()[-1] if told else "it said nothing"

    async def launch(self, argv: Sequence[str] | str, *, cwd: str = HOME) -> str | None:
        """Start a program and leave it; returns why it could not be, or None."""
        found = await self.request("launch", argv=_plain(argv), cwd=cwd)
        return str(found["refused"]) if "refused" in found else None

    async def run(
        self, argv: Sequence[str] | str, *, cwd: str = HOME, timeout: float = 10.0
    ) -> Ran:
        """Run a program to its end or for `timeout` seconds; a string goes through the shell."""
        found = await self.request(
            "run", seconds=timeout + REQUEST_SECONDS, argv=_plain(argv), cwd=cwd, timeout=timeout
        )
        if "refused" in found:
            return Ran(127, "", str(found["refused"]))
        return Ran(found["code"], found["stdout"], found["stderr"])

    async def read(self, path: str) -> bytes | None:
        """A file of the desktop (its first 16 MiB), or None where there is none to read."""
        found = await self.request("read", path=absolute(path), limit=READ_BYTES)
        return None if "missing" in found else found.get("payload", b"")

    async def write(self, path: str, content: bytes) -> None:
        """Write a file of the desktop, its folders too."""
        data = base64.b64encode(content).decode()
        found = await self.request("write", path=absolute(path), data=data)
        if "missing" in found:
            raise EnvError(f"{path} could not be written on the desktop: {found['missing']}")

    async def windows(self) -> list[dict[str, Any]]:
        """The windows as they are now, oldest first."""
        return list((await self.request("windows"))["windows"])

    async def close(self) -> None:
        """End the desktop and everything on it; may be called twice."""
        self._broken = self._broken or "it was closed"
        process = self._process
        assert process.stdin is not None
        # Process 1 of the desktop ends with its requests, and everything else with process 1.
        process.stdin.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await process.wait()
        except TimeoutError:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            with contextlib.suppress(OSError):
                for pid in children.read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def absolute(path: str) -> str:
    """`path` from the home folder."""
    path = path.replace("~/", HOME + "/", 1) if path.startswith("~/") else path
    return path if path.startswith("/") else f"{HOME}/{path}"


def _plain(argv: Sequence[str] | str) -> list[str] | str:
    return argv if isinstance(argv, str) else list(argv)
