"""Whether a worker that is root can give up being it, as what runs for a policy must."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

NOBODY: Final = 65534

_CAP_SYS_ADMIN: Final = 21


def may_leave_root() -> bool:
    """Whether this is a root that can mount and that has another user to become.

    A root that cannot stays the machine's root to the kernel, whatever a user namespace calls it,
    and limits on processes do not bind that one.
    """
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    rights = int(status.partition("CapEff:")[2].split()[0], 16)
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    mapped = [list(map(int, line.split())) for line in lines]
    known = any(first <= NOBODY < first + count for first, _, count in mapped)
    return bool(rights >> _CAP_SYS_ADMIN & 1) and known
