"""Deadlines that hold even when what is awaited refuses to be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class OverdueError(Exception):
    """The deadline passed; unlike `TimeoutError`, never raised by the work itself."""


async def within(
    work: Coroutine[object, object, T],
    seconds: float,
    *,
    late: Callable[[T], object] | None = None,
) -> T:
    """What `work` returns; raises `OverdueError` after `seconds`.

    Late work is cancelled and abandoned: it is not waited for, so work that swallows its
    cancellation, or cleans up for ever, holds up nobody. Work that blocks the event loop itself
    (synchronous code) cannot be interrupted from inside the process.

    `late` gets what `work` returns to nobody: after the deadline, or when the caller is cancelled,
    even in the moment in which it returns.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    waiter: asyncio.Future[None] = loop.create_future()
    # What asyncio.wait does, at half its cost: this runs twice in every turn.
    timer = loop.call_later(seconds, _wake, waiter)
    task.add_done_callback(partial(_wake, waiter))
    try:
        await waiter
    except asyncio.CancelledError:
        _abandon(task, late)
        raise
    finally:
        timer.cancel()
    if not task.done():
        _abandon(task, late)
        raise OverdueError
    if task.cancelled():
        raise RuntimeError("cancelled itself")
    return task.result()


def _wake(waiter: asyncio.Future[None], _: object = None) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _abandon(task: asyncio.Future[T], late: Callable[[T], object] | None) -> None:
    """Cancel `task` and forget it, but for what it returns."""
    if task.done():
        _hand_over(late, task)
    else:
        task.cancel()
        task.add_done_callback(partial(_hand_over, late))


def _hand_over(late: Callable[[T], object] | None, task: asyncio.Future[T]) -> None:
    """Take what became of an abandoned task, which nobody else will."""
    if not task.cancelled() and task.exception() is None and late is not None:
        late(task.result())


async def all_of(works: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """Results of `works` in order, run at once; the first error cancels the others.

    All have ended then. A cancellation reaches each of them once, so that they can clean up.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            if not task.cancelling():
                task.cancel()
        await all_ended(tasks)


async def all_ended(tasks: Collection[asyncio.Future[T]]) -> None:
    """Wait until `tasks` have ended, however; cancellations are heard only then."""
    for task in tasks:
        task.add_done_callback(partial(_hand_over, None))
    heard: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            heard = error
    if heard is not None:
        raise heard
