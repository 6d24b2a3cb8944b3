"""Frames on a pipe: a JSON object after its length, and raw bytes behind it if it says so."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

LENGTH = struct.Struct(">I")


def read_exactly(file: int, count: int) -> bytes:
    """`count` bytes of a blocking file descriptor; `EOFError` where it ends before."""
    pieces = []
    while count:
        piece = os.read(file, min(count, 1 << 20))
        if not piece:
            raise EOFError
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def receive(file: int) -> dict[str, Any]:
    """The next object, its raw bytes under `"payload"` where it has some."""
    (length,) = LENGTH.unpack(read_exactly(file, 4))
    found: dict[str, Any] = json.loads(read_exactly(file, length))
    if "payload" in found:
        found["payload"] = read_exactly(file, found["payload"])
    return found


def send(file: int, message: dict[str, Any]) -> None:
    """Write an object; bytes under `"payload"` follow it raw."""
    payload = message.get("payload", b"")
    if "payload" in message:
        message = {**message, "payload": len(payload)}
    head = json.dumps(message).encode()
    rest = memoryview(LENGTH.pack(len(head)) + head + payload)
    while rest:
        rest = rest[os.write(file, rest) :]
