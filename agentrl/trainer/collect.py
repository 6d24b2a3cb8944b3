"""Where the groups of an iteration come from: its tasks, played by the fleet."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from agentrl.core.types import Group, Task
from agentrl.recipe.schema import Recipe
from agentrl.rollout.seeds import derive
from agentrl.trainer.display import Display
from agentrl.trainer.play import play
from agentrl.trainer.sync import WeightSync
from agentrl.trainer.tasks import TaskOrder
from agentrl.workers.fleet import Fleet, Job


class Sampled(NamedTuple):
    """The groups of one iteration, the policy version that sampled them and the seconds spent."""

    groups: list[Group]
    version: int
    seconds: float


class Collector:
    """Samples the groups of an iteration, a function of the recipe's seed and the iteration."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        fleet: Fleet,
        sync: WeightSync,
        tasks: Sequence[Task],
        display: Display,
    ) -> None:
        self.recipe = recipe
        self.fleet = fleet
        self.sync = sync
        self.display = display
        self.order = TaskOrder(tasks, seed=recipe.seed)

    async def sample(self, iteration: int) -> Sampled:
        """Play the tasks of `iteration`."""
        count = self.recipe.train.tasks_per_iteration
        jobs = [
            Job(
                task=task,
                group_id=f"{iteration:06d}-{index:04d}",
                seed=derive(self.recipe.seed, "rollout", iteration, index),
            )
            for index, task in enumerate(self.order.take(iteration * count, count))
        ]
        started, version = time.monotonic(), self.sync.version
        groups = await play(self.fleet, jobs, self.display, f"iteration {iteration + 1}: playing")
        return Sampled(groups, version, time.monotonic() - started)
