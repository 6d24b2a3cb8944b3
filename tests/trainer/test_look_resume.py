"""A run whose controllers move goes on after a stop as if there had been none."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrl.recipe.load import load
from agentrl.trainer.metrics import read_metrics
from agentrl.trainer.run import run

LOOKS = [
    "learner.kl_in_reward={beta: 0.1, target: 0.001, horizon: 40}",
    "learner.correction={type: tis}",
    "learner.loss={entropy: 0.01, kl: 0.01, kl_target: 0.001, kl_horizon: 40}",
    "train.updates_per_iteration=2",
    "eval={at_start: false, at_end: false}",
]


def numbers(out: Path) -> list[dict[str, float]]:
    """Every metric that is not a time."""
    return [
        {k: v for k, v in row.items() if "time" not in k and "second" not in k}
        for row in read_metrics(out / "metrics.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("control", ["{type: adaptive, target: 5.67}", "{type: kl_cov}"])
def test_controllers_go_on_where_they_stopped(
    recipe_file: Path, tmp_path: Path, control: str
) -> None:
    looks = [*LOOKS, f"learner.entropy_control={control}"]
    for name, stops in (("whole", (4,)), ("parts", (2, 4))):
        for number, iterations in enumerate(stops):
            recipe = load(recipe_file, [*looks, f"train.iterations={iterations}"])
            run(recipe, out=tmp_path / name, resume=number > 0, plain=True)
    whole, parts = numbers(tmp_path / "whole"), numbers(tmp_path / "parts")
    assert parts == whole
    betas = [row["credit/reward_kl_beta"] for row in whole[1:]]
    # Nothing has moved in the first iteration: its KL is 0, below the target. 12 trajectories.
    assert betas[0] == 0.1 and betas[1] == pytest.approx(0.1 * (1 - 0.2 * 12 / 40))
    assert len(set(betas)) == 4
    in_loss = [row["train/loss_kl_beta"] for row in whole[1:]]
    assert in_loss == pytest.approx([beta / 10 for beta in betas])
    assert whole[1]["correction/weight_mean"] == pytest.approx(1.0, abs=1e-4)
