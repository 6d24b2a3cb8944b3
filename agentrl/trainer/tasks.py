"""Which tasks an iteration plays: a seeded order over epochs, a function of the position alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentrl.core.errors import DataError
from agentrl.core.types import Task
from agentrl.rollout.seeds import derive


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
