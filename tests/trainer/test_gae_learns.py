"""Every form of GAE finds the way through the door, with a table for a critic."""

from __future__ import annotations

import pytest

from agentrl.recipe.schema import Recipe
from agentrl.trainer.rehearsal import rehearse

CREDIT = {
    "gae": {"type": "gae"},
    "gae to the end": {"type": "gae", "lam": 1.0},
    "turn_gae": {"type": "turn_gae"},
    "bilevel_gae": {"type": "bilevel_gae"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CREDIT)
def test_a_critics_credit_reaches_the_optimum_within_its_budget(name: str) -> None:
    """One trajectory of each task: nothing is compared but with what the critic expects."""
    recipe = Recipe.model_validate(
        {
            "name": "rehearsal",
            "env": {"id": "demo/door", "needs_mat": False},
            "policy": {"model": "none"},
            "sampler": {"type": "chain", "trajectories": 1},
            "rollout": {"sampling": {"max_tokens_per_turn": 1}},
            "credit": CREDIT[name],
            "learner": {
                "critic": {"learning_rate": 0.1},
                "optimizer": {"learning_rate": 0.2, "warmup_steps": 0},
            },
            "train": {"iterations": 25, "tasks_per_iteration": 64, "updates_per_iteration": 2},
        }
    )
    returns = rehearse(recipe).returns
    assert sum(returns[:2]) / 2 < 0.5 and sum(returns[-5:]) / 5 > 0.95
