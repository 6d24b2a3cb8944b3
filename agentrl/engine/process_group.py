"""Whether vLLM shares torch's process group of this process with somebody else: a learner."""

from __future__ import annotations

import threading

_shared = threading.Event()


def share_process_group() -> None:
    """Say that somebody else than vLLM computes in it: it lasts as long as the process."""
    _shared.set()


def is_process_group_shared() -> bool:
    """Whether it lasts."""
    return _shared.is_set()
