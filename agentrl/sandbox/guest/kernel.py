"""The system calls that Python does not have: namespaces, mounts, capabilities, safe opening."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Callable, Iterator

from .wire import Socket

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1 << 5, 1 << 12, 1 << 14, 1 << 18
MNT_DETACH = 2
CAP_SYS_ADMIN = 21

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
]


def _missing(*_: object) -> int:
    raise NotImplementedError("this system has no namespaces")


def _bound(name: str) -> Callable[..., int]:
    """A function of the C library: to look it up at each call would write to shared pages.

    Other systems lack some; they import this module too.
    """
    function: Callable[..., int] = getattr(_libc, name, _missing)
    return function


_unshare, _setns, _mount, _umount = map(_bound, ("unshare", "setns", "mount", "umount2"))
_prctl, _capset, _ioctl = map(_bound, ("prctl", "capset", "ioctl"))
_personality, _syscall = map(_bound, ("personality", "syscall"))
_fork = ctypes.PyDLL(None, use_errno=True).fork
_NOTHING = ctypes.c_ulong(0)
_PR_SET_SECCOMP, _MODE_FILTER = 22, ctypes.c_ulong(2)
_CAPABILITY_HEADER = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_CAPABILITY_SETS = (ctypes.c_uint32 * 6)()


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def fork() -> int:
    """As `os.fork`, without Python's own work in the child, which costs it 300 KB of shared pages.

    What it leaves undone: new seeds for `random`, new locks. Only for a process with one thread.
    """
    return _checked(_fork(), "fork")


def unshare(flags: int) -> None:
    """Leave the namespaces of `flags` for new ones."""
    _checked(_unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """Enter the namespace that `descriptor` is open on."""
    _checked(_setns(ctypes.c_int(descriptor), ctypes.c_int(flags)), "setns")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount a file system on a folder."""
    done = _mount(source.encode(), target.encode(), kind.encode(), flags, data.encode())
    _checked(done, f"mount {target}")


def mount_proc() -> None:
    """Mount a /proc of this process namespace."""
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def protect_settings() -> None:
    """Let nobody change the kernel's settings from here on.

    Some of them belong to a namespace, and so to the user who made it.
    """
    flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("/proc/sys", "/proc/sys", "", MS_BIND)
    mount("none", "/proc/sys", "", flags)


def unmount(target: str) -> None:
    """Take a mount out of the tree; it goes when its last user does."""
    _checked(_umount(target.encode(), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def prctl(option: int, value: int, third: int = 0) -> None:
    """Change a property of this process."""
    done = _prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(third), _NOTHING, _NOTHING)
    _checked(done, "prctl")


def raise_loopback() -> None:
    """Bring up the one interface of a new network namespace: programs may talk to themselves."""
    set_flags, up = ctypes.c_ulong(0x8914), 1
    any_socket = Socket(socket.AF_INET, socket.SOCK_DGRAM)
    done = _ioctl(any_socket.fileno(), set_flags, struct.pack("16sh14x", b"lo", up))
    any_socket.close()
    _checked(done, "ioctl lo")


def forbid_new_privileges() -> None:
    """No program that is started from here gains rights by being started."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """No process without rights over this one may trace it or read its memory."""
    prctl(_PR_SET_DUMPABLE, 0)


def show_memory() -> None:
    """Undo `hide_memory`: the files of /proc/self belong to this user again."""
    prctl(_PR_SET_DUMPABLE, 1)


def fix_addresses() -> None:
    """Programs that are started from here on lie where the last one lay."""
    no_random_addresses = 0x0040000
    _checked(_personality(ctypes.c_ulong(no_random_addresses)), "personality")


def die_with_parent(signal_number: int) -> None:
    """Get `signal_number` when the parent ends."""
    prctl(_PR_SET_PDEATHSIG, signal_number)


def keep_capabilities(*kept: int) -> None:
    """Give up every capability but `kept`, for good; a program started from here has none.

    The bounding set is left: with no new privileges and no user namespaces it gives nothing back.
    """
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    mask = 0
    for number in kept:
        mask |= 1 << number
    _CAPABILITY_SETS[0] = _CAPABILITY_SETS[1] = mask & 0xFFFFFFFF
    _CAPABILITY_SETS[3] = _CAPABILITY_SETS[4] = mask >> 32
    _checked(_capset(_CAPABILITY_HEADER, _CAPABILITY_SETS), "capset")
    forbid_new_privileges()


def open_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` below the open `folder`; no link leads out of it, whoever races to put one."""
    raw = path.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError("a path cannot hold a null character")
    how = (ctypes.c_uint64 * 3)(
        flags | os.O_CLOEXEC, mode, _RESOLVE_NO_MAGICLINKS | _RESOLVE_BENEATH
    )
    result = _syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(folder),
        ctypes.c_char_p(raw),
        ctypes.byref(how),
        ctypes.c_size_t(24),
    )
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(result)


class Filter(ctypes.Structure):
    """A seccomp program (packed `struct sock_filter`), made before the forks that install it."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    @classmethod
    def of(cls, program: bytes) -> Filter:
        """The filter of `program`."""
        return cls(len(program) // 8, program)

    def install(self) -> None:
        """Put it on this thread and its heirs, for good."""
        if not self.length:
            return
        done = _prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(self), _NOTHING, _NOTHING)
        _checked(done, "prctl PR_SET_SECCOMP")


@contextlib.contextmanager
def idle() -> Iterator[None]:
    """Meanwhile the calls of this module that would change this process do nothing."""
    names = ("_unshare", "_setns", "_mount", "_umount", "_prctl", "_capset", "_ioctl")
    real = {name: globals()[name] for name in names}
    globals().update(dict.fromkeys(names, _libc.getpid))
    try:
        yield
    finally:
        globals().update(real)
