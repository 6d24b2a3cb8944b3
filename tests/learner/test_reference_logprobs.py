"""The reference's log-probabilities: those of the model as it was loaded, whatever is trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agentrl.core.errors import LearnerError
from agentrl.learner.batch import Row
from agentrl.learner.kl_reward import KlInReward
from agentrl.learner.learner import Learner
from agentrl.learner.settings import LearnerSettings, LoraSettings, OptimizerSettings

pytestmark = pytest.mark.slow

OPTIMIZER = OptimizerSettings(learning_rate=1e-2, warmup_steps=0)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["whole", "adapters"])
def test_the_reference_stays_where_the_policy_began(
    lora: LoraSettings | None, model_folder: Path, rows: Sequence[Row]
) -> None:
    settings = LearnerSettings(
        kl_in_reward=KlInReward(beta=0.1), optimizer=OPTIMIZER, lora=lora, threads=1, device="cpu"
    )
    learner = Learner(settings, model_folder, temperature=0.7)
    start = learner.logprobs(rows)
    for reference, policy in zip(learner.reference_logprobs(rows), start, strict=True):
        np.testing.assert_allclose(reference, policy, atol=1e-6)
    metrics = learner.update(rows, 20.0)
    assert "train/reference_kl" not in metrics, "the loss does not ask for it"
    for reference, policy in zip(learner.reference_logprobs(rows), start, strict=True):
        np.testing.assert_allclose(reference, policy, atol=1e-6)
    moved = learner.logprobs(rows)
    assert max(np.abs(a - b).max() for a, b in zip(moved, start, strict=True)) > 1e-3


def test_a_beta_of_zero_holds_no_reference(model_folder: Path, rows: Sequence[Row]) -> None:
    settings = LearnerSettings(kl_in_reward=KlInReward(beta=0.0), threads=1, device="cpu")
    learner = Learner(settings, model_folder)
    assert learner._reference is None
    with pytest.raises(LearnerError, match="neither learner"):
        learner.reference_logprobs(rows)
