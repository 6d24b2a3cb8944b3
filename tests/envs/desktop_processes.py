"""Processes of a desktop as the host sees them, and what tests skip without."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from agentrl.core.errors import SetupError
from agentrl.envs.desktop.confinement import check_programs


def missing() -> str:
    """The command that brings what is missing, or nothing."""
    try:
        check_programs()
    except SetupError as error:
        return str(error)
    return ""


needs_desktop = pytest.mark.skipif(bool(missing()), reason=missing() or "nothing is missing")


def descendants(pid: int) -> dict[int, str]:
    """Names of all processes below `pid`, by their number."""
    parents: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                name, _, rest = (path / "stat").read_text().rpartition(") ")
            except OSError:
                continue
            parents[int(path.name)] = (int(rest.split()[1]), name.partition("(")[2])
    found: dict[int, str] = {}
    level = {pid}
    while level:
        level = {one for one, (parent, _) in parents.items() if parent in level}
        found |= {one: parents[one][1] for one in level}
    return found


async def gone(pids: set[int], seconds: float = 10.0) -> bool:
    """Whether all of `pids` end in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(os.path.exists(f"/proc/{pid}") for pid in pids):
            return True
        await asyncio.sleep(0.05)
    return False
