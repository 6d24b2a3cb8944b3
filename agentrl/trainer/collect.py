"""Where the groups of an iteration come from: the tasks in their order, played by the fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentrl import store
from agentrl.core.types import Group, Task
from agentrl.recipe.schema import Recipe
from agentrl.rollout.seeds import derive
from agentrl.trainer.display import Display
from agentrl.trainer.stream import Played, Portion, Stream, StreamState
from agentrl.trainer.summary import Budget, spent
from agentrl.trainer.tasks import TaskOrder
from agentrl.workers.fleet import Fleet, Job

_FILE = "ahead.parquet"


class Collector:
    """Samples the groups of the iterations, up to `train.max_lag` versions ahead of the learner.

    A group is a function of the recipe's seed, its number and the weights that sampled it. The run
    has no further iteration when `train.iterations` are begun, or a budget is spent on groups that
    have ended.
    """

    def __init__(
        self, recipe: Recipe, *, fleet: Fleet, tasks: Sequence[Task], display: Display
    ) -> None:
        self.recipe = recipe
        self.fleet = fleet
        self.display = display
        self.order = TaskOrder(tasks, seed=recipe.seed)
        self.played = Budget()
        self.stream = Stream(
            self._play,
            portion=recipe.train.tasks_per_iteration,
            max_lag=recipe.train.max_lag,
            capacity=fleet.capacity,
            begins=self._begins,
        )

    @property
    def has_more(self) -> bool:
        """Whether there are groups for another iteration, or will be."""
        return self.stream.has_more

    def advance(self, version: int) -> None:
        """All engines hold `version` of the policy from now on: it is what is sampled from."""
        self.stream.advance(version)

    async def sample(self, iteration: int) -> Portion:
        """The groups of `iteration`, in the order of their tasks; call `advance` before."""
        count = self.recipe.train.tasks_per_iteration
        with self.display.bar(f"iteration {iteration + 1}: playing", count) as bar:
            return await self.stream.take(
                lambda finished: bar.update(bar.task_ids[0], completed=min(finished, count))
            )

    async def _play(self, number: int) -> Group:
        iteration, index = divmod(number, self.recipe.train.tasks_per_iteration)
        job = Job(
            task=self.order.take(number, 1)[0],
            group_id=f"{iteration:06d}-{index:04d}",
            seed=derive(self.recipe.seed, "rollout", iteration, index),
        )
        group = await self.fleet.play_one(job)
        self.played += spent([group])
        return group

    def _begins(self, iteration: int) -> bool:
        train = self.recipe.train
        tokens, calls = train.max_generated_tokens, train.max_tool_calls
        return (
            iteration < train.iterations
            and not (tokens and self.played.generated_tokens >= tokens)
            and not (calls and self.played.tool_calls >= calls)
        )

    def snapshot(self) -> tuple[dict[str, Any], Callable[[Path], None]]:
        """What a checkpoint keeps: plain data, and a function that writes the rest into a folder.

        Groups that have ended and wait for the learner are kept, those under way are to be played
        again.
        """
        found = self.stream.state()
        state = {
            "next": found.next,
            "again": list(found.again),
            "finished": [[one.number, one.version] for one in found.finished],
        }

        def write(folder: Path) -> None:
            if found.finished:
                store.write(folder / _FILE, [one.group for one in found.finished])

        return state, write

    def restore(
        self, folder: Path, state: dict[str, Any], *, iteration: int, spent_on: Budget
    ) -> None:
        """Go on before `iteration` from the snapshot in `folder`; `spent_on` trained."""
        groups = store.read(folder / _FILE) if state["finished"] else []
        finished = [
            Played(number, version, group)
            for (number, version), group in zip(state["finished"], groups, strict=True)
        ]
        self.played = spent_on + spent(groups)
        self.stream.restore(
            StreamState(state["next"], state["again"], finished), iteration=iteration
        )
