"""Which tasks an iteration plays: in a seeded order over epochs, or by how often they succeed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from agentrl.core.errors import DataError
from agentrl.core.types import Float64, Group, Task
from agentrl.recipe.selection import CurriculumSettings
from agentrl.rollout.seeds import derive
from agentrl.trainer.summary import attempt_scores

_MEMORY = 0.5
"""Share of a task's evidence that still counts when it is played again."""


class TaskOrder:
    """The endless order of training tasks: every epoch a new permutation, none skipped.

    There is no state to save: the position is the number of tasks taken so far.
    """

    def __init__(self, tasks: Sequence[Task], *, seed: int) -> None:
        if not tasks:
            raise DataError("the environment has no training tasks; check its split and filters")
        self._tasks = tasks
        self._seed = seed
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    def take(self, position: int, count: int) -> list[Task]:
        """Tasks number `position` to `position + count`."""
        taken = []
        for index in range(position, position + count):
            epoch, place = divmod(index, len(self._tasks))
            if epoch != self._epoch:
                rng = np.random.default_rng(derive(self._seed, "tasks", epoch))
                self._order, self._epoch = rng.permutation(len(self._tasks)), epoch
            taken.append(self._tasks[int(self._order[place])])
        return taken


class Curriculum:
    """Draws tasks by their running success rates (see `CurriculumSettings`); P tasks.

    A task's rate is (s + 1) / (n + 2), where a visit with m scores of sum x makes s = s/2 + x and
    n = n/2 + m: what the policy did long ago is forgotten. What is drawn is a function of the
    seed, the position and what `observe` has seen.
    """

    def __init__(self, tasks: Sequence[Task], settings: CurriculumSettings, *, seed: int) -> None:
        self._tasks = tasks
        self._settings = settings
        self._seed = seed
        self._index = {task.id: index for index, task in enumerate(tasks)}
        self._sums = np.zeros(len(tasks))
        self._counts = np.zeros(len(tasks))

    def rates(self) -> Float64:
        """The rate (P,) of every task; 1/2 for one that was never played."""
        rates: Float64 = (self._sums + 1.0) / (self._counts + 2.0)
        return rates

    def chances(self) -> Float64:
        """The probability (P,) of every task to be the next."""
        rates, settings = self.rates(), self._settings
        if settings.band is None:
            weights = rates * (1.0 - rates)
        else:
            low, high = settings.band
            weights = ((rates >= low) & (rates <= high)).astype(np.float64)
        total = float(weights.sum())
        if total == 0.0:
            return np.full(len(rates), 1.0 / len(rates))
        chances: Float64 = (
            settings.explore / len(rates) + (1.0 - settings.explore) / total * weights
        )
        return chances

    def take(self, position: int, count: int, *, without: Iterable[str] = ()) -> list[Task]:
        """`count` different tasks, none of those with ids in `without` while others are left."""
        rng = np.random.default_rng(derive(self._seed, "curriculum", position))
        free = np.ones(len(self._tasks), np.bool_)
        free[[self._index[id_] for id_ in without]] = False
        taken: list[Task] = []
        while len(taken) < count:
            if not free.any():
                free[:] = True
            chances = np.where(free, self.chances(), 0.0)
            size = min(count - len(taken), int(np.count_nonzero(free)))
            drawn = rng.choice(len(chances), size, replace=False, p=chances / chances.sum())
            free[drawn] = False
            taken += [self._tasks[int(index)] for index in drawn]
        return taken

    def observe(self, groups: Iterable[Group], score: str) -> None:
        """Learn from `groups`; failures of infrastructure are no attempts."""
        for group in groups:
            scored = [value for value in attempt_scores(group, score) if math.isfinite(value)]
            if scored and group.task_id in self._index:
                index = self._index[group.task_id]
                self._sums[index] = _MEMORY * self._sums[index] + np.clip(scored, 0.0, 1.0).sum()
                self._counts[index] = _MEMORY * self._counts[index] + len(scored)

    def metrics(self) -> dict[str, float]:
        """`curriculum/...`: how many tasks were played so far, and their mean rate."""
        known = self._counts > 0
        mean = float(self.rates()[known].mean()) if known.any() else float("nan")
        return {"curriculum/known_tasks": float(known.sum()), "curriculum/rate_mean": mean}

    def state(self) -> dict[str, list[float]]:
        """What `restore` takes: the sum and the count of every known task."""
        known = np.flatnonzero(self._counts)
        return {
            self._tasks[int(i)].id: [float(self._sums[i]), float(self._counts[i])] for i in known
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises DataError where it knows tasks that are not there any more.
        """
        gone = [id_ for id_ in state if id_ not in self._index]
        if gone:
            raise DataError(
                f"train.curriculum: the checkpoint knows task {gone[0]!r}, which the environment "
                f"has no more ({len(gone)} are gone); bring its data back, or start a new run"
            )
        for id_, (total, count) in state.items():
            index = self._index[id_]
            self._sums[index], self._counts[index] = total, count
