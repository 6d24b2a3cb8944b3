"""What every fork does, done beforehand: Python's caches are then warm in all of them.

A fork shares all memory with the warm interpreter, but for the pages that one of them writes to.
Python writes to an object's page by looking at it, and more so the first times: it looks names up,
notes where they are and specialises the code. What was played here is fast and writes to few pages.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import socket
import sys

from . import kernel, members, wire
from .family import Family, enter_namespaces
from .interpreter import REQUEST, RUN, LiveInterpreter
from .limits import Allowance

_TIMES = 10
"""Code is specialised after some calls."""
_LARGE = 1 << 30
_FREE = 1e9, 1e9, _LARGE, _LARGE, _LARGE, 1 << 20
_CODES = (b"x = [1]\nfor y in x: pass\nx", b"def f(): return 1 / 0\nf()", b"print(1)")
_STEP, _LARGEST, _POOL = 16, 512, 1 << 14
"""Bytes: how the sizes of small objects differ, the largest, and a pool of them."""
_MOST, _NEW = 1 << 20, 3
"""Bytes that are tried for each size, and objects in a row that only a new pool gives."""
_kept: list[object] = []
"""Alive for the forks, which would copy the pages of what they free."""


def rehearse() -> None:
    """Play all parts in this process, to no effect."""
    real = sys.modules["__main__"], sys.argv, sys.stdout, sys.stderr
    _kept.extend(real)
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as opened, open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        try:
            for _ in range(_TIMES):
                _interpreter(ours, wire.Socket(fileno=os.dup(theirs.fileno())))
                with kernel.idle():
                    _namespaces()
                # None may end before all have begun: what is found here must not depend on when.
                channel, far = socket.socketpair()
                opened.enter_context(channel)
                _family(far)
        finally:
            sys.modules["__main__"], sys.argv, sys.stdout, sys.stderr = real
    linecache.clearcache()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _interpreter(ours: socket.socket, channel: wire.Socket) -> None:
    """A live interpreter's runs."""
    live = LiveInterpreter(channel, home=members.HOME)
    for code in _CODES:
        ours.sendall(REQUEST.pack(RUN, 1, len(code)) + code)
        live.answer()
        ours.recv(64)


def _namespaces() -> None:
    """What first processes and their children do to themselves, as far as it goes here."""
    pipe = members.heed_children()
    members.ignore_children()
    for descriptor in pipe:
        os.close(descriptor)
    enter_namespaces()
    kernel.protect_settings()
    members.write(os.devnull, "")
    with contextlib.suppress(OSError):  # this process has a user namespace already
        members.settle_in(1, _LARGE)
    with contextlib.suppress(OSError):  # and nothing to write to
        members.furnish(1)
    members.prepare_session(Allowance(*_FREE), 1)
    members.prepare_program(Allowance(*_FREE))


def _family(far: socket.socket) -> None:
    """A session that is opened, watched and given up; its interpreter ends with `far`'s peer."""
    wake, woken = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    ours, theirs = socket.socketpair()
    family = Family(wire.Socket(fileno=theirs.detach()), wake, -1, _LARGE)
    with ours, far:
        for what in ("session", "watch", "unwatch"):
            given = (null, null, null, far.fileno()) if what == "session" else ()
            frame = wire.pack({"do": what, "limits": _FREE, "files": []})
            socket.send_fds(ours, [frame], given)
            family.turn()
            wire.receive(ours)
    family.serve()
    for descriptor in (null, wake, woken):
        os.close(descriptor)


def fill_pools() -> None:
    """Fill what is free in Python's pools of small objects, up to a new pool of each size.

    What a fork makes then lies side by side there, and not here and there in pages that it shares.
    """
    for size in range(_STEP, _LARGEST + 1, _STEP):
        new, before = 0, 0
        for _ in range(_MOST // size):
            one = object() if size == _STEP else float(size) if size == 32 else bytes(size - 33)
            _kept.append(one)
            # Its first place, and the ones behind it: a used pool gives back places in any order.
            first, next_to = id(one) % _POOL < 4 * _STEP, id(one) == before + size
            new, before = int(first) or (new + 1 if new and next_to else 0), id(one)
            if new == _NEW:
                break
