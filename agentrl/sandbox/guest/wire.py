"""Frames over a stream socket: a JSON header, blobs behind it, descriptors beside it."""

from __future__ import annotations

import _socket
import json
import socket
import struct
from typing import Any, NamedTuple, TypeAlias

Socket: TypeAlias = _socket.socket
"""The class below `socket.socket`, which works on more pages that a fork would copy."""

# Bound once: what is looked up on the way to them lies on pages that a fork would copy.
_decode, _encode = json.JSONDecoder().decode, json.JSONEncoder().encode
_LENGTH = struct.Struct("<II")
_HEAD = _LENGTH.size
MAX_FRAME = 1 << 30
_ROOM = socket.CMSG_SPACE(8 * 4)


class Frame(NamedTuple):
    """One message."""

    header: dict[str, Any]
    blobs: list[bytes]
    descriptors: list[int]


class Broken(Exception):
    """The other side has gone, or sent what is no frame."""


def pack(header: dict[str, Any], blobs: list[bytes] | None = None) -> bytes:
    """The bytes of a frame."""
    blobs = blobs or []
    head = _encode({**header, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join([_LENGTH.pack(len(head), sum(map(len, blobs))), head, *blobs])


def send(to: Socket, header: dict[str, Any], blobs: list[bytes] | None = None) -> None:
    """Send a frame on a blocking socket."""
    to.sendall(pack(header, blobs))


def take(of: Socket, size: int) -> tuple[bytes, list[int]]:
    """What is there, at most `size` bytes, and the descriptors that came with it.

    In place of `socket.recv_fds`, which imports and touches more: every page that a fork touches
    is one that it no longer shares.
    """
    part, beside, _, _ = of.recvmsg(size, _ROOM)
    passed: list[int] = []
    for _, _, packed in beside:
        passed += struct.unpack(f"={len(packed) // 4}i", packed[: len(packed) // 4 * 4])
    return part, passed


def receive(of: Socket) -> Frame:
    """Wait for a frame on a blocking socket.

    Raises:
        Broken: the stream ended or is malformed.
    """
    first, descriptors = _exactly(of, _HEAD)
    head_length, blob_length = _LENGTH.unpack(first)
    if head_length + blob_length > MAX_FRAME:
        raise Broken(f"a frame of {head_length + blob_length} bytes")
    body, more = _exactly(of, head_length + blob_length)
    return parse(body, head_length, descriptors + more)


def lengths(of: bytes | bytearray) -> tuple[int, int]:
    """Bytes of the header and of the blobs, from the first 8 bytes of a frame."""
    head, blobs = _LENGTH.unpack_from(of)
    return head, blobs


def parse(body: bytes, head_length: int, descriptors: list[int]) -> Frame:
    """The frame in `body`, whose header takes `head_length` bytes."""
    try:
        header = _decode(body[:head_length].decode())
        lengths = [int(length) for length in header.pop("blobs")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Broken(f"a malformed header: {error}") from error
    blobs, at = [], head_length
    for length in lengths:
        blobs.append(body[at : at + length])
        at += length
    if at != len(body) or min(lengths, default=0) < 0:
        raise Broken("blobs that do not fill their frame")
    return Frame(header, blobs, descriptors)


def _exactly(of: Socket, size: int) -> tuple[bytes, list[int]]:
    parts, descriptors, missing = [], [], size
    while missing:
        part, passed = take(of, min(missing, 1 << 20))
        descriptors += passed
        if not part:
            raise Broken("the stream ended")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts), descriptors
