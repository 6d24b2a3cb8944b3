"""The seccomp filter that stays on everything the policy runs: what no program of it needs."""

from __future__ import annotations

import errno
import platform
import socket
import struct

# (x86_64, aarch64); None where a machine has no such call.
_FORBIDDEN: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "personality": (135, 92),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "memfd_secret": (447, 447),
}
_UNKNOWN: dict[str, tuple[int, int]] = {
    # Memory that lies in no process is in no limit: shared memory belongs in files of /dev/shm.
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    # Its flags lie in memory, where a filter cannot read them: libraries fall back to clone.
    "clone3": (435, 435),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _UNSHARE, _SOCKET, _KILL_CALL = (56, 220), (272, 97), (41, 198), (62, 129)
_PRLIMIT = (302, 261)
_X32 = 0x40000000

_NEW_NAMESPACES = 0x7E020000
"""Every CLONE_NEW flag of clone(2)."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(number: int) -> bytes:
    return _op(_RETURN, _REFUSE | number)


def _when(call: int, check: bytes) -> bytes:
    """`check` runs on the first argument of `call`; it must return."""
    body = _op(_LOAD, _FIRST_ARGUMENT_AT) + check
    return _op(_EQUAL, call, 0, len(body) // 8) + body


def guest_filter(*, may_branch: bool) -> bytes:
    """The filter as packed `struct sock_filter`, or `b""` where the machine's calls are not known.

    `may_branch` lets a live interpreter take a mount namespace of its own, which its fork needs
    and which harms nobody else: it can mount nothing.
    """
    if platform.machine() not in _ARCHITECTURES:
        return b""
    column, architecture = _ARCHITECTURES[platform.machine()]
    program = _op(_LOAD, _ARCHITECTURE_AT)
    program += _op(_EQUAL, architecture, 1, 0) + _op(_RETURN, _KILL)
    program += _op(_LOAD, _NUMBER_AT)
    if column == 0:
        program += _op(_AT_LEAST, _X32, 0, 1) + _refuse(errno.ENOSYS)
    for known in _UNKNOWN.values():
        program += _op(_EQUAL, known[column], 0, 1) + _refuse(errno.ENOSYS)
    for numbers in _FORBIDDEN.values():
        number = numbers[column]
        if number is not None:
            program += _op(_EQUAL, number, 0, 1) + _refuse(errno.EPERM)
    allowed = _op(_RETURN, _ALLOW)
    program += _when(
        _CLONE[column], _op(_ANY_BIT, _NEW_NAMESPACES, 0, 1) + _refuse(errno.EPERM) + allowed
    )
    # Forks of a session share a process namespace: one must not end them all with a word.
    program += _when(
        _KILL_CALL[column], _op(_EQUAL, 0xFFFFFFFF, 0, 1) + _refuse(errno.EPERM) + allowed
    )
    # The process that watches has the same user, which is all that this call asks for.
    program += _when(_PRLIMIT[column], _op(_EQUAL, 0, 1, 0) + _refuse(errno.EPERM) + allowed)
    namespaces = 0x00020000 if may_branch else 0
    program += _when(
        _UNSHARE[column], _op(_EQUAL, namespaces, 1, 0) + _refuse(errno.EPERM) + allowed
    )
    families = b"".join(
        _op(_EQUAL, int(family), 0, 1) + allowed
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
    )
    # Others reach beyond a network namespace (vsock) or deep into the kernel (alg, netlink).
    program += _when(_SOCKET[column], families + _refuse(errno.EAFNOSUPPORT))
    return program + allowed
