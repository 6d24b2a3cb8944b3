"""Entropy control by hand: which tokens, how much, and a bonus that comes and goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from agentrl.learner.batch import Row
from agentrl.learner.entropy_control import (
    AdaptiveEntropy,
    ClipCov,
    EntropyAware,
    EntropyBonus,
    KlCov,
    Seen,
    TopEntropy,
    covariances,
)
from agentrl.learner.loss_settings import (
    GvpoLoss,
    LogclipLoss,
    PpoLoss,
    SapoLoss,
    VespoLoss,
)
from agentrl.learner.settings import LearnerSettings, OptimizerSettings


def seen(gain, logprobs, *, weight=None, log_ratio=None, clipped=None) -> Seen:
    n = len(gain)
    return Seen(
        np.asarray(gain, float),
        np.ones(n) if weight is None else np.asarray(weight, float),
        np.asarray(logprobs, float),
        np.zeros(n) if log_ratio is None else np.asarray(log_ratio, float),
        np.zeros(n, bool) if clipped is None else np.asarray(clipped),
    )


def test_advantages_weigh_more_where_entropy_is_high() -> None:
    # Mean 2, std 1 (ddof = 1): z = -1, 0, 1.
    np.testing.assert_allclose(EntropyAware().factors(np.asarray([1.0, 2.0, 3.0])), [0.8, 1, 1.2])
    np.testing.assert_allclose(EntropyAware(alpha=2.0).factors(np.asarray([1.0, 2, 3])), [0, 1, 3])
    assert EntropyAware().factors(np.full(15, 0.98)).tolist() == [1.0] * 15
    assert EntropyAware().factors(np.asarray([0.3])).tolist() == [1.0]


def test_the_least_certain_share_trains() -> None:
    entropies = np.asarray([0.1, 0.5, 0.2, 0.4, 0.3])
    assert TopEntropy(fraction=0.2).factors(entropies).tolist() == [0, 1, 0, 0, 0]
    assert TopEntropy(fraction=0.5).factors(entropies).tolist() == [0, 1, 0, 1, 1]
    assert TopEntropy().factors(np.ones(4)).tolist() == [1, 1, 1, 1], "equals train alike"
    assert len(TopEntropy().factors(np.zeros(0))) == 0


def test_covariances_by_hand() -> None:
    # A = 1, -1, 3 (of two trajectories: 6 / 2), mean 1; log p = -1, -2, -6, mean -3.
    found = covariances(seen([1, -1, 6], [-1, -2, -6], weight=[1, 1, 2]))
    np.testing.assert_allclose(found, [0 * 2, -2 * 1, 2 * -3])


def test_tokens_between_the_bounds_are_left_out_by_chance_and_by_seed() -> None:
    # A = 1 and -1 in turn, mean 0; log p = 2 and -2 around its mean: cov = 2 everywhere.
    tokens = seen([1.0, -1.0] * 50, [1.0, -3.0] * 50)
    np.testing.assert_allclose(covariances(tokens), 2.0)
    control = ClipCov(fraction=0.1)
    first, again, other = (control.chosen(tokens, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.sum() == again.sum() == other.sum() == 10
    assert (first == again).all() and (first != other).any()
    assert ClipCov(fraction=1e-4).chosen(tokens, np.random.default_rng(0)).sum() == 1
    assert not ClipCov(low=2.5).chosen(tokens, np.random.default_rng(0)).any()
    clipped = tokens._replace(clipped=np.arange(100) != 7)
    assert np.flatnonzero(control.chosen(clipped, np.random.default_rng(0))).tolist() == [7]
    assert not control.chosen(seen([], []), np.random.default_rng(0)).any()


def test_the_highest_covariances_are_held_back() -> None:
    tokens = seen([1, -1, 6], [-1, -2, -6], weight=[1, 1, 2], log_ratio=[0.1, 0.0, -0.2])
    chosen = KlCov(fraction=0.4).chosen(tokens, np.random.default_rng(0))
    assert chosen.tolist() == [True, False, False]
    # x A - w sign(log ratio): e^0.1 - 1, -1 (nothing at 0), 6 e^-0.2 + 2.
    np.testing.assert_allclose(KlCov().gains(tokens), [np.exp(0.1) - 1, -1, 6 * np.exp(-0.2) + 2])


def test_what_holds_tokens_back_is_the_gradient_of_its_element() -> None:
    rng = np.random.default_rng(3)
    gain, behavior, logprobs = rng.normal(size=8), rng.normal(-2, 0.5, 8), rng.normal(-2, 0.5, 8)
    weight, control, h = rng.uniform(0.5, 2, 8), KlCov(coefficient=0.7), 1e-6

    def element(logp):
        return -np.exp(logp - behavior) * gain + 0.7 * weight * np.abs(logp - behavior)

    slope = (element(logprobs + h) - element(logprobs - h)) / (2 * h)
    found = control.gains(seen(gain, logprobs, weight=weight, log_ratio=logprobs - behavior))
    np.testing.assert_allclose(-found, slope, rtol=1e-7)


def test_the_bonus_comes_and_goes_by_hand() -> None:
    bonus = EntropyBonus(0.01, AdaptiveEntropy(target=0.2, step=0.005))
    assert bonus.current == 0.01
    assert bonus.after(0.1) == {"train/entropy_coefficient": 0.01}
    assert bonus.current == pytest.approx(0.015), "below the target: more"
    bonus.after(0.3)
    assert bonus.coefficient == pytest.approx(0.01) and bonus.current == 0.0, "above it: none"
    resumed = EntropyBonus(0.01, AdaptiveEntropy(target=0.2, step=0.005))
    resumed.restore(bonus.state())
    assert resumed.current == 0.0
    for one in (bonus, resumed):
        one.after(0.2)
        assert one.current == pytest.approx(0.01), "at the target it stays"
    for _ in range(9):
        bonus.after(5.0)
    assert bonus.coefficient == 0.0
    assert bonus.after(None) == {} and bonus.current == 0.0


def test_without_a_control_the_bonus_is_what_it_was() -> None:
    for control in (None, TopEntropy()):
        bonus = EntropyBonus(0.01, control)
        assert bonus.after(0.1) == {} and bonus.current == 0.01


def test_controls_that_could_do_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="set it above 0, to 0"):
        LearnerSettings(entropy_control=AdaptiveEntropy())
    for loss in (SapoLoss(), PpoLoss(level="turn")):
        with pytest.raises(ValidationError, match="takes the place of PPO's clip"):
            LearnerSettings(entropy_control=ClipCov(), loss=loss)


@pytest.mark.parametrize("control", [TopEntropy(), EntropyAware()])
def test_tokens_are_not_told_apart_by_a_loss_with_one_element_for_all(control) -> None:
    narrow = {"clip_low": 1e-3, "clip_high": 1e-3}
    for loss in (PpoLoss(level="sequence", **narrow), LogclipLoss(), GvpoLoss()):
        with pytest.raises(ValidationError, match="tells a trajectory's tokens apart"):
            LearnerSettings(entropy_control=control, loss=loss)
    for loss in (PpoLoss(level="sequence_token", **narrow), PpoLoss(level="turn"), VespoLoss()):
        assert LearnerSettings(entropy_control=control, loss=loss).entropy_control == control


@pytest.mark.slow
def test_the_learners_bonus_adapts_and_resumes(
    model_folder: Path, rows: Sequence[Row], tmp_path: Path
) -> None:
    from agentrl.learner.learner import Learner

    settings = LearnerSettings(
        loss=PpoLoss(entropy=0.5),
        entropy_control=AdaptiveEntropy(target=0.01, step=0.1),
        optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=0),
        threads=1,
        device="cpu",
    )
    learner = Learner(settings, model_folder)
    first = learner.update(rows, 20.0)
    assert first["train/entropy_coefficient"] == 0.5
    learner.save(tmp_path / "saved")
    straight = learner.update(rows, 20.0)
    assert straight["train/entropy_coefficient"] == 0.0, "the entropy is far above the target"
    resumed = Learner(settings, model_folder)
    resumed.load(tmp_path / "saved")
    again = resumed.update(rows, 20.0)
    straight.pop("train/seconds"), again.pop("train/seconds")
    assert again == straight
