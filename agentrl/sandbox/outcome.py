"""How the end of a process reads as the status of a run."""

from __future__ import annotations

import signal
from typing import NamedTuple

from agentrl.sandbox.base import Limits, RunStatus
from agentrl.sandbox.guest import interpreter as guest
from agentrl.sandbox.line import Reply

_BY_CAUSE = {
    "cpu": RunStatus.CPU_LIMIT,
    "wall": RunStatus.WALL_LIMIT,
    "memory": RunStatus.MEMORY_LIMIT,
    "flood": RunStatus.OUTPUT_LIMIT,
}
_BY_REPLY = {guest.DONE: RunStatus.OK, guest.OUT_OF_MEMORY: RunStatus.MEMORY_LIMIT}


class Outcome(NamedTuple):
    """How a run ended, and its exit code unless it was ended."""

    status: RunStatus
    exit_code: int | None


def outcome_of(code: int, why: str) -> Outcome:
    """From an exit code (negative: a signal) and the limit for which the sandbox ended it."""
    if why:
        return Outcome(_BY_CAUSE[why], None)
    if code == -signal.SIGXCPU:
        return Outcome(RunStatus.CPU_LIMIT, None)
    if code < 0:
        return Outcome(RunStatus.KILLED, None)
    if code == guest.OUT_OF_MEMORY_EXIT:
        return Outcome(RunStatus.MEMORY_LIMIT, None)
    return Outcome(RunStatus.ERROR if code else RunStatus.OK, code)


def allowance(limits: Limits) -> list[float]:
    """`limits` as the guest reads them."""
    return [
        limits.wall_seconds,
        limits.cpu_seconds,
        limits.memory_mb,
        limits.processes,
        limits.open_files,
        limits.disk_mb,
    ]


def status_of(reply: Reply) -> RunStatus:
    """From what a live interpreter says of a run."""
    return _BY_REPLY.get(reply.status, RunStatus.ERROR)
