from __future__ import annotations

import asyncio
import contextvars
import os
import threading

from agentrl.core import threads
from agentrl.core.threads import in_thread

WHO = contextvars.ContextVar("WHO", default="nobody")


async def a_thread_rests() -> None:
    """A result is told before its thread is idle again."""
    while not threads._idle:
        await asyncio.sleep(0.001)


async def test_a_thread_is_used_again_and_not_shared_while_it_is_busy():
    threads._idle.clear()
    first = await in_thread(threading.get_ident)
    await a_thread_rests()
    assert await in_thread(threading.get_ident) == first
    await a_thread_rests()
    release = threading.Event()

    def hang() -> int:
        release.wait(10)
        return threading.get_ident()

    hanging = asyncio.ensure_future(in_thread(hang))
    await asyncio.sleep(0)
    assert await in_thread(threading.get_ident) != first
    release.set()
    assert await hanging == first


async def test_a_function_sees_the_callers_context_and_cannot_change_it():
    def rename() -> str:
        before = WHO.get()
        WHO.set("thread")
        return before

    WHO.set("caller")
    assert await in_thread(rename) == "caller"
    assert WHO.get() == "caller"


def test_a_result_that_comes_after_its_loop_closed_is_dropped_and_the_thread_lives_on():
    release, done = threading.Event(), threading.Event()

    def late() -> None:
        release.wait(10)
        done.set()

    async def abandon() -> None:
        running = asyncio.ensure_future(in_thread(late))
        await asyncio.sleep(0)
        running.cancel()

    asyncio.run(abandon())
    release.set()
    assert done.wait(5)
    assert asyncio.run(in_thread(lambda: 7)) == 7


def test_a_forked_process_starts_threads_of_its_own():
    assert asyncio.run(in_thread(lambda: 1)) == 1
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            outcome = asyncio.run(asyncio.wait_for(in_thread(lambda: 0), 5))
        finally:
            os._exit(outcome)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
