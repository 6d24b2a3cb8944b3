"""Which processes descend from one."""

from __future__ import annotations

import os
from pathlib import Path


def descendants(of: int) -> set[int]:
    """Every process that `of` started, and they; without `of` itself."""
    parents = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue
        parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = {of}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {of}
