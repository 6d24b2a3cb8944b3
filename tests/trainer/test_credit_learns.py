"""Credit that compares turns or weighs returns finds the way through the door too."""

from __future__ import annotations

import pytest

from agentrl.recipe.schema import Recipe
from agentrl.trainer.rehearsal import rehearse

LEAVE_ONE_OUT = {"baseline": "leave_one_out", "scale": "none", "singleton": "raw"}

# Not Pass@k: it wants one of eight to be right, which chance sees to here.
CREDIT: dict[str, dict[str, object]] = {
    "batch scale": {"credit": {"type": "grpo", "scale": "batch"}},
    "reinforce++": {"credit": {"type": "reinforce_pp"}},
    "reinforce++ baseline": {"credit": {"type": "reinforce_pp", "baseline": "group"}},
    "process supervision": {"credit": {"type": "turn_grpo"}},
    "by turn index": {"credit": {"type": "turn_grpo", "baseline": "turn"}},
    "leave one out": {"credit": {"type": "turn_grpo", **LEAVE_ONE_OUT}},
    "mt_grpo": {"credit": {"type": "mt_grpo"}},
    "opo": {"credit": {"type": "opo"}},
    "otb": {"credit": {"type": "otb"}},
    "raft": {"credit": {"type": "reinforce", "worth": "one"}, "filters": [{"type": "best"}]},
    "reinforce-rej": {
        "credit": {"type": "reinforce", "baseline": 0.5},
        "filters": [{"type": "not_constant"}],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CREDIT)
def test_a_credit_reaches_the_optimum_within_its_budget(name: str) -> None:
    """The second of two actions decides, half are right by chance."""
    recipe = Recipe.model_validate(
        {
            "name": "rehearsal",
            "env": {"id": "demo/door", "needs_mat": False, "doors": 2},
            "policy": {"model": "none"},
            "sampler": {"type": "chain", "trajectories": 8},
            "rollout": {"sampling": {"max_tokens_per_turn": 1}},
            "learner": {"optimizer": {"learning_rate": 0.3, "warmup_steps": 0}},
            "train": {"iterations": 25, "tasks_per_iteration": 4, "updates_per_iteration": 2},
            **CREDIT[name],
        }
    )
    returns = rehearse(recipe).returns
    assert returns[0] < 0.75 and sum(returns[-5:]) / 5 > 0.95
