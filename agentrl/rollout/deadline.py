"""Deadlines that hold even when what is awaited refuses to be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from functools import partial
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
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    waiter: asyncio.Future[None] = loop.create_future()
    # What asyncio.wait does, at half its cost: this runs twice in every turn.
    timer = loop.call_later(seconds, _wake, waiter)
    task.add_done_callback(partial(_wake, waiter))
    try:
        await waiter
    except asyncio.CancelledError:
        abandon(task)
        raise
    finally:
        timer.cancel()
    if not task.done():
        abandon(task)
        raise OverdueError
    if task.cancelled():
        raise RuntimeError("cancelled itself")
    return task.result()


async def to_its_end(work: Coroutine[object, object, T], seconds: float) -> T:
    """As `within`, but cancellations are heard only when `work` is over: for cleaning up."""
    loop = asyncio.get_running_loop()
    task, end = loop.create_task(work), loop.time() + seconds
    heard: asyncio.CancelledError | None = None
    while not task.done() and (left := end - loop.time()) > 0.0:
        try:
            await asyncio.wait([task], timeout=left)
        except asyncio.CancelledError as error:
            heard = error
    over = task.done()
    abandon(task)
    if heard is not None:
        raise heard
    if not over:
        raise OverdueError
    if task.cancelled():
        raise RuntimeError("cancelled itself")
    return task.result()


def _wake(waiter: asyncio.Future[None], _: object = None) -> None:
    if not waiter.done():
        waiter.set_result(None)


def abandon(task: asyncio.Future[T]) -> None:
    """Cancel `task` and forget it."""
    task.cancel()
    task.add_done_callback(_forget)


def _forget(task: asyncio.Future[T]) -> None:
    """Take the exception of an abandoned task, which nobody else will."""
    if not task.cancelled():
        task.exception()


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
        task.add_done_callback(_forget)
    heard: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            heard = error
    if heard is not None:
        raise heard
