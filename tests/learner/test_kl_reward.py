"""KL in the reward: what a token is charged, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from agentrl.core.types import ROOT, Group
from agentrl.credit import TurnTable
from agentrl.learner.kl_reward import KlInReward, charged, k1_of_tokens
from agentrl.testing.trees import tree_of


def test_each_token_is_charged_where_it_stands() -> None:
    tree = tree_of([ROOT, 0, 0], {1: 1.0}, tokens=[2, 0, 1])
    table = TurnTable.of([Group("g", "t", (tree,))], with_tokens=True)
    # -0.5 was sampled. -1.5 under the reference costs a nat, -0.25 gains a quarter of one.
    k1 = k1_of_tokens(table.logprobs, np.asarray([-1.5, -0.25, -2.5]))
    np.testing.assert_allclose(k1, [1.0, -0.25, 2.0])
    unknown = k1_of_tokens(table.logprobs, np.asarray([-1.5, np.nan, -2.5]))
    np.testing.assert_allclose(unknown, [1.0, 0.0, 2.0])
    found = charged(table, 0.1 * k1)
    np.testing.assert_allclose(found.reward, [-0.075, 1.0, -0.2])
    np.testing.assert_allclose(found.token_rewards, [-0.1, 0.025, -0.2])
    assert found.score is table.reward, "filters judge by what was earned"
    assert charged(replace(table, score=k1), k1).score is k1


def test_a_controller_that_could_never_move_is_refused() -> None:
    with pytest.raises(ValidationError, match="from 0 it never leaves 0"):
        KlInReward(beta=0.0, target=6.0)
