"""Threads for blocking functions, which a function that hangs cannot use up."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

_MAX_IDLE: Final = 64
_idle: deque[_Worker] = deque()
# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_idle.clear)

MODEL_LOADING: Final = threading.Lock()
"""Held while transformers loads a model.

Until that is done its classes are changed for the whole process (models do not tie their weights,
for one), and two threads that load at a time would leave them so for good.
"""


async def in_thread(function: Callable[[], T]) -> T:
    """The result of `function`, run in a thread; a cancelled call leaves its thread behind.

    Not the event loop's executor: a few hanging functions would fill it and starve all others,
    and the interpreter would wait for them at its exit. Here a thread that is busy is replaced,
    and all are daemons. The function sees the caller's context variables.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def succeed(result: T) -> None:
        if not future.done():
            future.set_result(result)

    def fail(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def work() -> None:
        try:
            result = context.run(function)
        except BaseException as error:
            # A future refuses StopIteration, and SystemExit would end the event loop.
            plain = isinstance(error, Exception) and not isinstance(error, StopIteration)
            told = error if plain else RuntimeError(f"{type(error).__name__}: {error}")
            _tell(loop, fail, told)
        else:
            _tell(loop, succeed, result)

    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.jobs.put(work)
    return await future


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[[T], None], what: T) -> None:
    try:
        loop.call_soon_threadsafe(tell, what)
    except RuntimeError:
        # The loop closed while the function ran: nobody is left to hear of it.
        return


class _Worker:
    """A thread that takes one job at a time, and is in `_idle` while it has none."""

    __slots__ = ("jobs",)

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        threading.Thread(target=self._serve, name="agentrl-tool", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self.jobs.get()()
            if len(_idle) >= _MAX_IDLE:
                return
            _idle.append(self)
