"""What a container uses and holds, as its kernel counts it; part of the guest (`docker_guest`)."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator


class Usage:
    """Processor time and out-of-memory kills of the container, as its control group counts them."""

    def __init__(self) -> None:
        self._cpu = first_of(
            ("/sys/fs/cgroup/cpuacct/cpuacct.usage", "", 1e-9),
            ("/sys/fs/cgroup/cpu,cpuacct/cpuacct.usage", "", 1e-9),
            ("/sys/fs/cgroup/cpu.stat", "usage_usec", 1e-6),
        )
        self._killed = first_of(
            ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill", 1.0),
            ("/sys/fs/cgroup/memory.events", "oom_kill", 1.0),
        )
        self.cpu_start, self.killed_start = self.cpu(), self.killed()

    def cpu(self) -> float:
        """Seconds, of all processes together."""
        if self._cpu is None:
            spent = resource.getrusage(resource.RUSAGE_CHILDREN)
            return spent.ru_utime + spent.ru_stime
        return counted(*self._cpu)

    def killed(self) -> float:
        """Processes that the kernel killed for want of memory."""
        return 0.0 if self._killed is None else counted(*self._killed)


def processes() -> Iterator[tuple[int, int]]:
    """Every process of the container but this one that is not a zombie, with its parent."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or name == "1":
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in (b"Z", b"X"):
            yield int(name), int(parent)


def leftovers() -> bool:
    """Whether System V shared memory, semaphores or message queues are left."""
    return any(map(_rows, ("shm", "sem", "msg")))


def _rows(table: str) -> int:
    try:
        with open(f"/proc/sysvipc/{table}") as file:
            return len(file.readlines()) - 1
    except FileNotFoundError:
        return 0


def first_of(*sources: tuple[str, str, float]) -> tuple[str, str, float] | None:
    """The first counter that this kernel has."""
    for source in sources:
        with contextlib.suppress(OSError, ValueError, LookupError):
            counted(*source)
            return source
    return None


def counted(path: str, key: str, unit: float) -> float:
    """The number in a file of a control group, or that behind `key`."""
    with open(path, "rb") as file:
        words = file.read().split()
    return unit * int(words[words.index(key.encode()) + 1] if key else words[0])
