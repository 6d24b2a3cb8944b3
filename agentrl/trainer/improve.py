"""What an iteration does with its groups: credit, batches and the learner's updates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from agentrl.core.types import Group
from agentrl.credit.otb import OtbCredit
from agentrl.credit.table import Credit, TurnTable
from agentrl.credit.values import ValueBaseline
from agentrl.filters import filter_metrics
from agentrl.learner.base import PolicyLearner
from agentrl.recipe.schema import Recipe
from agentrl.trainer.batches import (
    TrainingStep,
    comparison_metrics,
    credit_metrics,
    credit_of,
    training_steps,
)
from agentrl.trainer.second_look import SecondLook, against
from agentrl.trainer.two_pass import two_pass_update
from agentrl.trainer.values import teach, valued


class Improved(NamedTuple):
    """The credit of every turn of the groups, in their order, and the iteration's metrics."""

    credit: Credit
    metrics: dict[str, float]


class Improver:
    """Trains the policy on groups as the recipe says."""

    def __init__(self, recipe: Recipe, learner: PolicyLearner) -> None:
        self.recipe = recipe
        self.learner = learner
        self.look = SecondLook(recipe.learner, learner, seed=recipe.seed)

    async def improve(self, groups: Sequence[Group]) -> Improved:
        """Credit and update on `groups`; without anything to train there is no update."""
        started = time.monotonic()
        recipe, loss = self.recipe, self.recipe.learner.loss
        table = await self._table(groups)
        table, looked = await asyncio.to_thread(self.look.penalise, groups, table)
        credited = credit_of(groups, recipe.credit, loss, recipe.filters, table=table)
        trained = await asyncio.to_thread(self.look.correct, groups, credited, recipe.credit)
        steps = training_steps(
            groups,
            trained.credited,
            loss,
            pack_tokens=recipe.learner.pack_tokens,
            updates=recipe.train.updates_per_iteration,
            every_token=self.look.before_updates,
        )
        if trained.old is not None:
            steps = against(steps, trained.old, table, groups)
        if isinstance(recipe.credit, ValueBaseline):
            steps, taught = teach(steps, credited, recipe.credit, groups)
            looked |= taught
        metrics = (
            looked
            | trained.metrics
            | credit_metrics(steps)
            | comparison_metrics(credited.assigned.leaves)
            | dict(credited.assigned.credit.metrics)
        )
        metrics |= filter_metrics(recipe.filters, credited.assigned.taken_out)
        for number, step in enumerate(steps):
            found = await self._update(step)
            # The first update is still on the behaviour policy: only its differences are the
            # engine's, those of later ones are also the updates'.
            metrics |= {k: v for k, v in found.items() if number == 0 or "/behavior_" not in k}
        metrics["time/update_seconds"] = time.monotonic() - started
        return Improved(credited.assigned.credit.at_turns(credited.table), metrics)

    async def _table(self, groups: Sequence[Group]) -> TurnTable:
        credit, settings = self.recipe.credit, self.recipe.learner
        table = TurnTable.of(
            groups,
            with_tokens=credit.needs_tokens or self.look.needs_tokens,
            score=self.recipe.eval.score,
        )
        if isinstance(credit, OtbCredit):
            table = await asyncio.to_thread(self.look.weigh, groups, table)
        if settings.critic is None:
            return table
        size = settings.pack_tokens
        return await asyncio.to_thread(valued, groups, table, self.learner, pack_tokens=size)

    async def _update(self, step: TrainingStep) -> dict[str, float]:
        loss = self.recipe.learner.loss
        step = await asyncio.to_thread(self.look.held_back, step)
        if loss.two_pass:
            grain = self.recipe.credit.grain
            return await asyncio.to_thread(
                two_pass_update, self.learner, step, loss, grain, kl=self.look.loss_kl
            )
        rows, denominator = step.batch.rows, step.batch.denominator
        return await asyncio.to_thread(self.learner.update, rows, denominator, kl=self.look.loss_kl)
