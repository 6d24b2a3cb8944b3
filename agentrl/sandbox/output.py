"""What a program writes, taken as it comes and bounded on this side."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agentrl.core.errors import EnvError

_CHUNK = 1 << 16
_FLOOD_FACTOR, _FLOOD_LEAST = 64, 1 << 22


class Text(NamedTuple):
    """The beginning of an output, as text."""

    text: str
    cut: bool


class Output:
    """The read end of a pipe: keeps the first `limit` characters, drops the rest.

    Reading goes on beyond the limit, so that a program that writes much ends as it would, up to
    64 times the limit and at least 4 MiB; then `on_flood` is called, once.
    """

    def __init__(self, descriptor: int, *, on_flood: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._on_flood = on_flood
        self._reading: asyncio.AbstractEventLoop | None = None
        self.begin(1)

    def begin(self, limit: int) -> None:
        """Forget what was read; keep `limit` characters of what comes now."""
        self._limit = limit
        self._kept = bytearray()
        self._total = 0
        self._flooded = False

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read whenever there is something, until `stop`."""
        if self._descriptor >= 0 and self._reading is None:
            self._reading = loop
            loop.add_reader(self._descriptor, self._once)

    def stop(self) -> None:
        """Read no more by itself."""
        if self._reading is not None:
            self._reading.remove_reader(self._descriptor)
            self._reading = None

    def drain(self) -> None:
        """Take what is there now, without waiting; up to the flood bound."""
        while not self._flooded and self._once():
            pass

    def take(self) -> Text:
        """What was kept since `begin`; a cut text says so at its end."""
        text = self._kept.decode("utf-8", errors="replace")
        if len(text) <= self._limit and self._total == len(self._kept):
            return Text(text, False)
        mark = f"\n[cut: only the first {self._limit} characters are shown]"
        return Text(text[: self._limit] + mark, True)

    def close(self) -> None:
        """Close the pipe; may be called twice."""
        self.stop()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _once(self) -> bool:
        """Whether something was read."""
        if self._descriptor < 0:
            return False
        part = b""
        with contextlib.suppress(BlockingIOError):
            part = os.read(self._descriptor, _CHUNK)
            if not part:
                self.stop()  # nobody can write any more
        self._total += len(part)
        room = 4 * self._limit + 4 - len(self._kept)
        if room > 0:
            self._kept += part[:room]
        if self._total > max(_FLOOD_LEAST, _FLOOD_FACTOR * self._limit) and not self._flooded:
            self._flooded = True
            self.stop()
            self._on_flood()
        return bool(part)


@contextlib.contextmanager
def enough_descriptors() -> Iterator[None]:
    """Raise `EnvError`, with what helps, where this process has too many files open."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise EnvError(
            "this process has no file descriptor left for a sandbox (a session takes four): "
            "raise the limit, `ulimit -n 65536`, or lower the sandbox's `sessions`"
        ) from error


def two_pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """Two pipes, each a read and a write end; none where there is not room for both."""
    first = os.pipe2(os.O_CLOEXEC)
    try:
        return first, os.pipe2(os.O_CLOEXEC)
    except OSError:
        for descriptor in first:
            os.close(descriptor)
        raise


def stdin_file(text: bytes) -> int:
    """An open file that gives `text`; the caller closes it."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with open(os.dup(descriptor), "wb") as file:
        file.write(text)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
