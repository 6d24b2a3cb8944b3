"""The loop: sample, credit, batch, update, sync; evaluate and save every so often.

With `train.max_lag` 0 nothing is sampled during an update. Otherwise sampling never pauses: groups
are played up to so many versions of the policy ahead, new weights reach episodes in the middle, and
every token keeps the version and the log-probability of the weights that sampled it, against which
the loss takes its importance ratio (`docs/design/async.md`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentrl import store
from agentrl.core.errors import LearnerError, RecipeError, nearest
from agentrl.core.types import Group, Task
from agentrl.evals.statistics import Interval, mean_interval
from agentrl.learner.base import PolicyLearner
from agentrl.recipe.schema import Recipe
from agentrl.samplers.eepo import EepoSampler
from agentrl.trainer.checkpoint import Checkpoints
from agentrl.trainer.collect import Collector
from agentrl.trainer.display import Display
from agentrl.trainer.forgetting import Forgetting
from agentrl.trainer.improve import Improver
from agentrl.trainer.lag import lag_metrics
from agentrl.trainer.metrics import MetricsLog
from agentrl.trainer.play import eval_jobs, play
from agentrl.trainer.sampled import Sampled
from agentrl.trainer.summary import (
    Budget,
    check_failures,
    component_names,
    rollout_metrics,
    slowest_tasks,
    task_scores,
    turns_mean,
)
from agentrl.trainer.sync import WeightSync
from agentrl.workers.fleet import Fleet, FleetReport


class Evaluation(NamedTuple):
    """One evaluation: the score of every task (mean over its samples) and the interval."""

    iteration: int
    scores_P: list[float]
    interval: Interval


class Loop:
    """One training run over things that are already started; `train` runs it to the end."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        fleet: Fleet,
        learner: PolicyLearner,
        sync: WeightSync,
        tasks: Sequence[Task],
        eval_tasks: Sequence[Task],
        out: Path,
        display: Display,
        log: MetricsLog,
        checkpoints: Checkpoints,
        lost: Counter[str],
    ) -> None:
        self.recipe = recipe
        self.fleet = fleet
        self.learner = learner
        self.sync = sync
        forgetting = None
        if isinstance(recipe.sampler, EepoSampler):
            forgetting = Forgetting(recipe, learner=learner, push=lambda: sync.push(self.iteration))
        self.collector = Collector(
            recipe, fleet=fleet, tasks=tasks, display=display, forgetting=forgetting
        )
        self.improver = Improver(recipe, learner)
        self.eval_tasks = eval_tasks
        self.out = out
        self.display = display
        self.log = log
        self.checkpoints = checkpoints
        self.lost = lost
        self.iteration = 0
        self.spent = Budget()
        self.evaluations: list[Evaluation] = []

    async def train(self) -> list[Evaluation]:
        """Run the remaining iterations; returns all evaluations, first to last."""
        try:
            await self._train()
        except LearnerError:
            # The members stay for another learner, so they finish what they play.
            await self.collector.stream.drain()
            raise
        finally:
            await self.collector.stream.close()
        return self.evaluations

    async def _train(self) -> None:
        settings = self.recipe.train
        before = await self._push(self.iteration)
        if self.iteration == 0:
            if self.recipe.eval.at_start:
                before |= await self._evaluate()
            self.log.write(0, before)
        self.collector.advance(self.iteration)
        while not self._is_last():
            started = time.monotonic()
            metrics = await self._improve(await self.collector.sample(self.iteration))
            self.iteration += 1
            metrics |= await self._push(self.iteration)
            metrics |= self._failures()
            metrics["time/iteration_seconds"] = time.monotonic() - started
            self.display.iteration(self.iteration, settings.iterations, metrics)
            if self._evaluation_is_due():
                metrics |= await self._evaluate()
            self.log.write(self.iteration, metrics)
            if self._save_is_due():
                await self.save()
            self.collector.advance(self.iteration)

    def _is_last(self) -> bool:
        return self.iteration >= self.recipe.train.iterations or not self.collector.has_more

    def _save_is_due(self) -> bool:
        every = self.recipe.train.save_every
        return self._is_last() or bool(every and self.iteration % every == 0)

    def _evaluation_is_due(self) -> bool:
        settings = self.recipe.eval
        return (settings.at_end and self._is_last()) or bool(
            settings.every and self.iteration % settings.every == 0
        )

    # -- one iteration ------------------------------------------------------------------------

    async def _improve(self, sampled: Sampled) -> dict[str, float]:
        """Credit and update on `sampled`; what may be played ahead is played meanwhile."""
        recipe = self.recipe
        metrics = rollout_metrics(sampled.played) | lag_metrics(
            sampled.fresh, version=self.iteration, max_lag=recipe.train.max_lag
        )
        self.display.slowest(slowest_tasks(sampled.played))
        check_failures(recipe, self.iteration, sampled.played, metrics["env/error_rate"])
        improved = await self.improver.improve(sampled.groups)
        if not improved.metrics["credit/trained_turns"]:
            self.display.line("[yellow]no group has anything to train on: no update[/]")
        self.spent += sampled.spent
        metrics |= sampled.metrics
        metrics |= improved.metrics | {
            "rollout/groups_ahead": float(sampled.ahead),
            "time/rollout_seconds": sampled.seconds,
            "time/wait_seconds": sampled.waited,
            "rollout/tokens_per_second": sampled.tokens_per_second,
            "budget/trajectories": float(self.spent.trajectories),
            "budget/generated_tokens": float(self.spent.generated_tokens),
            "budget/prefilled_tokens": float(self.spent.prefilled_tokens),
            "budget/tool_calls": float(self.spent.tool_calls),
        }
        if recipe.log.trees and self.iteration % recipe.log.trees == 0:
            path = self.out / "trees" / f"iteration-{self.iteration + 1:06d}.parquet"
            await asyncio.to_thread(store.write, path, sampled.groups, credit=improved.credit)
        return metrics

    def _failures(self) -> dict[str, float]:
        report, self.fleet.report = self.fleet.report, FleetReport()
        if report.members_lost or report.engines_restarted:
            self.display.line(
                f"[yellow]replaced {report.members_lost} rollout workers and "
                f"{report.engines_restarted} engines; {report.episodes_lost} episodes were lost "
                "and played again[/]"
            )
        found = {
            "workers/members_lost": report.members_lost,
            "workers/engines_restarted": report.engines_restarted,
            "workers/episodes_lost": report.episodes_lost,
            "workers/learners_restarted": 0,
        }
        found = {name: count + self.lost.pop(name, 0) for name, count in found.items()}
        return {name: float(count) for name, count in found.items()}

    async def evaluate_at(self, iteration: int) -> dict[str, float]:
        """Push the learner's weights as version `iteration` and evaluate them."""
        self.iteration = iteration
        return await self._push(iteration) | await self._evaluate()

    # -- weights, evaluation, state -----------------------------------------------------------

    async def _push(self, version: int) -> dict[str, float]:
        started = time.monotonic()
        report = await self.sync.push(version)
        return {
            "policy/probe_difference_mean": report.mean,
            "policy/probe_difference_largest": report.largest,
            "time/sync_seconds": time.monotonic() - started,
        }

    async def _evaluate(self) -> dict[str, float]:
        settings, started = self.recipe.eval, time.monotonic()
        jobs = eval_jobs(self.recipe, self.eval_tasks)
        groups = await play(self.fleet, jobs, self.display, "evaluating")
        self._check_score(groups)
        scores = task_scores(groups, settings.score)
        known = [score for score in scores if score == score]
        failed = sum(t.stop_reason.is_failure for g in groups for t in g.trajectories())
        if failed or len(known) < len(scores):
            self.display.line(
                f"[yellow]{failed} episodes failed and {len(scores) - len(known)} tasks could not "
                "be played: they are not counted[/]"
            )
        # A task's samples are one number by now: the interval is clustered by task.
        interval = mean_interval(known)
        self.evaluations.append(Evaluation(self.iteration, scores, interval))
        self.display.evaluation(
            settings.score, interval, f"{len(known)} tasks of split {settings.split!r}"
        )
        if self.recipe.log.trees:
            path = self.out / "trees" / f"eval-{self.iteration:06d}.parquet"
            await asyncio.to_thread(store.write, path, groups)
        return {
            f"eval/{settings.score}_mean": interval.value,
            f"eval/{settings.score}_low": interval.low,
            f"eval/{settings.score}_high": interval.high,
            "eval/tasks": float(len(known)),
            "eval/failed_episodes": float(failed),
            "eval/turns_mean": turns_mean(groups),
            "time/eval_seconds": time.monotonic() - started,
        }

    def _check_score(self, groups: Sequence[Group]) -> None:
        """Refuse a score that no trajectory has: absent is not 0."""
        score = self.recipe.eval.score
        found = component_names(turn for g in groups for tree in g.trees for turn in tree.turns)
        if found and score != "reward" and score not in found:
            known = ["reward", *found]
            raise RecipeError(
                f"eval.score: no episode of {self.recipe.env.id!r} has a reward component "
                f"{score!r}.{nearest(score, known)} Known: {', '.join(known)}."
            )

    async def save(self) -> None:
        """Write a checkpoint of everything that the rest of the run depends on."""
        stream, write_groups = self.collector.snapshot()

        def write(folder: Path) -> None:
            self.learner.save(folder / "learner")
            write_groups(folder)

        state = self._state() | {"stream": stream}
        await asyncio.to_thread(self.checkpoints.save, self.iteration, state, write)

    def _state(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "recipe": self.recipe.model_dump(mode="json"),
            "spent": [
                self.spent.trajectories,
                self.spent.generated_tokens,
                self.spent.prefilled_tokens,
                self.spent.tool_calls,
            ],
            "evaluations": [[e.iteration, e.scores_P] for e in self.evaluations],
            "look": self.improver.look.state(),
        }

    def restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Continue from the checkpoint in `folder`, whose state `read_checkpoint` checked."""
        self.learner.load(folder / "learner")
        self.iteration = state["iteration"]
        self.improver.look.restore(state["look"])
        self.spent = Budget(*state["spent"])
        self.evaluations = [
            Evaluation(i, scores, mean_interval([s for s in scores if s == s]))
            for i, scores in state["evaluations"]
        ]
        self.collector.restore(
            folder, state["stream"], iteration=self.iteration, spent_on=self.spent
        )
