"""An iteration of two updates under a correction and with KL in the reward, on a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from agentrl.core.errors import ContractError
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
        self.weights: list[float | None] = []

    def update(self, rows, denominator, *, kl=None):
        self.updated.append(rows)
        self.weights.append(kl)
        return super().update(rows, denominator, kl=kl)

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
    look = SecondLook(said.learner, learner, seed=0)
    played = groups(logprob=-log(WORDS) + 1.0)
    table = TurnTable.of(played, with_tokens=True)
    penalised, metrics = look.penalise(played, table)
    assert learner.looks == ["reference"]
    # Each token is a nat above the reference: two at the shared turn, one at each answer.
    np.testing.assert_allclose(penalised.reward, [-0.2, 0.9, -0.1] * 2, rtol=1e-6)
    assert penalised.score is table.reward, "filters judge by what was earned"
    assert metrics == pytest.approx({"credit/reward_kl": 3.0, "credit/reward_kl_beta": 0.1})
    # 3 / 1 - 1 is cut to 0.2; four trajectories of a horizon of ten.
    assert look.in_reward.beta == pytest.approx(0.1 * (1 + 0.2 * 4 / 10))
    resumed = SecondLook(said.learner, learner, seed=0)
    resumed.restore(look.state())
    again = [one.penalise(played, table)[1]["credit/reward_kl_beta"] for one in (look, resumed)]
    assert again[0] == again[1] == pytest.approx(0.108)
    assert look.in_reward.beta == resumed.in_reward.beta


async def test_a_controller_moves_the_weight_of_the_penalty_in_the_loss() -> None:
    said = recipe(loss={"kl": 0.1, "kl_target": 1.0, "kl_horizon": 10})
    learner = Witness(said)
    improver, played = Improver(said, learner), groups(logprob=-log(WORDS) + 1.0)
    found = (await improver.improve(played)).metrics
    # Each token is a nat above the reference, three to a trajectory: as in the reward.
    assert found["train/loss_kl"] == pytest.approx(3.0)
    assert found["train/loss_kl_beta"] == 0.1 and "credit/reward_kl" not in found
    assert learner.looks == ["reference"] and learner.weights == [0.1, 0.1], "for both updates"
    np.testing.assert_allclose(columns(learner.updated[0], "positive"), [0.5, 0.5, 0.5, 0.0])
    resumed = Improver(said, learner)
    resumed.look.restore(improver.look.state())
    for one in (improver, resumed):
        found = (await one.improve(played)).metrics
        assert found["train/loss_kl_beta"] == pytest.approx(0.108)
    assert learner.weights[2:] == pytest.approx([0.108] * 4)


async def test_without_a_target_the_loss_says_what_its_penalty_weighs() -> None:
    said = recipe(loss={"kl": 0.1})
    learner = Witness(said)
    found = await Improver(said, learner).improve(groups())
    assert learner.weights == [None, None] and learner.looks == []
    assert "train/loss_kl_beta" not in found.metrics


@pytest.mark.parametrize("level", ["token", "turn"])
async def test_a_given_weight_is_that_of_the_settings(level: str) -> None:
    tables = []
    for kl, target in ((0.3, None), (0.3, 9.0)):
        loss = {"kl": kl, "level": level, "kl_target": target}
        said = recipe(loss=loss)
        learner = Witness(said)
        if target:
            # The settings' own weight is not read: the controller's is the same, 0.3.
            other = said.learner.loss.model_copy(update={"kl": 5.0})
            learner.settings = said.learner.model_copy(update={"loss": other})
        await Improver(said, learner).improve(groups())
        tables.append(learner.table.logits.detach().numpy())
    np.testing.assert_array_equal(tables[0], tables[1])


async def test_both_penalties_share_one_look() -> None:
    said = recipe(kl_in_reward={"beta": 0.1}, loss={"kl": 0.1, "kl_target": 1.0})
    learner = Witness(said)
    found = await Improver(said, learner).improve(groups())
    assert learner.looks == ["reference"]
    assert found.metrics["credit/reward_kl"] == found.metrics["train/loss_kl"]


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


def measured(entropies: Sequence[Sequence[float]], kind: str = "exact") -> list[Group]:
    """`groups`, their turns with these entropies."""
    played = groups()
    for group in played:
        turns = group.trees[0].turns
        turns[:] = [
            replace(turn, entropies=np.asarray(each, np.float32), entropy_kind=kind)
            for turn, each in zip(turns, entropies, strict=True)
        ]
    return played


async def test_advantages_are_weighed_by_the_entropies_of_their_tokens() -> None:
    said = recipe(entropy_control={"type": "aware", "alpha": 0.1})
    learner = Witness(said)
    found = await Improver(said, learner).improve(measured([[1.0, 3.0], [3.0], [1.0]]))
    # Over eight tokens, four of 1 and four of 3: std = sqrt(8 / 7), z = +-sqrt(7 / 8).
    low, high = 1 - 0.1 * np.sqrt(7 / 8), 1 + 0.1 * np.sqrt(7 / 8)
    for rows in learner.updated:
        expected = [0.5 * low, 0.5 * high, 0.5 * high, 0.0]
        np.testing.assert_allclose(columns(rows, "positive"), expected, rtol=1e-6)
        np.testing.assert_allclose(columns(rows, "weight"), [2.0, 2.0, 1.0, 1.0])
    assert learner.looks == [] and found.credit.positive.tolist() == [0.5, 0.5, 0.0] * 2


async def test_only_uncertain_tokens_train_and_what_is_left_is_corrected_first() -> None:
    said = recipe(
        entropy_control={"type": "top", "fraction": 0.5},
        correction={"type": "tis", "level": "sequence", "cap": 2.0},
    )
    learner = Witness(said)
    played = measured([[1.0, 3.0], [3.0], [1.0]])
    for group in played:
        turns = group.trees[0].turns
        at_start = np.float32(-log(WORDS) - log(1.2))
        turns[:] = [replace(t, logprobs=np.full_like(t.logprobs, at_start)) for t in turns]
    await Improver(said, learner).improve(played)
    for rows in learner.updated:
        # w = 1.2 a token, 1.2 ** 3 a trajectory.
        worth = 0.5 * 1.2**3
        np.testing.assert_allclose(columns(rows, "positive")[1:3], [worth, worth], rtol=1e-6)
        assert np.isnan(columns(rows, "positive")[0]), "certain tokens are not packed"


async def test_an_engine_without_entropies_is_named() -> None:
    said = recipe(entropy_control={"type": "top"})
    with pytest.raises(ContractError, match="the engine gave none for 8 of 8 trained tokens"):
        await Improver(said, Witness(said)).improve(measured([[1.0, 3.0], [3.0], [1.0]], "none"))


async def test_tokens_of_high_covariance_are_left_out_by_seed_and_update() -> None:
    said = recipe(entropy_control={"type": "clip_cov", "low": -9.0, "high": 9.0, "fraction": 0.3})
    runs = []
    for _ in range(2):
        learner = Witness(said)
        improver = Improver(said, learner)
        # Log-probabilities as they are at the start, so that nothing is clipped in the first.
        await improver.improve(groups(logprob=-log(WORDS)))
        assert learner.looks == ["policy"] * 2, "before each update"
        runs.append([columns(r, "positive") - columns(r, "negative") for r in learner.updated])
        assert improver.look.state()["updates"] == 2
    np.testing.assert_array_equal(runs[0], runs[1])
    whole = np.asarray([1.0, 1.0, 0.5, 0.5])
    for found in runs[0]:
        assert np.count_nonzero(found != whole) == 1 == np.count_nonzero(found == 0.0)


async def test_tokens_are_held_back_by_the_gradient_of_their_own_element() -> None:
    control = {"type": "kl_cov", "fraction": 0.99, "coefficient": 0.25}
    said = recipe(entropy_control=control, loss={"type": "ppo", "clip_high": 0.01})
    learner = Witness(said)
    await Improver(said, learner).improve(groups(logprob=-log(WORDS) - 0.1))
    # The log-ratio is 0.1 before the first update, beyond the clip. Three of the four tokens are
    # held back, all but the last of those with the lowest covariance: log p is the same for all,
    # so the covariances are 0 and the first three are taken.
    rows = learner.updated[0]
    gains = np.exp(0.1) * np.asarray([0.0, 0.0, 0.5]) - 0.25 * np.asarray([2.0, 2.0, 1.0])
    found = columns(rows, "positive") + columns(rows, "negative")
    np.testing.assert_allclose(found[:3], gains, rtol=1e-5)
    np.testing.assert_allclose(columns(rows, "behavior_logprobs")[:3], -log(WORDS), rtol=1e-6)
    np.testing.assert_allclose(columns(rows, "negative")[3], -0.5)
    np.testing.assert_allclose(columns(rows, "behavior_logprobs")[3], -log(WORDS) - 0.1, rtol=1e-6)


async def test_losses_of_two_passes_are_corrected_and_not_where_there_is_nothing_to_correct() -> (
    None
):
    loss = {"type": "ppo", "level": "sequence", "clip_low": 3.0e-4, "clip_high": 4.0e-4}
    at_start = float(torch.log_softmax(torch.zeros(WORDS, dtype=torch.float64), 0)[0])
    tables = []
    for correction, shift in ((None, 0.0), ({"type": "tis"}, 0.0), ({"type": "tis"}, log(1.5))):
        said = recipe(loss=loss, correction=correction)
        learner = Witness(said)
        await Improver(said, learner).improve(groups(logprob=at_start - shift))
        tables.append(learner.updated)
    for plain, same, more in zip(*tables, strict=True):
        for name in ("positive", "negative", "behavior_logprobs"):
            assert columns(plain, name).tobytes() == columns(same, name).tobytes()
        np.testing.assert_allclose(columns(more, "positive"), 1.5 * columns(plain, "positive"))
