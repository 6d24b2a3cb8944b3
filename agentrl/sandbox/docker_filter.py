"""The filter of system calls in a container, beside the daemon's; part of the guest.

Programs run as the user of the container's first process. Some calls ask for no more than that
before they limit another process, or take its turns at the processor from it.
"""

from __future__ import annotations

import ctypes
import errno
import struct

_SET_SECCOMP, _MODE_FILTER = 22, 2
# io_uring_setup, _enter and _register have these numbers on every architecture. Docker's own
# filter refuses them only from version 25 on.
_IO_URING = (425, 426, 427)
# Of x86_64, i386, aarch64 and 32-bit ARM: setpriority, then prlimit64 and the four calls
# sched_setscheduler, sched_setparam, sched_setattr and sched_setaffinity.
_CALLS = {
    0xC000003E: (141, (302, 144, 142, 314, 203)),
    0x40000003: (97, (340, 156, 154, 351, 241)),
    0xC00000B7: (140, (261, 119, 118, 274, 122)),
    0x40000028: (97, (369, 156, 154, 380, 241)),
}
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT, _SECOND_ARGUMENT_AT = 0, 4, 16, 24


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _load(at: int) -> bytes:
    return _op(0x20, at)


def _when(value: int, body: bytes) -> bytes:
    """`body`, which must return, where `value` was loaded last."""
    return _op(0x15, value, 0, len(body) // 8) + body


_ALLOW, _REFUSE = _op(0x06, 0x7FFF0000), _op(0x06, 0x00050000 | errno.EPERM)
# Of the x32 calls, which are x86_64's with a bit more.
_LOAD_NUMBER = _load(_NUMBER_AT) + _op(0x54, 0xBFFFFFFF)


def program() -> bytes:
    """The filter as packed `struct sock_filter`: such calls only where they mean the caller."""
    found = _LOAD_NUMBER + b"".join(_when(number, _REFUSE) for number in _IO_URING)
    itself = _load(_FIRST_ARGUMENT_AT) + _when(0, _ALLOW) + _REFUSE
    # The first argument 0 says that the second is a process; 1 and 2 are a group and a user.
    both = _load(_SECOND_ARGUMENT_AT) + _when(0, _ALLOW) + _REFUSE
    both = _load(_FIRST_ARGUMENT_AT) + _when(0, both) + _REFUSE
    for architecture, (set_priority, others) in _CALLS.items():
        calls = _LOAD_NUMBER + _when(set_priority, both)
        calls += b"".join(_when(number, itself) for number in others)
        found += _load(_ARCHITECTURE_AT) + _when(architecture, calls + _ALLOW)
    return found + _ALLOW


def install_filter(libc: ctypes.CDLL) -> None:
    """Put the filter on this process and all its children.

    Raises:
        OSError: the kernel refused it.
    """
    code = program()
    packed = _Program(len(code) // 8, code)
    if libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(packed), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter of system calls was refused")
