"""The owner's end of the pipe to a container's guest: blocking, and every call has a deadline."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

_STDOUT: Final = 1
_MAX_HEADER: Final = 1 << 20
_MAX_BLOB: Final = 1 << 31


class LinkError(Exception):
    """The guest is gone, does not answer, or says what no guest says."""


class Reply(NamedTuple):
    """What the guest answered."""

    header: Mapping[str, Any]
    blobs: Sequence[bytes]


class Stream(Protocol):
    """What the Docker SDK gives for an attached container: a socket, or one behind TLS."""

    def settimeout(self, value: float | None, /) -> None:
        """How long the next call may block."""

    def recv(self, size: int, /) -> bytes:
        """Some bytes; none at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Send all bytes."""

    def close(self) -> None:
        """Close this end."""


class Link:
    """Frames over the stream that the daemon carries from and to a container (see the guest).

    Not for two threads at once, but for `close`, which ends what another thread waits for.
    """

    def __init__(self, holder: Any) -> None:
        # The SDK's object must live as long as the socket inside it.
        self._holder = holder
        self._stream: Stream = getattr(holder, "_sock", holder)
        self._bytes = bytearray()
        self._complaints = bytearray()

    @property
    def complaint(self) -> str:
        """The end of what the guest wrote to its standard error."""
        return self._complaints.decode("utf-8", "replace").strip()[-500:]

    def exchange(
        self, header: Mapping[str, Any], blobs: Sequence[bytes], *, seconds: float
    ) -> Reply:
        """Send a request and wait for its reply."""
        deadline = time.monotonic() + seconds
        head = json.dumps({**header, "blobs": [len(one) for one in blobs]}).encode()
        self.send(b"".join((struct.pack("!I", len(head)), head, *blobs)), seconds=seconds)
        return self.receive(deadline)

    def send(self, data: bytes, *, seconds: float) -> None:
        """Send bytes as they are."""
        try:
            self._stream.settimeout(seconds)
            self._stream.sendall(data)
        except OSError as error:
            raise LinkError(f"the request could not be sent: {error}") from error

    def receive(self, deadline: float) -> Reply:
        """Wait for a reply until `deadline`, a time of `time.monotonic`."""
        size = struct.unpack("!I", self._exactly(4, deadline))[0]
        if size > _MAX_HEADER:
            raise LinkError(f"a header of {size} bytes")
        try:
            header = json.loads(self._exactly(size, deadline))
            sizes = [int(one) for one in header.pop("blobs")]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise LinkError(f"a malformed reply: {error}") from error
        if not all(0 <= one <= _MAX_BLOB for one in sizes):
            raise LinkError(f"blobs of {sizes} bytes")
        return Reply(header, [self._exactly(one, deadline) for one in sizes])

    def close(self) -> None:
        """Close the stream, which ends the guest and with it the container."""
        try:
            if isinstance(self._stream, socket.socket):
                self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The other side was quicker.
            pass
        self._stream.close()
        self._holder.close()

    def _exactly(self, size: int, deadline: float) -> bytes:
        while len(self._bytes) < size:
            self._pull(deadline)
        data = bytes(self._bytes[:size])
        del self._bytes[:size]
        return data

    def _pull(self, deadline: float) -> None:
        """One piece of the daemon's stream: which output it is of, its length, its bytes."""
        kind, length = struct.unpack("!BxxxI", self._raw(8, deadline))
        data = self._raw(length, deadline)
        into = self._bytes if kind == _STDOUT else self._complaints
        into += data
        del self._complaints[:-4096]

    def _raw(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LinkError("no answer in time")
            try:
                self._stream.settimeout(left)
                piece = self._stream.recv(min(size - len(data), 1 << 20))
            except TimeoutError as error:
                raise LinkError("no answer in time") from error
            except OSError as error:
                raise LinkError(f"the stream broke: {error}") from error
            if not piece:
                raise LinkError("the stream ended")
            data += piece
        return bytes(data)
