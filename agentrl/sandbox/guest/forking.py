"""Forks of the warm interpreter that go on sharing nearly all of its memory."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator

from . import kernel

_before: list[Callable[[], object]] = []
_in_parent: list[Callable[[], object]] = []
_in_child: list[Callable[[], object]] = []
_threads = False


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """What modules that are imported meanwhile ask for around a fork is done by `fork` too."""
    global _threads
    register = os.register_at_fork

    def note(**hooks: Callable[[], object]) -> None:
        register(**hooks)
        if "before" in hooks:
            _before.insert(0, hooks["before"])
        if "after_in_parent" in hooks:
            _in_parent.append(hooks["after_in_parent"])
        if "after_in_child" in hooks:
            _in_child.append(hooks["after_in_child"])

    if "random" in sys.modules:  # nobody could note what it asked for: a new seed for each child
        _in_child.append(sys.modules["random"].seed)
    os.register_at_fork = note  # type: ignore[assignment]
    try:
        yield
    finally:
        os.register_at_fork = register
        _threads = len(sys._current_frames()) > 1


def fork() -> int:
    """As `os.fork`, without what Python does in each child to threads and locks.

    That writes to 300 to 600 KB of the pages that child and parent share, and is for forks of a
    process with several threads: where there are any it is done.
    """
    if _threads:
        return os.fork()
    if _before:
        _run(_before)
    pid = kernel.fork()
    if hooks := _in_parent if pid else _in_child:
        _run(hooks)
    return pid


def _run(hooks: list[Callable[[], object]]) -> None:
    for hook in hooks:
        try:
            hook()
        except Exception:  # as Python does: thrown on, it would make a second parent of the child
            traceback.print_exc()
