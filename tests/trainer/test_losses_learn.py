"""Every loss finds the way through the door, with updates off the policy that sampled."""

from __future__ import annotations

import pytest

from agentrl.recipe.schema import Recipe
from agentrl.trainer.rehearsal import rehearse

LOSSES = {
    "ppo": {"type": "ppo"},
    "gspo": {"type": "ppo", "level": "sequence", "clip_low": 0.05, "clip_high": 0.08},
    "gspo-token": {"type": "ppo", "level": "sequence_token", "clip_low": 0.05, "clip_high": 0.08},
    "turn": {"type": "ppo", "level": "turn", "clip_low": 0.1, "clip_high": 0.1},
    "entropy-balanced": {"type": "ppo", "entropy_balanced": True},
    "cispo": {"type": "cispo"},
    "sapo": {"type": "sapo", "aggregation": "sequence_mean"},
    "gmpo": {"type": "logclip", "aggregation": "sequence_mean"},
    "dppo tv": {"type": "dppo"},
    "dppo kl": {"type": "dppo", "divergence": "kl"},
    "quadratic": {"type": "quadratic"},
    "gvpo": {"type": "gvpo"},
    "vespo": {"type": "vespo"},
    "reinforce": {"type": "reinforce", "aggregation": "sequence_sum"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reaches_the_optimum_within_its_budget(name: str) -> None:
    """The second of two actions decides, a quarter is right by chance; two updates an iteration."""
    recipe = Recipe.model_validate(
        {
            "name": "rehearsal",
            "env": {"id": "demo/door", "needs_mat": False},
            "policy": {"model": "none"},
            "sampler": {"type": "chain", "trajectories": 8},
            "rollout": {"sampling": {"max_tokens_per_turn": 1}},
            "credit": {"type": "grpo", "scale": "none" if name == "gvpo" else "std"},
            "learner": {
                "loss": LOSSES[name],
                "optimizer": {"learning_rate": 0.2, "warmup_steps": 0},
            },
            "train": {"iterations": 25, "tasks_per_iteration": 8, "updates_per_iteration": 2},
        }
    )
    returns = rehearse(recipe).returns
    assert sum(returns[:2]) / 2 < 0.5 and sum(returns[-5:]) / 5 > 0.95
