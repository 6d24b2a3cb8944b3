"""A rehearsal is a function of its recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from agentrl.core.env import Observation
from agentrl.core.errors import FailureRateError
from agentrl.core.types import ROOT, Group, StopReason, Task
from agentrl.envs.demo import DoorEnv
from agentrl.recipe.schema import Recipe
from agentrl.testing.trees import chains, tree_of
from agentrl.trainer.rehearsal import Rehearsal, Score, best_return, mean_return, rehearse


class StuckDoor(DoorEnv):
    """Red doors fail."""

    async def reset(self, task: Task, *, seed: int) -> Observation:
        if task.data["door"] == "red":
            raise RuntimeError("the door is stuck")
        return await super().reset(task, seed=seed)


class StuckDoors(StuckDoor):
    """There are only red doors."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [task for task in super().tasks(split) if task.data["door"] == "red"]


def rehearsed(
    env: str = "demo/door",
    *,
    rollout: dict[str, float] | None = None,
    score: Score = mean_return,
    **train: int,
) -> Rehearsal:
    recipe = Recipe.model_validate(
        {
            "name": "rehearsal",
            "env": {"id": env, "needs_mat": False},
            "policy": {"model": "none"},
            "sampler": {"type": "chain", "trajectories": 4},
            "rollout": {"sampling": {"max_tokens_per_turn": 1}, **(rollout or {})},
            "learner": {"optimizer": {"learning_rate": 1.0, "warmup_steps": 0}},
            "train": {"iterations": 8, "tasks_per_iteration": 4} | train,
        }
    )
    return rehearse(recipe, score=score)


def test_nothing_is_played_while_the_table_is_trained() -> None:
    """The engine's table is the learner's: what was played ahead would have no one version."""
    without, ahead = rehearsed(), rehearsed(max_lag=2)
    assert ahead.returns == without.returns and ahead.tokens == without.tokens


def test_failures_are_in_no_mean() -> None:
    found = rehearsed(f"{__name__}:StuckDoor", rollout={"retries": 0})
    played = [one for group in found.last for one in group.trajectories()]
    returns = [one.episode_return for one in played if not one.stop_reason.is_failure]
    assert len(returns) == 12 and sum(returns) > 0, "one door of four is stuck"
    assert found.returns[-1] == pytest.approx(sum(returns) / 12)


def test_more_failures_than_a_run_allows_end_a_rehearsal_too() -> None:
    with pytest.raises(FailureRateError, match=r"100 % of the episodes of iteration 1.*is stuck"):
        rehearsed(f"{__name__}:StuckDoors", rollout={"retries": 0})


def test_where_all_of_an_iteration_failed_there_is_no_return() -> None:
    allowed = {"retries": 0, "max_failure_rate": 1.0}
    found = rehearsed(f"{__name__}:StuckDoors", rollout=allowed, iterations=3)
    assert len(found.returns) == 3 and all(math.isnan(one) for one in found.returns)
    assert found.reached(0.0) is None


def test_groups_are_scored_by_their_mean_or_by_their_best() -> None:
    failed = Group("g", "t", (tree_of([ROOT], {}, stops={0: StopReason.ENV_ERROR}),))
    groups = [chains([0.0, 1.0, 0.0]), chains([0.0]), failed]
    assert mean_return(groups) == pytest.approx(1 / 4)
    assert best_return(groups) == pytest.approx((1 + 0) / 2)
    assert math.isnan(mean_return([failed])) and math.isnan(best_return([failed]))


def test_a_rehearsal_is_scored_as_it_is_told() -> None:
    """Of four answers by chance one is right more often than one alone is."""
    best = rehearsed(score=best_return, iterations=1, tasks_per_iteration=16)
    assert best.returns == [best_return(best.last)] and best.returns[0] > mean_return(best.last)
