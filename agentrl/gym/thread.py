"""A private event loop on a thread of its own, for code on the other side of sync and async."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines, and blocking calls, one after another on one daemon thread.

    The thread starts with the first use, so that an object that holds one can be pickled or
    built before a process forks. It dies with the process, even while a call hangs.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: set[object] = set()

    @property
    def idle(self) -> bool:
        """Whether no blocking call is still running, an abandoned one included."""
        return not self._calls

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Start `coroutine` on the thread."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_serve, args=(self._loop,), name="agentrl-gym", daemon=True
            )
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of `coroutine`; blocks the calling thread."""
        future = self.submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def call(self, function: Callable[[], T]) -> T:
        """The result of a blocking `function`; does not block the calling event loop."""
        calls, this = self._calls, object()

        async def blocking() -> T:
            calls.add(this)
            try:
                return function()
            finally:
                calls.discard(this)

        return await asyncio.wrap_future(self.submit(blocking()))

    def close(self) -> None:
        """Stop the thread once it is idle; may be called twice, and the thread used again."""
        loop, self._loop, self._thread = self._loop, None, None
        self._calls = set()
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        # What was left to run, such as the owner of a connection, ends as it does in asyncio.run.
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
