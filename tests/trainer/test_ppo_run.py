"""PPO in a run: the critic learns what states are worth, whichever trunk it stands on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from trainer_fakes import VowelEnv

from agentrl.core.env import Observation, StepInfo, StepResult
from agentrl.core.types import Task
from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run

pytestmark = pytest.mark.slow


class LuckyEnv(VowelEnv):
    """Every second task, which says so, earns a point at the end whatever is said."""

    def tasks(self, split: str) -> Sequence[Task]:
        """Sixteen, by turns with and without luck."""
        words = ("for all of us", "some words to go on with")
        return [Task(f"{split}-{n}", {"word": words[n % 2], "luck": n % 2}) for n in range(16)]

    async def reset(self, task: Task, *, seed: int) -> Observation:
        """The word."""
        self._luck = float(task.data["luck"])
        return await super().reset(task, seed=seed)

    async def step(self, action: str) -> StepResult:
        """The next turn, or the point."""
        result = await super().step(action)
        earned = self._luck * result.terminated
        return result._replace(reward=earned, info=StepInfo(rewards={"luck": earned}))


PPO = [
    "env.id=test_ppo_run:LuckyEnv",
    "sampler={type: chain, trajectories: 2}",
    "credit={type: gae, lam: 1.0}",
    "learner.optimizer.learning_rate=1.0e-5",
    "train={iterations: 8, tasks_per_iteration: 16, updates_per_iteration: 4, save_every: 0}",
    "eval={at_start: false, at_end: false}",
    "log={tensorboard: false, trees: 0}",
]


CRITICS = {
    "{learning_rate: 3.0e-3}": 0.9,
    "{trunk: shared, coefficient: 0.5, learning_rate: 3.0e-2}": 0.4,
}
"""Each with what it explains at the end at least; seen were 0.99 and 0.59."""


@pytest.mark.parametrize("critic", CRITICS, ids=["own", "shared"])
def test_the_critics_explained_variance_rises(critic: str, recipe_file: Path, tmp_path: Path):
    run(load(recipe_file, [*PPO, f"learner.critic={critic}"]), out=tmp_path / "run", plain=True)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")[1:]
    explained = [row["credit/explained_variance"] for row in rows]
    assert abs(explained[0]) < 1e-9, "before any training all values are 0"
    assert sum(explained[-3:]) / 3 > CRITICS[critic]
    assert rows[-1]["train/value_loss"] < rows[0]["train/value_loss"]
    assert abs(rows[-1]["credit/value_mean"] - rows[-1]["credit/value_target_mean"]) < 0.2
