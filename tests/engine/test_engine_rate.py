"""Rate limits on a clock that jumps: never too much in any minute, and no longer than needed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.engine.rate import WINDOW_SECONDS, Pace, Window

ASKED = st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 400)), min_size=1, max_size=40)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting takes no time."""

    def __init__(self) -> None:
        loop = self

        class Jump(selectors.DefaultSelector):
            def select(self, timeout=None):
                found = super().select(0)
                if not found and timeout:
                    loop.now += timeout
                return found

        self.now = 0.0
        super().__init__(Jump())

    def time(self) -> float:
        return self.now


def play(work: Coroutine[object, object, None]) -> float:
    """Seconds that `work` takes on a loop that jumps."""
    loop = JumpingLoop()
    try:
        loop.run_until_complete(work)
        return loop.now
    finally:
        loop.close()


def played(asked, requests, tokens) -> list[tuple[float, int]]:
    """When each of `asked` (seconds after the one before, tokens) goes if it goes at once."""
    window, now, gone = Window(requests, tokens), 0.0, []
    for later, cost in asked:
        now += later
        while (wait := window.wait(now, cost)) > 0:
            now += wait
        window.take(now, cost)
        gone.append((now, cost if tokens is None else min(cost, tokens)))
    return gone


@settings(max_examples=60, deadline=None)
@given(ASKED, st.none() | st.integers(1, 8), st.none() | st.integers(100, 900))
def test_no_minute_holds_more_than_allowed(asked, requests, tokens):
    gone = played(asked, requests, tokens)
    for start, _ in gone:
        inside = [cost for at, cost in gone if start <= at < start + WINDOW_SECONDS]
        assert requests is None or len(inside) <= requests
        assert tokens is None or sum(inside) <= tokens


@settings(max_examples=60, deadline=None)
@given(ASKED, st.integers(1, 8), st.integers(100, 900))
def test_none_waits_while_there_is_room(asked, requests, tokens):
    gone = played(asked, requests, tokens)
    now = 0.0
    for index, (later, cost) in enumerate(asked):
        now += later
        at = gone[index][0]
        if at > now:  # It waited, so a moment earlier the minute before was full.
            inside = [c for t, c in gone[:index] if t > at - WINDOW_SECONDS - 1e-6]
            assert len(inside) >= requests or sum(inside) + min(cost, tokens) > tokens
        now = max(now, at)


def test_requests_by_hand():
    assert [at for at, _ in played([(0.0, 1)] * 5, 2, None)] == [0.0, 0.0, 60.0, 60.0, 120.0]
    assert [at for at, _ in played([(0.0, 60), (10.0, 60), (0.0, 30)], None, 100)] == [
        0.0, 60.0, 60.0,
    ]  # fmt: skip


def test_what_was_reserved_and_not_used_is_given_back():
    window = Window(None, 100)
    asked = window.take(0.0, 90)
    assert window.wait(1.0, 50) == 59.0
    window.correct(asked, 20)
    assert window.wait(1.0, 50) == 0.0
    assert window.wait(61.0, 100) == 0.0
    window.correct(asked, 90)  # too late to count
    assert window.wait(61.0, 100) == 0.0


def test_they_go_in_the_order_they_came_and_a_correction_wakes_the_first():
    order = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        pace = Pace(None, 100, clock=loop.time)
        first = await pace.admit(100)

        async def one(index: int) -> None:
            await pace.admit(10)
            order.append((index, loop.time()))

        tasks = [asyncio.create_task(one(index)) for index in range(3)]
        await asyncio.sleep(5.0)
        pace.correct(first, 80)
        await asyncio.gather(*tasks)

    play(work())
    assert order == [(0, 5.0), (1, 5.0), (2, 60.0)]


def test_a_server_that_asks_for_quiet_gets_it_from_all():
    async def work() -> None:
        pace = Pace(clock=asyncio.get_running_loop().time)
        pace.hold(7.0)
        pace.hold(3.0)
        await asyncio.gather(*(pace.admit(1) for _ in range(4)))

    assert play(work()) == pytest.approx(7.0)


def test_one_that_gives_up_while_it_waits_holds_up_nobody():
    async def work() -> None:
        pace = Pace(1, None, clock=asyncio.get_running_loop().time)
        await pace.admit(1)
        waits = asyncio.create_task(pace.admit(1))
        after = asyncio.create_task(pace.admit(1))
        await asyncio.sleep(1.0)
        waits.cancel()
        await after

    assert play(work()) == pytest.approx(60.0)
