"""KL in the reward: what a turn is charged, and the controller's next beta, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from agentrl.core.types import ROOT, Group
from agentrl.credit import TurnTable
from agentrl.learner.kl_reward import KlInReward, k1_of_turns
from agentrl.testing.trees import tree_of


def test_a_turn_is_charged_for_its_own_tokens() -> None:
    tree = tree_of([ROOT, 0, 0], {1: 1.0}, tokens=[2, 0, 1])
    table = TurnTable.of([Group("g", "t", (tree,))], with_tokens=True)
    # -0.5 was sampled. -1.5 under the reference costs a nat, -0.25 gains a quarter of one.
    k1 = k1_of_turns(table, table.logprobs, np.asarray([-1.5, -0.25, -2.5]))
    np.testing.assert_allclose(k1, [0.75, 0.0, 2.0])
    unknown = k1_of_turns(table, table.logprobs, np.asarray([-1.5, np.nan, -2.5]))
    np.testing.assert_allclose(unknown, [1.0, 0.0, 2.0])


def test_the_controller_by_hand() -> None:
    settings = KlInReward(beta=0.1, target=6.0, horizon=1000)
    # 9 / 6 - 1 = 0.5 is cut to 0.2: 0.1 * (1 + 0.2 * 50 / 1000)
    assert settings.adapted(0.1, 9.0, 50) == pytest.approx(0.1 * 1.01)
    # 6.6 / 6 - 1 = 0.1
    assert settings.adapted(0.1, 6.6, 50) == pytest.approx(0.1 * 1.005)
    # 3 / 6 - 1 = -0.5 is cut to -0.2
    assert settings.adapted(0.2, 3.0, 50) == pytest.approx(0.2 * 0.99)
    assert settings.adapted(0.1, 6.0, 50) == 0.1
    assert settings.adapted(0.1, 0.0, 9000) == pytest.approx(0.08), "never by more than a fifth"
    assert KlInReward(beta=0.1).adapted(0.1, 99.0, 50) == 0.1, "fixed without a target"


def test_a_controller_that_could_never_move_is_refused() -> None:
    with pytest.raises(ValidationError, match="from 0 it never leaves 0"):
        KlInReward(beta=0.0, target=6.0)
