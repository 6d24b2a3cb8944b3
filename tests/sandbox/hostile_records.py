"""One hostile program: what it may end as, and what it must say.

A program that finds itself able to do what it must not prints ESCAPED. `@NAME@` in a program is
filled in by the test (`filled`): PORT, a TCP port of the host that listens on 127.0.0.1; SOCKET,
an abstract Unix socket that listens there; CANARY, a file of the host; SECRET, what is in that
file and in the worker's environment; CHECKOUT, the folder of this repository; WORKER, the process
id of the worker.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentrl.sandbox import Limits, RunStatus

LIMITS = Limits(
    wall_seconds=3.0,
    cpu_seconds=2.0,
    memory_mb=128,
    processes=16,
    open_files=64,
    disk_mb=8,
    output_chars=2000,
)

OK, ERROR, WALL, CPU, MEMORY, FLOOD, KILLED = (
    RunStatus.OK,
    RunStatus.ERROR,
    RunStatus.WALL_LIMIT,
    RunStatus.CPU_LIMIT,
    RunStatus.MEMORY_LIMIT,
    RunStatus.OUTPUT_LIMIT,
    RunStatus.KILLED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """An attack; `outcomes` are the statuses that it may end with, `says` what it must print."""

    name: str
    code: str
    outcomes: tuple[RunStatus, ...]
    says: str = ""
    cut: bool = False


def filled(code: str, **values: object) -> str:
    """`code` with every `@NAME@` replaced."""
    for name, value in values.items():
        code = code.replace(f"@{name}@", str(value))
    return code


def attack(
    name: str, code: str, *outcomes: RunStatus, says: str = "", cut: bool = False
) -> Hostile:
    """A row of the table."""
    return Hostile(name=name, code=code.strip("\n"), outcomes=outcomes, says=says, cut=cut)
