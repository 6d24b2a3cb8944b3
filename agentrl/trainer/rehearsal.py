"""A method tried in seconds: a recipe's sampler, credit and loss on a table as the policy."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeAlias, cast

from rich.console import Console

from agentrl.core.registry import make_env
from agentrl.core.types import Float32, Group, Int32, Task
from agentrl.learner.base import PolicyLearner
from agentrl.learner.tabular import Table, TableEngine, TableLearner, Words
from agentrl.recipe.schema import Recipe
from agentrl.rollout.episode import LiveEpisode
from agentrl.rollout.player import Episode, Sampler
from agentrl.rollout.stage import Stage
from agentrl.samplers.eepo import EepoSampler
from agentrl.trainer.collect import Collector
from agentrl.trainer.display import Display
from agentrl.trainer.forgetting import Forgetting
from agentrl.trainer.improve import Improver
from agentrl.trainer.summary import attempt_scores, check_failures, rollout_metrics
from agentrl.workers.fleet import Fleet, Job


class Rehearsal(NamedTuple):
    """The score of each iteration (by default the mean return), and the tokens sampled by then.

    Failures are in no mean; where nothing else was played it is NaN, which reaches no level.
    `table` is the policy after the last update, `last` what was played before it.
    """

    returns: list[float]
    tokens: list[int]
    table: Table
    last: list[Group]

    def reached(self, level: float, *, window: int = 3) -> int | None:
        """Tokens after which `window` iterations in a row had `level` on average; None: never."""
        for end in range(window, len(self.returns) + 1):
            if sum(self.returns[end - window : end]) / window >= level:
                return self.tokens[end - 1]
        return None


Score: TypeAlias = Callable[[Sequence[Group]], float]
"""What the groups that an iteration played are worth."""


def mean_return(groups: Sequence[Group]) -> float:
    """Of all trajectories that are no failures; NaN without any."""
    scores = [score for group in groups for score in attempt_scores(group, "reward")]
    return sum(scores) / len(scores) if scores else math.nan


def best_return(groups: Sequence[Group]) -> float:
    """The mean over the groups of their best trajectory's return; NaN without any.

    With k trajectories in a group it is the expected best of k (pass@k, for rewards of 0 and 1).
    """
    best = [max(scores) for group in groups if (scores := attempt_scores(group, "reward"))]
    return sum(best) / len(best) if best else math.nan


def rehearse(
    recipe: Recipe,
    *,
    table: Table | None = None,
    until: float | None = None,
    score: Score = mean_return,
) -> Rehearsal:
    """Train a table by `recipe` in an environment that names its `words`, in this process.

    `table` goes on from there, and is changed; None begins with all words equally likely. It ends
    with the recipe's iterations or budget, or once the `score` has `reached` the level `until`.
    Everything that decides what is learned is the recipe's own: tasks, sampler, filters, credit,
    loss, updates. Models, engines, Ray and the recipe's precision are left out, and its lag: the
    engine's table is the learner's, which changes under what would be played meanwhile. Raises
    FailureRateError as a run does, where more episodes fail than `rollout.max_failure_rate`.
    """
    in_turn = recipe.train.model_copy(update={"max_lag": 0})
    recipe = recipe.model_copy(update={"train": in_turn})
    return asyncio.run(_rehearse(recipe, table, until, score))


async def _rehearse(
    recipe: Recipe, table: Table | None, until: float | None, score: Score
) -> Rehearsal:
    env = make_env(recipe.env.id, **recipe.env.args)
    words = Words(getattr(env, "words"))  # noqa: B009 - not of every Env
    table = table or Table(words.vocabulary_size)
    member = _Member(recipe, words, TableEngine(table))
    fleet = Fleet(
        lambda _: member, size=1, jobs_at_once=64, trajectories=recipe.sampler.trajectories
    )
    display = Display(plain=True, console=Console(quiet=True))
    # Of a learner all but its files.
    learner = cast(PolicyLearner, TableLearner(table, recipe.learner))
    forgetting = None
    if isinstance(recipe.sampler, EepoSampler):
        forgetting = Forgetting(recipe, learner=learner, push=_pushed)
    collector = Collector(
        recipe, fleet=fleet, tasks=env.tasks("train"), display=display, forgetting=forgetting
    )
    improver = Improver(recipe, learner)
    returns: list[float] = []
    tokens: list[int] = []
    last: list[Group] = []
    for iteration in range(recipe.train.iterations):
        collector.advance(iteration)
        if not collector.has_more:
            break
        sampled = await collector.sample(iteration)
        rate = rollout_metrics(sampled.played)["env/error_rate"]
        check_failures(recipe, iteration, sampled.played, rate)
        returns.append(score(sampled.played))
        last = sampled.played
        tokens.append(sampled.spent.generated_tokens + (tokens[-1] if tokens else 0))
        await improver.improve(sampled.groups)
        so_far = Rehearsal(returns, tokens, table, last)
        if until is not None and so_far.reached(until) is not None:
            break
    return Rehearsal(returns, tokens, table, last)


async def _pushed() -> None:
    """Engine and learner share the table: there is nothing to push."""


@dataclass(slots=True)
class _Member:
    """A rollout host without a model."""

    recipe: Recipe
    words: Words
    engine: TableEngine
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(64))

    async def start(self) -> None:
        """Nothing to load."""

    async def play(self, job: Job) -> Group:
        """Play one job."""
        recipe = self.recipe
        stage = Stage(
            make_env=lambda: make_env(recipe.env.id, **recipe.env.args),
            engine=self.engine,
            renderer=self.words,
            sampling=recipe.rollout.sampling,
            limits=recipe.rollout.limits,
            slots=self.slots,
        )

        async def start(task: Task, seed: int) -> Episode:
            return await LiveEpisode.start(stage, task, seed=seed, group_id=job.group_id)

        sampler: Sampler = recipe.sampler
        if job.half is not None and isinstance(sampler, EepoSampler):
            sampler = sampler.half(job.half)
        trees = await sampler.sample(job.task, start, seed=job.seed)
        return Group(job.group_id, job.task.id, tuple(trees))

    async def load(self, weights: Path, version: int) -> None:
        """Nothing to load: engine and learner share the table."""

    async def score(self, token_ids: Int32) -> Float32:
        """As the engine."""
        return await self.engine.score(token_ids)

    async def restart_engine(self) -> None:
        """Nothing can have died."""

    async def close(self) -> None:
        """Nothing to free."""
