"""Learner settings refuse what cannot work, saying why."""

from typing import get_args

import pytest
from pydantic import ValidationError

from agentrl.learner.loss_settings import AnyLoss, DppoLoss, PpoLoss, SapoLoss
from agentrl.learner.settings import LearnerSettings, OptimizerSettings


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dual_clip": 1.28}, "dual_clip must be above 1 \\+ clip_high = 1.28, got 1.28"),
        ({"aggregation": "constant"}, "needs `constant`"),
        ({"constant": 100.0}, "only with aggregation 'constant'"),
        ({"clip_low": 1.5}, "less than or equal to 1"),
        ({"kl_estimator": "k4"}, "'k2', 'k3' or 'k3\\+'"),
        ({"level": "sequence"}, "0.28 stops nothing at level 'sequence'.*clip_low: 3.0e-4"),
        ({"level": "sequence_token", "clip_high": 0.05}, "0.2 stops nothing"),
        ({"level": "episode"}, "'token', 'turn', 'sequence' or 'sequence_token'"),
    ],
)
def test_a_loss_that_cannot_work_is_refused(values: dict[str, object], sentence: str):
    with pytest.raises(ValidationError, match=sentence):
        PpoLoss(**values)


def test_betas_outside_their_range_are_refused():
    with pytest.raises(ValidationError, match="betas"):
        OptimizerSettings(betas=(0.9, 1.0))


def test_an_unknown_zero_stage_is_refused():
    with pytest.raises(ValidationError, match="0, 1, 2 or 3"):
        LearnerSettings(zero_stage=4)


def test_the_learning_rate_warms_up_and_stays():
    settings = OptimizerSettings(learning_rate=1.0, warmup_steps=4)
    assert [settings.rate(update) for update in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert OptimizerSettings(learning_rate=0.5, warmup_steps=0).rate(0) == 0.5


def test_a_loss_without_a_type_is_ppo_and_others_are_named():
    assert LearnerSettings(loss={"clip_low": 0.1}).loss == PpoLoss(clip_low=0.1)
    assert LearnerSettings(loss={"type": "sapo"}).loss == SapoLoss()
    with pytest.raises(ValidationError, match="clip_low"):
        LearnerSettings(loss={"type": "sapo", "clip_low": 0.1})


def test_losses_say_what_they_need():
    two_pass = {"logclip", "gvpo", "vespo"}
    for cls in get_args(get_args(AnyLoss)[0]):
        loss = cls()
        assert loss.two_pass == (loss.type in two_pass)
        assert loss.trains_all == (loss.type in {"quadratic", "gvpo"})
        assert cls(kl=0.1).trains_all and cls(entropy=0.1).trains_all
    gspo = PpoLoss(level="sequence", clip_low=3e-4, clip_high=4e-4)
    assert gspo.two_pass and gspo.one_advantage
    assert not PpoLoss(level="turn").one_advantage
    assert DppoLoss().bounds == (0.15, 0.15)
    assert DppoLoss(divergence="kl", clip_high=0.1).bounds == (0.05, 0.1)
