"""An iteration of two updates under a correction and with KL in the reward, on a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from agentrl.core.types import ROOT, Group
from agentrl.credit import TurnTable
from agentrl.learner.batch import Row, gather
from agentrl.learner.tabular import Table, TableLearner
from agentrl.recipe.schema import Recipe
from agentrl.testing.trees import tree_of
from agentrl.trainer.improve import Improver
from agentrl.trainer.second_look import SecondLook

WORDS = 40


class Witness(TableLearner):
    """Keeps what it is asked."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(Table(WORDS), recipe.learner)
        self.updated: list[Sequence[Row]] = []
        self.looks: list[str] = []

    def update(self, rows, denominator):
        self.updated.append(rows)
        return super().update(rows, denominator)

    def logprobs(self, rows):
        self.looks.append("policy")
        return super().logprobs(rows)

    def reference_logprobs(self, rows):
        self.looks.append("reference")
        return super().reference_logprobs(rows)


def recipe(**learner) -> Recipe:
    optimizer = {"learning_rate": 0.1, "warmup_steps": 0}
    return Recipe.model_validate(
        {
            "name": "x",
            "env": {"id": "demo/guess"},
            "policy": {"model": "m"},
            "credit": {"type": "grpo", "scale": "none"},
            "learner": {"optimizer": optimizer, **learner},
            "train": {"tasks_per_iteration": 2, "updates_per_iteration": 2},
        }
    )


def groups(*, logprob: float | None = None) -> list[Group]:
    """Two groups of one shared turn and two answers each, the first of them right.

    `logprob` is the behaviour policy's for each token; -0.5 by default.
    """
    found = []
    for name in ("a", "b"):
        tree = tree_of([ROOT, 0, 0], {1: 1.0}, tokens=[2, 1, 1], task_id=name)
        if logprob is not None:
            tree.turns[:] = [
                replace(turn, logprobs=np.full(len(turn.action_ids), logprob, np.float32))
                for turn in tree.turns
            ]
        found.append(Group(name, name, (tree,)))
    return found


def columns(rows: Sequence[Row], name: str) -> np.ndarray:
    return gather(rows, [getattr(row, name) for row in rows], 4)


async def test_ratios_of_both_updates_are_against_the_start_of_the_iteration() -> None:
    said = recipe(correction={"type": "tis", "cap": 2.0})
    learner = Witness(said)
    found = await Improver(said, learner).improve(groups(logprob=-log(WORDS) - log(1.5)))
    assert learner.looks == ["policy"], "once, before the first update"
    assert len(learner.updated) == 2
    for rows in learner.updated:
        # Before any update every word has 1 / WORDS: w = 1.5 for all tokens, A = 1/2 and -1/2.
        np.testing.assert_allclose(columns(rows, "behavior_logprobs"), -log(WORDS), rtol=1e-6)
        np.testing.assert_allclose(columns(rows, "positive"), [0.75, 0.75, 0.75, 0.0], rtol=1e-6)
        np.testing.assert_allclose(columns(rows, "negative"), [-0.75, -0.75, 0.0, -0.75], rtol=1e-6)
    assert found.metrics["correction/weight_mean"] == pytest.approx(1.5)
    assert found.metrics["correction/cut_fraction"] == 0.0
    assert found.credit.positive.tolist() == [0.5, 0.5, 0.0] * 2, "what is stored is the credit"


async def test_without_a_correction_nobody_looks_and_the_ratio_is_the_behaviours() -> None:
    said = recipe()
    learner = Witness(said)
    await Improver(said, learner).improve(groups())
    assert learner.looks == []
    for rows in learner.updated:
        np.testing.assert_allclose(columns(rows, "behavior_logprobs"), -0.5)


async def test_a_mask_alone_leaves_the_ratio_where_it_was() -> None:
    said = recipe(correction={"type": "off_policy_mask", "delta": 0.1})
    learner = Witness(said)
    # Behaviour -0.5, old -ln 40: the wrong answer's trajectory was left behind, the right one's
    # too, but it did well.
    await Improver(said, learner).improve(groups())
    for rows in learner.updated:
        np.testing.assert_allclose(columns(rows, "behavior_logprobs")[:3], -0.5)
        np.testing.assert_allclose(columns(rows, "positive")[:3], 0.5)
        np.testing.assert_allclose(columns(rows, "negative")[:3], 0.0)
        assert np.isnan(columns(rows, "positive")[3]), "nothing of it trains, so it is not packed"


@pytest.mark.parametrize("kind", ["tis", "icepop", "sequence_mask", "geometric", "off_policy_mask"])
async def test_where_engine_and_learner_agree_a_correction_changes_no_bit(kind: str) -> None:
    at_start = float(torch.log_softmax(torch.zeros(WORDS, dtype=torch.float64), 0)[0])
    tables = []
    for correction in (None, {"type": kind}):
        said = recipe(correction=correction)
        learner = Witness(said)
        await Improver(said, learner).improve(groups(logprob=at_start))
        tables.append(learner.table.logits.detach().numpy().tobytes())
    assert tables[0] == tables[1]


async def test_the_reference_is_charged_before_credit_is_assigned() -> None:
    said = recipe(kl_in_reward={"beta": 0.1, "target": 1.0, "horizon": 10})
    learner = Witness(said)
    look = SecondLook(said.learner, learner)
    played = groups(logprob=-log(WORDS) + 1.0)
    table = TurnTable.of(played, with_tokens=True)
    penalised, metrics = look.penalise(played, table)
    assert learner.looks == ["reference"]
    # Each token is a nat above the reference: two at the shared turn, one at each answer.
    np.testing.assert_allclose(penalised.reward, [-0.2, 0.9, -0.1] * 2, rtol=1e-6)
    assert penalised.score is table.reward, "filters judge by what was earned"
    assert metrics == pytest.approx({"credit/reward_kl": 3.0, "credit/reward_kl_beta": 0.1})
    # 3 / 1 - 1 is cut to 0.2; four trajectories of a horizon of ten.
    assert look.beta == pytest.approx(0.1 * (1 + 0.2 * 4 / 10))
    resumed = SecondLook(said.learner, learner)
    resumed.restore(look.state())
    again = [one.penalise(played, table)[1]["credit/reward_kl_beta"] for one in (look, resumed)]
    assert again[0] == again[1] == pytest.approx(0.108)
    assert look.beta == resumed.beta


async def test_the_penalty_moves_the_advantages() -> None:
    said = recipe(kl_in_reward={"beta": 0.25})
    learner = Witness(said)
    played = groups(logprob=-log(WORDS))
    # The right answer was sampled two nats above the reference: it is worth 1 - 0.25 * 2.
    for group in played:
        turn = group.trees[0].turns[1]
        group.trees[0].turns[1] = replace(turn, logprobs=turn.logprobs + np.float32(2.0))
    found = await Improver(said, learner).improve(played)
    np.testing.assert_allclose(found.credit.positive, [0.25, 0.25, 0.0] * 2, rtol=1e-6)
    np.testing.assert_allclose(found.credit.negative, [-0.25, 0.0, -0.25] * 2, rtol=1e-6)
    assert learner.looks == ["reference"]


async def test_a_beta_of_zero_asks_for_no_reference() -> None:
    said = recipe(kl_in_reward={"beta": 0.0})
    learner = Witness(said)
    await Improver(said, learner).improve(groups())
    assert learner.looks == [] and not said.learner.needs_reference
