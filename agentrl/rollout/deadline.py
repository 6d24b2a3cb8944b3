"""Deadlines that hold even when what is awaited refuses to be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")


class OverdueError(Exception):
    """The deadline passed; unlike `TimeoutError`, never raised by the work itself."""


async def within(work: Coroutine[object, object, T], seconds: float) -> T:
    """What `work` returns; raises `OverdueError` after `seconds`.

    Late work is cancelled and abandoned: it is not waited for, so work that swallows its
    cancellation, or cleans up for ever, holds up nobody. Work that blocks the event loop itself
    (synchronous code) cannot be interrupted from inside the process.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=seconds)
    except asyncio.CancelledError:
        abandon(task)
        raise
    if not task.done():
        abandon(task)
        raise OverdueError
    if task.cancelled():
        raise RuntimeError("cancelled itself")
    return task.result()


def abandon(task: asyncio.Future[T]) -> None:
    """Cancel `task` and forget it."""
    task.cancel()
    task.add_done_callback(_forget)


def _forget(task: asyncio.Future[T]) -> None:
    """Take the exception of an abandoned task, which nobody else will."""
    if not task.cancelled():
        task.exception()


async def all_of(works: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """Results of `works` in order, run at once; the first error cancels the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
