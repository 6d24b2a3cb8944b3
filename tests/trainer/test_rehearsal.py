"""A rehearsal is a function of its recipe."""

from __future__ import annotations

from agentrl.recipe.schema import Recipe
from agentrl.trainer.rehearsal import Rehearsal, rehearse


def rehearsed(**train: int) -> Rehearsal:
    recipe = Recipe.model_validate(
        {
            "name": "rehearsal",
            "env": {"id": "demo/door", "needs_mat": False},
            "policy": {"model": "none"},
            "sampler": {"type": "chain", "trajectories": 4},
            "rollout": {"sampling": {"max_tokens_per_turn": 1}},
            "learner": {"optimizer": {"learning_rate": 1.0, "warmup_steps": 0}},
            "train": {"iterations": 8, "tasks_per_iteration": 4} | train,
        }
    )
    return rehearse(recipe)


def test_nothing_is_played_while_the_table_is_trained() -> None:
    """The engine's table is the learner's: what was played ahead would have no one version."""
    without, ahead = rehearsed(), rehearsed(max_lag=2)
    assert ahead.returns == without.returns and ahead.tokens == without.tokens
