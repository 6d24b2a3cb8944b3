"""The stream to a container's guest: frames in pieces, deadlines, and replies that are none."""

from __future__ import annotations

import json
import socket
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.sandbox.docker_link import Link, LinkError


def frame(header, blobs=()):
    head = json.dumps({**header, "blobs": [len(one) for one in blobs]}).encode()
    return b"".join((struct.pack("!I", len(head)), head, *blobs))


def carried(data, *, kind=1, pieces=()):
    """`data` as the daemon carries it, cut into pieces of these sizes."""
    out, at = b"", 0
    for size in (*pieces, len(data)):
        piece = data[at : at + size]
        at += len(piece)
        out += struct.pack("!BxxxI", kind, len(piece)) + piece
    return out


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    yield Link(ours), theirs
    ours.close()
    theirs.close()


def soon(seconds=2.0):
    return time.monotonic() + seconds


@settings(max_examples=50, deadline=None)
@given(
    blobs=st.lists(st.binary(max_size=300), max_size=4), pieces=st.lists(st.integers(0, 50)), n=...
)
def test_a_reply_is_the_same_however_it_is_cut(blobs, pieces, n: int):
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(carried(frame({"n": n}, blobs), pieces=pieces))
        reply = Link(ours).receive(soon())
        ours.close()
    assert (reply.header, list(reply.blobs)) == ({"n": n}, blobs)


def test_a_request_is_a_frame_and_its_reply_the_next_one(ends):
    link, theirs = ends
    theirs.sendall(carried(frame({"n": 1}) + frame({"n": 2})))
    first = link.exchange({"do": "run"}, [b"ab", b""], seconds=2.0)
    second = link.receive(soon())
    assert (first.header["n"], second.header["n"]) == (1, 2)
    assert theirs.recv(1000) == frame({"do": "run"}, [b"ab", b""])


def test_what_the_guest_complains_about_is_kept_apart_and_bounded(ends):
    link, theirs = ends
    theirs.sendall(carried(b"x" * 9000 + b"\nno module\n", kind=2) + carried(frame({"ok": True})))
    assert link.receive(soon()).header == {"ok": True}
    assert link.complaint.endswith("no module") and len(link.complaint) <= 500


def test_a_guest_that_says_nothing_costs_the_deadline_and_no_more(ends):
    link, _ = ends
    started = time.perf_counter()
    with pytest.raises(LinkError, match="no answer in time"):
        link.exchange({"do": "reset"}, [], seconds=0.2)
    assert 0.15 < time.perf_counter() - started < 1.5


def test_a_guest_that_trickles_is_not_waited_for_longer(ends):
    link, theirs = ends
    theirs.sendall(carried(frame({"ok": True}))[:9])
    with pytest.raises(LinkError, match="no answer in time"):
        link.receive(soon(0.1))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!I", 1 << 30),
        struct.pack("!I", 4) + b"nope",
        struct.pack("!I", 2) + b"[]",
        struct.pack("!I", 2) + b"{}",
        frame({}).replace(b"[]", b"-1"),
        struct.pack("!I", 15) + b'{"blobs": [-5]}',
        struct.pack("!I", 13) + b'{"blobs":"x"}',
        struct.pack("!I", 13) + b'\xff"blobs": []}',
    ],
)
def test_what_no_guest_says_is_an_error_of_the_link(ends, data):
    link, theirs = ends
    theirs.sendall(carried(data))
    with pytest.raises(LinkError, match=r"malformed|header of|blobs of"):
        link.receive(soon())


def test_a_stream_that_ends_in_a_frame_is_an_error(ends):
    link, theirs = ends
    theirs.sendall(carried(frame({"ok": True}, [b"abc"]))[:-1])
    theirs.close()
    with pytest.raises(LinkError, match="the stream ended"):
        link.receive(soon())


def test_closing_ends_a_wait_of_another_thread_and_further_requests(ends):
    link, theirs = ends
    link.close()
    assert theirs.recv(1) == b""
    with pytest.raises(LinkError):
        link.exchange({}, [], seconds=0.2)
