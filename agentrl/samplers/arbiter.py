"""Hands out a budget of branches in a fixed order, whichever line gets there first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

from agentrl.samplers.lines import LineKey

Slot: TypeAlias = tuple[int, LineKey]
"""One chance to branch: (turn, line). Slots are served in ascending order."""


class Arbiter:
    """Decides which branches may start; the outcome depends on no timing.

    Every live line reports each of its turns in order, as `passed` or `wanted`, and its end. An
    offer is decided as if all slots before it had been decided: at once when no earlier slot can
    still ask, when what is left would be enough whatever the earlier slots ask for, or when
    nothing is left; otherwise later. Only a branch waits for its verdict, never a line.

    What earlier slots can still ask for is bounded: a line with d of them left becomes at most
    `branch_factor` ** d lines, since its branches may branch too.
    """

    def __init__(self, *, budget: int, branch_factor: int, lines: Sequence[LineKey]) -> None:
        self.budget = budget
        self.granted = 0
        self._factor = branch_factor
        self._next: dict[LineKey, int] = dict.fromkeys(lines, 0)  # first turn not yet reported
        self._offers: dict[Slot, tuple[LineKey, ...]] = {}
        self._grants: dict[Slot, int] = {}
        self._verdicts: dict[LineKey, asyncio.Future[bool]] = {}

    @property
    def exhausted(self) -> bool:
        """True when no slot that is still open can be granted anything."""
        return self.granted >= self.budget

    def passed(self, line: LineKey, turn: int) -> None:
        """`line` asks for nothing at `turn`."""
        self._report(line, turn)
        self._decide()

    def wanted(self, line: LineKey, turn: int, branches: Sequence[LineKey]) -> None:
        """`line` asks at `turn` for `branches`, named in the order they are granted."""
        self._report(line, turn)
        self._offers[turn, line] = tuple(branches)
        loop = asyncio.get_running_loop()
        self._verdicts.update((branch, loop.create_future()) for branch in branches)
        self._decide()

    def ended(self, line: LineKey) -> None:
        """`line` reports no further turn."""
        if self._next.pop(line, None) is not None:
            self._decide()

    async def verdict(self, branch: LineKey) -> bool:
        """Whether `branch` may start; a granted branch is a live line from then on."""
        return await self._verdicts[branch]

    def _report(self, line: LineKey, turn: int) -> None:
        assert self._next[line] <= turn, "a line reports its turns in order"
        self._next[line] = turn + 1

    def _decide(self) -> None:
        while any(self._settle(slot) for slot in sorted(self._offers)):
            pass

    def _settle(self, slot: Slot) -> bool:
        """Decide the offer at `slot` if that can be done now."""
        branches = self._offers[slot]
        left = self.budget - sum(n for earlier, n in self._grants.items() if earlier < slot)
        asked = self._may_be_asked_before(slot)
        if left > 0 and asked > 0 and left - asked < len(branches):
            return False
        count = min(max(left, 0), len(branches))
        del self._offers[slot]
        self._grants[slot] = count
        self.granted += count
        for index, branch in enumerate(branches):
            if index < count:
                self._next[branch] = slot[0] + 1
            verdict = self._verdicts[branch]
            if not verdict.done():
                verdict.set_result(index < count)
        return True

    def _may_be_asked_before(self, slot: Slot) -> int:
        """Largest number of branches that undecided slots before `slot` could be granted."""
        most: int = sum(
            int(self._factor ** _slots_before(slot, line, turn)) - 1
            for line, turn in self._next.items()
        )
        for (turn, line), branches in self._offers.items():
            if (turn, line) < slot:
                most += sum(
                    int(self._factor ** _slots_before(slot, branch, turn + 1))
                    for branch in branches
                )
        return most


def _slots_before(slot: Slot, line: LineKey, turn: int) -> int:
    """How many turns of `line` from `turn` on come before `slot`."""
    last, other = slot
    return max(last - turn + (1 if line < other else 0), 0)
