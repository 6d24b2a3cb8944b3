"""A stream of groups: played ahead of the learner, never further than the policy lag allows.

Weights have versions, and iteration i trains version i. A group that is admitted while the engines
hold version u may be trained by the iterations u to u + `max_lag`, so every one of its tokens is at
most `max_lag` versions old by then. Two rules keep that true without ever dropping a group:

- admission: at most `portion` * (iterations that may still train it) groups are under way or wait
  for the learner. With `max_lag` 0 that is one iteration's groups, and none while the learner
  updates: the synchronous loop.
- the next portion are the finished groups with the oldest versions, of equals those that finished
  first. It is taken as soon as those that would be left can all be trained in time; until then the
  learner waits, for the groups that may not be overtaken any more.

A group that is of no use to the learner is set aside as it ends, and another one is admitted in its
place, up to a bound for each portion: which numbers a portion is made from depends on what is of
use, and without lag on nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Played(NamedTuple, Generic[T]):
    """A finished group, its number in the order of admission, and the version that it began at."""

    number: int
    version: int
    group: T


class StreamState(NamedTuple, Generic[T]):
    """What a stream goes on from: the next new number, those to play again, and what waits.

    `replaced` counts all groups that were ever set aside; `aside` are those that no portion has
    told of yet, and `spared` those since the last portion.
    """

    next: int = 0
    again: Sequence[int] = ()
    finished: Sequence[Played[T]] = ()
    aside: Sequence[Played[T]] = ()
    replaced: int = 0
    spared: int = 0


class Portion(NamedTuple, Generic[T]):
    """The groups of one iteration by their numbers, and those that were set aside meanwhile.

    Seconds since the last portion in which something was played, and those that the learner waited
    for this one; groups that were admitted and are not trained yet.
    """

    groups: list[T]
    aside: list[T]
    seconds: float
    waited: float
    ahead: int


def choose(
    finished: Sequence[Played[T]],
    playing: Iterable[int],
    *,
    iteration: int,
    portion: int,
    max_lag: int,
) -> list[Played[T]] | None:
    """The next `portion` of `finished` (in the order of their ends), None while it must wait.

    `playing` are the versions of the groups under way. Those of version u that are left must fit
    into iterations up to u + `max_lag`.
    """
    chosen = sorted(finished, key=lambda one: one.version)[:portion]
    if len(chosen) < portion:
        return None
    numbers = {one.number for one in chosen}
    left = sorted([*playing, *(one.version for one in finished if one.number not in numbers)])
    for count, version in enumerate(left, 1):
        if count > (version + max_lag - iteration) * portion:
            return None
    return sorted(chosen)


class Stream(Generic[T]):
    """Plays group after group by `play(number)`, `capacity` at a time.

    `begins(i)` says whether the groups of a further iteration, number i, are wanted; an iteration
    that was begun is completed. For each portion up to `spare` groups that are not `useful` are
    set aside and replaced; more of them count as they are. A group that raises ends the stream:
    `take` raises the same.
    """

    def __init__(
        self,
        play: Callable[[int], Awaitable[T]],
        *,
        portion: int,
        max_lag: int,
        capacity: int,
        begins: Callable[[int], bool],
        useful: Callable[[T], bool] = lambda _: True,
        spare: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._play = play
        self._portion = portion
        self._max_lag = max_lag
        self._capacity = capacity
        self._begins = begins
        self._useful = useful
        self._spare = spare
        self._clock = clock
        self._version = self._iteration = self._next = 0
        self._wanted = 0  # iterations that were begun, each of which is completed
        self._again: list[int] = []
        self._playing: dict[asyncio.Task[tuple[T, bool]], tuple[int, int]] = {}  # number, version
        self._finished: list[Played[T]] = []
        self._aside: list[Played[T]] = []
        self._replaced = self._spared = 0
        self._error: BaseException | None = None
        self._open = False
        self._changed = asyncio.Event()
        self._busy_since: float | None = None
        self._busy = 0.0

    def restore(self, state: StreamState[T], *, iteration: int) -> None:
        """Go on before `iteration`; `advance` starts it."""
        self._iteration, self._next = iteration, state.next
        self._again, self._finished = list(state.again), list(state.finished)
        self._aside, self._replaced = list(state.aside), state.replaced
        self._spared = state.spared
        self._wanted = max(iteration, -(-self._begun // self._portion))

    def state(self) -> StreamState[T]:
        """What to go on from: groups under way are to be played again."""
        under_way = (number for number, _ in self._playing.values())
        return StreamState(
            next=self._next,
            again=sorted([*self._again, *under_way]),
            finished=tuple(self._finished),
            aside=tuple(self._aside),
            replaced=self._replaced,
            spared=self._spared,
        )

    @property
    def _begun(self) -> int:
        """Groups that were admitted for a place in a portion."""
        return self._next - self._replaced

    @property
    def has_more(self) -> bool:
        """Whether another portion will come."""
        return self._iteration < self._wanted or self._begins(self._wanted)

    def advance(self, version: int) -> None:
        """All engines hold `version` or a later one from now on."""
        self._version, self._open = version, True
        self._admit()

    async def take(self, told: Callable[[int], None] = lambda _: None) -> Portion[T]:
        """The next portion, once it is there; `told` hears how many groups have finished."""
        began = self._clock()
        while True:
            if self._error is not None:
                raise self._error
            self._admit()
            told(len(self._finished))
            chosen = choose(
                self._finished,
                [version for _, version in self._playing.values()],
                iteration=self._iteration,
                portion=self._portion,
                max_lag=self._max_lag,
            )
            if chosen is not None:
                break
            assert self._playing, "nothing is under way, and the portion is not there"
            self._changed.clear()
            await self._changed.wait()
        numbers = {one.number for one in chosen}
        self._finished = [one for one in self._finished if one.number not in numbers]
        aside, self._aside, self._spared = sorted(self._aside), [], 0
        self._iteration += 1
        self._admit()
        ahead = len(self._finished) + len(self._playing)
        waited = self._clock() - began
        return Portion(
            groups=[one.group for one in chosen],
            aside=[one.group for one in aside],
            seconds=self._busy_seconds(),
            waited=waited,
            ahead=ahead,
        )

    async def drain(self) -> None:
        """Admit nothing more, and wait until nothing is under way."""
        self._open = False
        await asyncio.gather(*self._playing, return_exceptions=True)

    async def close(self) -> None:
        """Give up what is under way."""
        self._open = False
        for task in self._playing:
            task.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)

    def _admit(self) -> None:
        trained_by = self._version + self._max_lag - self._iteration + 1
        while (
            self._open
            and len(self._playing) < self._capacity
            and len(self._playing) + len(self._finished) < trained_by * self._portion
            and (number := self._draw()) is not None
        ):
            if self._busy_since is None:
                self._busy_since = self._clock()
            task = asyncio.ensure_future(self._judged(number))
            self._playing[task] = (number, self._version)
            task.add_done_callback(self._ended)

    async def _judged(self, number: int) -> tuple[T, bool]:
        group = await self._play(number)
        return group, self._useful(group)

    def _draw(self) -> int | None:
        """The next number; None where no further portion is wanted."""
        if self._again:
            return self._again.pop(0)
        if self._begun == self._wanted * self._portion:
            if not self._begins(self._wanted):
                return None
            self._wanted += 1
        self._next += 1
        return self._next - 1

    def _ended(self, task: asyncio.Task[tuple[T, bool]]) -> None:
        number, version = self._playing.pop(task)
        if not self._playing and self._busy_since is not None:
            self._busy += self._clock() - self._busy_since
            self._busy_since = None
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._error, self._open = self._error or error, False
        else:
            group, useful = task.result()
            if useful or self._spared >= self._spare:
                self._finished.append(Played(number, version, group))
            else:
                self._aside.append(Played(number, version, group))
                self._replaced, self._spared = self._replaced + 1, self._spared + 1
            self._admit()
        self._changed.set()

    def _busy_seconds(self) -> float:
        """Seconds in which something was played, since this was last asked."""
        now = self._clock()
        if self._busy_since is not None:
            self._busy += now - self._busy_since
            self._busy_since = now
        found, self._busy = self._busy, 0.0
        return found
