"""The second half of an iteration under EEPO, and when the policy forgets the first one for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from agentrl.core.types import Group
from agentrl.credit.table import TurnTable
from agentrl.learner.base import PolicyLearner
from agentrl.learner.packing import pack_to_look
from agentrl.recipe.schema import Recipe
from agentrl.rollout.deadline import all_of
from agentrl.samplers.eepo import EepoSampler
from agentrl.workers.fleet import Job

Play = Callable[[Job], Coroutine[object, object, Group]]
Push = Callable[[], Awaitable[object]]


class Completed(NamedTuple):
    """Whole groups, in the order of their first halves, and metrics."""

    groups: list[Group]
    metrics: dict[str, float]


class Forgetting:
    """Completes groups; `push` gives the engines whatever the learner's weights are now."""

    def __init__(self, recipe: Recipe, *, learner: PolicyLearner, push: Push) -> None:
        assert isinstance(recipe.sampler, EepoSampler)
        self.sampler = recipe.sampler
        self.pack_tokens = recipe.learner.pack_tokens
        self.learner = learner
        self.push = push
        self.entropies: tuple[float, ...] = ()

    async def complete(
        self, halves: Sequence[Group], jobs: Mapping[str, Job], *, play: Play
    ) -> Completed:
        """`halves` with what `play` makes of the others; `jobs` are the first ones' by group."""
        self.entropies = (*self.entropies, mean_entropy(halves))[-self.sampler.window :]
        average = float(np.mean(self.entropies))
        # An entropy that nobody measured is no reason to forget.
        full = len(self.entropies) == self.sampler.window
        forgets = full and average < self.sampler.entropy_below
        if not forgets:
            rest = await _rest(halves, jobs, play)
        else:
            await asyncio.to_thread(self._forget, halves)
            try:
                await self.push()
                rest = await _rest(halves, jobs, play)
            finally:
                await asyncio.to_thread(self.learner.recall)
            await self.push()
        groups = [
            replace(first, trees=(*first.trees, *second.trees))
            for first, second in zip(halves, rest, strict=True)
        ]
        metrics = {"forget/active": float(forgets), "forget/entropy_mean": average}
        return Completed(groups, metrics)

    def _forget(self, halves: Sequence[Group]) -> None:
        table = TurnTable.of(halves)
        rows = pack_to_look(halves, table, np.ones(len(table.parent)), pack_tokens=self.pack_tokens)
        self.learner.forget(rows, rate=self.sampler.rate)


async def _rest(halves: Sequence[Group], jobs: Mapping[str, Job], play: Play) -> list[Group]:
    return await all_of(play(replace(jobs[group.id], half=1)) for group in halves)


def mean_entropy(groups: Sequence[Group]) -> float:
    """Mean entropy in nats of all action tokens of `groups`; NaN where one is not known."""
    entropies = TurnTable.of(groups, with_tokens=True).entropies
    assert entropies is not None
    return float(entropies.mean(dtype=float)) if len(entropies) else float("nan")
