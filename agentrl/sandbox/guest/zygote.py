"""The warm interpreter of a container: imports what programs need once, forks each family."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from typing import NoReturn

from . import family, forking, kernel, members, wire
from .interpreter import open_streams
from .limits import UNCOUNTED, limit_processes
from .rehearsal import fill_pools, rehearse

_NOBODY = 65534


def main() -> None:
    """Serve the socket whose descriptor is the first argument; the second lists what to import.

    The third bounds the processes of all programs together. With a fourth it first gets ready:
    `root` (of the machine) becomes nobody's root, in a user namespace; and the program starts again
    at addresses that do not vary, so that what depends on them (the order of a set of objects) is
    the same in every container.
    """
    control, preload, total, *first = sys.argv[1:]
    if first:
        if first == ["root"]:
            kernel.mount_proc()
            _leave_root()
        kernel.fix_addresses()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-1]])
    serve(socket.socket(fileno=int(control)), preload.split(","), int(total))


def _leave_root() -> None:
    """Return in a process that has every right in a new user namespace, and none outside."""
    unshared, mapped = os.pipe(), os.pipe()
    child = os.fork()
    if child:
        os.read(unshared[0], 1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write(f"0 {_NOBODY} 1")
        os.write(mapped[1], b"+")
        _wait_and_exit(child)
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWPID)
    os.write(unshared[1], b"+")
    os.read(mapped[0], 1)
    for descriptor in (*unshared, *mapped):
        os.close(descriptor)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    kernel.die_with_parent(signal.SIGKILL)
    # Only children are in the new process namespace, and only there may families be split off.
    child = os.fork()
    if child:
        _wait_and_exit(child)
    kernel.die_with_parent(signal.SIGKILL)


def _wait_and_exit(child: int) -> NoReturn:
    os.closerange(3, 4096)
    _, status = os.waitpid(child, 0)
    os._exit(abs(os.waitstatus_to_exitcode(status)))


def serve(control: socket.socket, preload: list[str], total: int) -> NoReturn:
    """Fork a family for every frame, until the host has gone."""
    _check_that_processes_are_limited()
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    with forking.noted():
        for name in filter(None, preload):
            importlib.import_module(name)
    _make_streams()
    rehearse()
    sys.path[:] = [members.WORK, *(path for path in sys.path if os.path.exists(path))]
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    wake, woken = members.heed_children()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake, select.POLLIN)
    gc.collect()
    fill_pools()
    gc.freeze()
    control.sendall(b"+")
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
                _reap()
            else:
                _next(control, (own, control.fileno(), wake, woken), total)


def _check_that_processes_are_limited() -> None:
    """End this process where a limit on processes would not hold: it never does for root."""
    child = os.fork()
    if child == 0:
        kernel.unshare(kernel.CLONE_NEWUSER)
        limit_processes(1, 1)
        with contextlib.suppress(BlockingIOError):
            os._exit(1 if os.fork() else 0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(UNCOUNTED)


def _make_streams() -> None:
    """Make the text streams that every program inherits, as they are over pipes."""
    before = [os.dup(number) for number in range(3)]
    reading, writing = os.pipe()
    for number, end in enumerate((reading, writing, writing)):
        os.dup2(end, number)
    open_streams()
    for number, descriptor in enumerate(before):
        os.dup2(descriptor, number)
    for descriptor in (reading, writing, *before):
        os.close(descriptor)


def _next(control: socket.socket, open_here: tuple[int, ...], total: int) -> None:
    try:
        _, descriptors = wire.take(control, 1)
    except OSError:
        descriptors = []
    if not descriptors:
        os._exit(0)
    kernel.unshare(kernel.CLONE_NEWPID)
    if forking.fork() == 0:
        for descriptor in open_here:
            os.close(descriptor)
        try:
            family.enter(wire.Socket(fileno=descriptors[0]), total)
        except BaseException as error:
            with contextlib.suppress(OSError, ValueError):
                wire.send(
                    wire.Socket(fileno=descriptors[0]),
                    {"reply": "", "errno": 5, "error": f"{type(error).__name__}: {error}"},
                )
        os._exit(1)
    kernel.setns(open_here[0], kernel.CLONE_NEWPID)
    os.close(descriptors[0])


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
