"""Where the groups of an iteration come from: its tasks, played by the fleet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentrl import store
from agentrl.core.types import Group, Task
from agentrl.recipe.schema import Recipe
from agentrl.rollout.seeds import derive
from agentrl.trainer.display import Display
from agentrl.trainer.forgetting import Forgetting
from agentrl.trainer.ladder import climb
from agentrl.trainer.overlong import punish_length
from agentrl.trainer.refill import informative
from agentrl.trainer.replay import Replay, failed, replayed
from agentrl.trainer.sampled import Attempt, Sampled, cost
from agentrl.trainer.stream import Played, Portion, Stream, StreamState
from agentrl.trainer.summary import Budget, spent
from agentrl.trainer.tasks import Curriculum, TaskOrder
from agentrl.workers.fleet import Fleet, Job

_FILE = "ahead.parquet"


class Collector:
    """Samples the groups of the iterations, up to `train.max_lag` versions ahead of the learner.

    A group is a function of the recipe's seed, its number, the weights that sampled it and, where
    the recipe has them, what the curriculum and the replay saw in the iterations before. The run
    has no further iteration when `train.iterations` are begun, or a budget is spent on groups that
    have ended.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        fleet: Fleet,
        tasks: Sequence[Task],
        display: Display,
        forgetting: Forgetting | None = None,
    ) -> None:
        settings, seed, score = recipe.train, recipe.seed, recipe.eval.score
        self.recipe = recipe
        self.fleet = fleet
        self.display = display
        self.order = TaskOrder(tasks, seed=seed)
        self.curriculum = (
            Curriculum(tasks, settings.curriculum, seed=seed) if settings.curriculum else None
        )
        self.replay = Replay(settings.replay, score=score, seed=seed) if settings.replay else None
        self.forgetting = forgetting
        self.played = Budget()
        self.stream: Stream[Attempt] = Stream(
            self._play,
            portion=settings.tasks_per_iteration,
            max_lag=settings.max_lag,
            capacity=fleet.capacity,
            begins=self._begins,
            useful=lambda attempt: self._useful([attempt])[0],
            spare=settings.refill * settings.tasks_per_iteration,
        )
        self._jobs: dict[str, Job] = {}  # name of a group whose second half is to be played
        self._drawn: dict[str, str] = {}  # name of a group that no iteration has seen -> its task

    @property
    def has_more(self) -> bool:
        """Whether there are groups for another iteration, or will be."""
        return self.stream.has_more

    def advance(self, version: int) -> None:
        """All engines hold `version` of the policy from now on: it is what is sampled from."""
        self.stream.advance(version)

    async def sample(self, iteration: int) -> Sampled:
        """The groups of `iteration`, in the order of their tasks; call `advance` before."""
        count = self.recipe.train.tasks_per_iteration
        with self.display.bar(f"iteration {iteration + 1}: playing", count) as bar:
            portion = await self.stream.take(
                lambda finished: bar.update(bar.task_ids[0], completed=min(finished, count))
            )
        if self.forgetting is None:
            return self._chosen(portion)
        return await self._completed(portion, self.forgetting)

    async def _completed(self, portion: Portion[Attempt], forgetting: Forgetting) -> Sampled:
        """`portion` with its second halves, which some other policy may have played."""
        started = time.monotonic()
        halves = [attempt.first for attempt in portion.groups]
        jobs = {group.id: self._jobs.pop(group.id) for group in halves}
        found = await forgetting.complete(halves, jobs, play=self._play_second)
        attempts = [Attempt((group,)) for group in found.groups]
        seconds = portion.seconds + time.monotonic() - started
        sampled = self._chosen(portion._replace(groups=attempts, seconds=seconds))
        return replace(sampled, metrics=sampled.metrics | found.metrics)

    def _chosen(self, portion: Portion[Attempt]) -> Sampled:
        """What of `portion` trains; the curriculum and the replay learn from all of it."""
        attempts = portion.groups
        everything = sorted([*attempts, *portion.aside], key=lambda one: one.first.id)
        played = [attempt.first for attempt in everything]
        if self.recipe.train.refill:
            useful = zip(attempts, self._useful(attempts), strict=True)
            attempts = [attempt for attempt, ok in useful if ok]
        fresh = [attempt.group for attempt in attempts]
        groups = fresh if self.replay is None else self.replay.inject(fresh)
        # Only now: no group is compared with a trajectory of its own iteration.
        if self.replay is not None:
            self.replay.add(played)
        if self.curriculum is not None:
            self.curriculum.observe(played, self.recipe.eval.score)
        for group in played:
            self._drawn.pop(group.id, None)
        return Sampled(
            groups=groups,
            fresh=fresh,
            played=played,
            spent=cost(everything),
            seconds=portion.seconds,
            waited=portion.waited,
            ahead=portion.ahead,
            metrics=self._metrics(everything, groups),
        )

    def _metrics(self, attempts: Sequence[Attempt], groups: Sequence[Group]) -> dict[str, float]:
        """`refill/...`, `replay/...`, `hints/...` and `curriculum/...` of what is in use."""
        settings, score = self.recipe.train, self.recipe.eval.score
        metrics: dict[str, float] = {}
        if settings.refill:
            metrics["refill/groups_played"] = float(len(attempts))
            metrics["refill/groups_uninformative"] = float(len(attempts) - len(groups))
        if self.replay is not None:
            metrics["replay/groups"] = float(sum(bool(replayed(group)) for group in groups))
            metrics["replay/stored"] = float(len(self.replay))
        if settings.hints:
            helped = [settings.hints[one.chosen - 1] for one in attempts if one.chosen]
            metrics["hints/groups"] = float(sum(failed(one.first, score) for one in attempts))
            metrics["hints/rescued"] = float(len(helped))
            metrics["hints/share_mean"] = sum(helped) / len(helped) if helped else float("nan")
        return metrics | (self.curriculum.metrics() if self.curriculum is not None else {})

    def _useful(self, attempts: Sequence[Attempt]) -> list[bool]:
        """Whether each has something to train, with what the replay would add to it."""
        groups = [attempt.group for attempt in attempts]
        if self.replay is not None:
            groups = self.replay.inject(groups)
        return informative(groups, self.recipe.filters, self.recipe.eval.score)

    async def _play_second(self, job: Job) -> Group:
        group = await self.fleet.play_one(job)
        self.played += spent([group])
        overlong = self.recipe.train.overlong
        return group if overlong is None else punish_length([group], overlong)[0]

    async def _play(self, number: int) -> Attempt:
        iteration, index = divmod(number, self.recipe.train.tasks_per_iteration)
        name = f"{iteration:06d}-{index:04d}"
        job = Job(
            task=self._task(number, name),
            group_id=name,
            seed=derive(self.recipe.seed, "rollout", iteration, index),
            half=None if self.forgetting is None else 0,
        )
        if self.forgetting is not None:
            self._jobs[name] = job
        settings = self.recipe.train
        attempt = await climb(
            job, settings.hints, score=self.recipe.eval.score, play=self.fleet.play_one
        )
        self.played += cost([attempt])
        if settings.overlong is None:
            return attempt
        return attempt._replace(groups=tuple(punish_length(attempt.groups, settings.overlong)))

    def _task(self, number: int, name: str) -> Task:
        if self.curriculum is None:
            return self.order.take(number, 1)[0]
        (task,) = self.curriculum.take(number, 1, without=self._drawn.values())
        self._drawn[name] = task.id
        return task

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
        waiting = [*found.finished, *found.aside]
        state = {
            "next": found.next,
            "again": list(found.again),
            "replaced": found.replaced,
            "spared": found.spared,
            "finished": [_plain(one) for one in found.finished],
            "aside": [_plain(one) for one in found.aside],
            "curriculum": None if self.curriculum is None else self.curriculum.state(),
            "entropies": [] if self.forgetting is None else list(self.forgetting.entropies),
        }
        stored = None if self.replay is None else self.replay.groups()

        def write(folder: Path) -> None:
            if waiting:
                groups = [group for one in waiting for group in one.group.groups]
                store.write(folder / _FILE, groups)
            if stored is not None:
                Replay.write(folder, stored)

        return state, write

    def restore(
        self, folder: Path, state: dict[str, Any], *, iteration: int, spent_on: Budget
    ) -> None:
        """Go on before `iteration` from the snapshot in `folder`; `spent_on` trained."""
        if self.curriculum is not None:
            self.curriculum.restore(state["curriculum"])
        if self.replay is not None:
            self.replay.read(folder)
        if self.forgetting is not None:
            self.forgetting.entropies = tuple(state["entropies"])
        listed = [*state["finished"], *state["aside"]]
        groups = iter(store.read(folder / _FILE) if listed else [])
        waiting = [
            Played(number, version, Attempt(tuple(next(groups) for _ in range(size)), chosen))
            for number, version, chosen, size in listed
        ]
        self.played = spent_on + cost([one.group for one in waiting])
        self._drawn = {one.group.first.id: one.group.first.task_id for one in waiting}
        cut = len(state["finished"])
        self.stream.restore(
            StreamState(
                next=state["next"],
                again=state["again"],
                finished=waiting[:cut],
                aside=waiting[cut:],
                replaced=state["replaced"],
                spared=state["spared"],
            ),
            iteration=iteration,
        )


def _plain(one: Played[Attempt]) -> list[int]:
    return [one.number, one.version, one.group.chosen, len(one.group.groups)]
