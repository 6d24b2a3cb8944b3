"""The weight of a KL penalty and its controller, by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from agentrl.learner.kl_control import KlController
from agentrl.learner.loss_settings import PpoLoss


def after(beta: float, kl: float, trajectories: int, *, target: float | None = 6.0) -> float:
    """The next weight, with a horizon of 1000 trajectories."""
    controller = KlController(beta, target=target, horizon=1000)
    controller.after(kl, trajectories)
    return controller.beta


def test_the_controller_by_hand() -> None:
    # 9 / 6 - 1 = 0.5 is cut to 0.2: 0.1 * (1 + 0.2 * 50 / 1000)
    assert after(0.1, 9.0, 50) == pytest.approx(0.1 * 1.01)
    # 6.6 / 6 - 1 = 0.1
    assert after(0.1, 6.6, 50) == pytest.approx(0.1 * 1.005)
    # 3 / 6 - 1 = -0.5 is cut to -0.2
    assert after(0.2, 3.0, 50) == pytest.approx(0.2 * 0.99)
    assert after(0.1, 6.0, 50) == 0.1
    assert after(0.1, 0.0, 9000) == pytest.approx(0.08), "never by more than a fifth"
    assert after(0.1, 99.0, 50, target=None) == 0.1, "fixed without a target"
    assert after(0.1, 0.0, 0) == 0.1, "nothing was sampled"


def test_a_controller_of_a_loss_without_a_penalty_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiplies kl, so from 0 it never leaves 0"):
        PpoLoss(kl_target=6.0)
    assert PpoLoss(kl=0.1, kl_target=6.0).kl_horizon == 10_000


def test_k1_in_the_loss_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValidationError, match=r"0 on average.*learner\.kl_in_reward"):
        PpoLoss(kl=0.1, kl_estimator="k1")
