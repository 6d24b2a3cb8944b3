"""Starting, furnishing and ending what runs in a family's namespaces."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat

# The function below `signal.signal`, without its enumerations, whose pages a fork would copy.
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
    SIGCHLD,
    SIGINT,
    default_int_handler,
    set_wakeup_fd,
)
from _signal import signal as set_signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from . import filters, forking, kernel, wire
from .interpreter import LiveInterpreter
from .limits import Allowance, limit_processes, restrict

HOME = "/home"
WORK = "/home/user"
FOLDERS = (WORK, "/home/.tmp", "/home/.shm")
"""All that a program may write lies in one small file system; /tmp and /dev/shm are links to it."""
SPARE_PROCESSES = 128
"""Room in a family's count of processes for the interpreters of its other members."""
_UID = 1000
_FILTERS = {
    branch: kernel.Filter.of(filters.guest_filter(may_branch=branch)) for branch in (False, True)
}


@dataclass(slots=True)
class Member:
    """One session of a family: its channel to the host, its namespaces and what it may use."""

    control: wire.Socket
    limits: Allowance
    interpreter: int = 0
    programs: set[int] = field(default_factory=set)
    spaces: tuple[int, int] = (-1, -1)
    """User and mount namespace, open."""
    folder: int = -1
    mount_id: int = 0
    watch: Watch | None = None
    idle_cpu: float | None = None
    """Processor time at the first look since a run that was watched."""
    ran: float = 0.0
    """Seconds of quick runs, which are not watched, since then."""
    why: str = ""

    def close(self) -> None:
        """Let go of what is open."""
        self.control.close()
        for descriptor in (*self.spaces, self.folder):
            if descriptor >= 0:
                os.close(descriptor)
        self.spaces, self.folder = (-1, -1), -1


@dataclass(slots=True)
class Watch:
    """A run whose sums are compared with its limits."""

    limits: Allowance
    started: float
    cpu_before: float
    program: bool = False
    """Of another program than the interpreter, which then is left alone."""
    cpu_of_dead: float = 0.0


def furnish(disk: int, *, bare: bool = False) -> None:
    """Mount a new home of `disk` MiB in this mount namespace; `bare` is without its folders."""
    kernel.mount(
        "home",
        HOME,
        "tmpfs",
        kernel.MS_NOSUID | kernel.MS_NODEV,
        f"size={disk}m,nr_inodes={max(1024, disk * 64)},mode=755",
    )
    if not bare:
        for folder in FOLDERS:
            os.mkdir(folder, 0o755)


def settle_in(disk: int, total: int) -> None:
    """Enter a user and a mount namespace of one's own, with an empty home.

    `total` bounds the processes of all such namespaces together.
    """
    limit_processes(total)
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{_UID} 0 1")
    write("/proc/self/gid_map", f"{_UID} 0 1")
    furnish(disk)


def join(spaces: tuple[int, int]) -> None:
    """Enter a member's namespaces."""
    kernel.setns(spaces[0], kernel.CLONE_NEWUSER)
    kernel.setns(spaces[1], kernel.CLONE_NEWNS)


def give_up_rights(*, may_branch: bool) -> None:
    """From here on nothing but the ordinary is possible."""
    kernel.keep_capabilities(*((kernel.CAP_SYS_ADMIN,) if may_branch else ()))
    _FILTERS[may_branch].install()


def put_files(folder: int, names: Sequence[str], contents: Sequence[bytes]) -> None:
    """Write files below the open `folder`, with the folders on their way."""
    for name, content in zip(names, contents, strict=True):
        put_file(folder, name, content)


def put_file(folder: int, name: str, content: bytes) -> None:
    """Write one file below the open `folder`; no link leads out of it.

    Raises:
        OSError: the name leads elsewhere, or there is no room.
    """
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts):
        raise OSError(f"{name!r} is no path below the working folder")
    for depth in range(1, len(parts)):
        _make_folder(folder, "/".join(parts[:depth]))
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK
    with open(kernel.open_beneath(folder, name, flags, 0o644), "wb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{name!r} is no plain file")
        os.ftruncate(file.fileno(), 0)
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]


def _make_folder(folder: int, path: str) -> None:
    above, _, last = path.rpartition("/")
    parent = kernel.open_beneath(folder, above or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(last, 0o755, dir_fd=parent)
    finally:
        os.close(parent)


def get_file(folder: int, name: str) -> bytes:
    """The content of a plain file below the open `folder`; no link leads out of it."""
    descriptor = kernel.open_beneath(folder, name, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(f"{name!r} is no plain file")
        return file.read()


def spawn(
    enter: Callable[[], None],
    run: Callable[[], NoReturn],
    descriptors: Sequence[int],
    *,
    prepare: Callable[[], None],
) -> int:
    """Fork a process that enters its namespaces, takes `descriptors`, prepares itself and runs.

    `descriptors` become 0, 1, 2 and so on; all others are closed. Returns once it is about to run
    what the policy wrote: a failure before that is the sandbox's own.

    Raises:
        OSError: it could not be prepared.
    """
    ready, done = os.pipe2(os.O_CLOEXEC)
    pid = forking.fork()
    if pid == 0:
        _child(enter, run, [*descriptors, done], prepare)
    os.close(done)
    said = os.read(ready, 512)
    os.close(ready)
    if said != b"+":
        raise OSError(errno.EIO, f"a process could not start: {said.decode(errors='replace')}")
    return pid


def _child(
    enter: Callable[[], None],
    run: Callable[[], NoReturn],
    descriptors: list[int],
    prepare: Callable[[], None],
) -> NoReturn:
    done = descriptors[-1]
    try:
        ignore_children()
        enter()
        _take(descriptors)
        done = len(descriptors) - 1
        os.setsid()
        os.chdir(WORK)
        prepare()
        os.write(done, b"+")
        os.close(done)
        run()
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(done, f"{type(error).__name__}: {error}".encode())
    os._exit(125)


def heed_children() -> tuple[int, int]:
    """Both ends of a pipe that can be read when a child has ended."""
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    set_wakeup_fd(woken, warn_on_full_buffer=False)
    set_signal(SIGCHLD, _heed)
    return wake, woken


def _heed(*_: object) -> None:
    """All that matters is the pipe."""


def ignore_children() -> None:
    """Undo `heed_children`, but for the pipe."""
    set_wakeup_fd(-1)
    set_signal(SIGCHLD, SIG_DFL)


def _take(descriptors: Sequence[int]) -> None:
    """Let `descriptors` be 0, 1, 2 and so on, and close all others."""
    count = len(descriptors)
    # First out of the way of the numbers that they will have.
    moved = [fcntl.fcntl(one, fcntl.F_DUPFD, 64) for one in descriptors]
    for place, descriptor in enumerate(moved):
        os.dup2(descriptor, place, inheritable=place < 3)
    os.closerange(count, 1024)


def prepare_program(allowed: Allowance) -> None:
    """Limit this process to one Python program's rights."""
    _python_signals()
    restrict(allowed, processes=allowed.processes, ceiling=allowed.processes, cpu=True)
    give_up_rights(may_branch=False)
    kernel.show_memory()


def prepare_session(allowed: Allowance, members: int) -> None:
    """Limit this process to a live interpreter's rights."""
    _python_signals()
    _restrict_member(allowed, members)
    give_up_rights(may_branch=True)
    kernel.hide_memory()


def serve_session() -> NoReturn:
    """Be a session's interpreter; its channel is descriptor 3."""
    LiveInterpreter(wire.Socket(fileno=3), home=HOME).serve()
    os._exit(0)


def prepare_command(allowed: Allowance, members: int) -> None:
    """Limit this process to another program's rights."""
    _restrict_member(allowed, members)
    give_up_rights(may_branch=False)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        set_signal(number, SIG_DFL)


def run_command(argv: Sequence[str]) -> NoReturn:
    """Be another program in place of this process."""
    try:
        os.execvp(argv[0], list(argv))
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        os.write(2, f"{argv[0]}: {said}\n".encode("utf-8", "backslashreplace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _restrict_member(allowed: Allowance, members: int) -> None:
    restrict(
        allowed,
        processes=allowed.processes + members,
        ceiling=allowed.processes + SPARE_PROCESSES,
        cpu=False,
    )


def _python_signals() -> None:
    set_signal(SIGINT, default_int_handler)


def write(path: str, text: str) -> None:
    """Write to a file of /proc, in one go."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
