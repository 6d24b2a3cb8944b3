"""Learner settings refuse what cannot work, saying why."""

import pytest
from pydantic import ValidationError

from agentrl.learner.loss_settings import PpoLoss
from agentrl.learner.settings import LearnerSettings, OptimizerSettings


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dual_clip": 1.28}, "dual_clip must be above 1 \\+ clip_high = 1.28, got 1.28"),
        ({"aggregation": "constant"}, "needs `constant`"),
        ({"constant": 100.0}, "only with aggregation 'constant'"),
        ({"clip_low": 1.5}, "less than or equal to 1"),
        ({"kl_estimator": "k1"}, "'k2', 'k3' or 'k3\\+'"),
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
