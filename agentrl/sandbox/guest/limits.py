"""What a run may use: the kernel's limits on each process, and sums over all of its processes."""

from __future__ import annotations

import os
import resource
from typing import Any, NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20
UNCOUNTED = "the kernel does not limit how many processes this user starts"


class Allowance(NamedTuple):
    """The limits of a run, as the host sent them."""

    wall: float
    cpu: float
    memory: int
    processes: int
    files: int
    disk: int

    @classmethod
    def of(cls, header: dict[str, Any]) -> Allowance:
        """From a frame's header."""
        wall, cpu, memory, processes, files, disk = header["limits"]
        return cls(wall, cpu, memory, processes, files, disk)


def restrict(allowed: Allowance, *, processes: int | None, ceiling: int | None, cpu: bool) -> None:
    """Set this process's limits; its heirs can only lower them.

    `processes` bounds those of this user id in this user namespace, threads included; a program
    that raises it comes to `ceiling`. None leaves them unbounded.
    """
    data = _data_bytes() + allowed.memory * MIB
    _set(resource.RLIMIT_DATA, data)
    _set(resource.RLIMIT_NOFILE, allowed.files)
    _set(resource.RLIMIT_FSIZE, allowed.disk * MIB)
    if processes is not None and ceiling is not None:
        limit_processes(processes, ceiling)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MEMLOCK, 0)
    _set(resource.RLIMIT_NICE, 0)
    _set(resource.RLIMIT_RTPRIO, 0)
    if cpu:
        _set(resource.RLIMIT_CPU, int(allowed.cpu) + 2)


def limit_processes(processes: int, ceiling: int | None = None) -> None:
    """Let this user id have at most `processes` in this user namespace, as far as it may now.

    A namespace that this process makes holds all users in it together to that.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    ceiling = hard if ceiling is None else ceiling
    if hard != resource.RLIM_INFINITY:
        processes, ceiling = min(processes, hard), min(ceiling, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, ceiling))


def _set(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA in this process already."""
    return int(_read("/proc/self/statm").split()[5]) * _PAGE


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of the living `pids` and of the children that they waited for."""
    ticks = 0
    for pid in pids:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICK


def memory_bytes(pids: list[int], *, enough: int) -> int:
    """Memory of `pids` together; pages that several share are counted once if it matters.

    The exact sum costs more, so it is taken only where a quick upper bound passes `enough`.
    """
    resident = 0
    for pid in pids:
        fields = _read(f"/proc/{pid}/statm").split()
        resident += int(fields[1]) * _PAGE if fields else 0
    if resident <= enough:
        return resident
    return sum(_proportional(pid) for pid in pids)


def _proportional(pid: int) -> int:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> bytes:
    """A file of /proc, empty where the process has gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 1 << 12)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
