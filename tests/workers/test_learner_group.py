"""Ranks as Ray actors train as one process does, and a dead rank is an error with a name."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentrl.core.errors import ContractError, LearnerError
from agentrl.learner.batch import Row, RowValues
from agentrl.learner.learner import Learner
from agentrl.learner.loss_settings import PpoLoss
from agentrl.learner.settings import CriticSettings, LearnerSettings, OptimizerSettings
from agentrl.workers.learner import LearnerGroup, deal_rows


def settings(**changes: object) -> LearnerSettings:
    values: dict[str, object] = {
        "optimizer": OptimizerSettings(learning_rate=1e-3, warmup_steps=2),
        "loss": PpoLoss(kl=0.1, entropy=0.01, dual_clip=3.0),
        "threads": 1,
    }
    return LearnerSettings(**(values | changes))  # type: ignore[arg-type]


def test_rows_are_dealt_by_tokens():
    rows = [Row.sequence([0] * n, weight=[0.0] * n) for n in (3, 9, 4, 5)]
    assert deal_rows(rows, 2) == [[1, 0], [3, 2]]
    assert deal_rows(rows, 3) == [[1], [3], [2, 0]]
    assert deal_rows(rows[:1], 3) == [[0], [], []]


@pytest.fixture(scope="module")
def cluster():
    import ray

    ray.init(
        "local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("policy")
    config = Qwen3Config(
        vocab_size=53,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        initializer_range=0.3,
        dtype="float32",
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def rows() -> list[Row]:
    rng = np.random.default_rng(7)
    found = []
    for length in (31, 26, 19, 12, 8):
        mask = (np.arange(length) >= 3).astype(np.float32)
        credit = rng.normal(size=length).astype(np.float32) * mask
        found.append(
            Row.sequence(
                rng.integers(0, 53, length),
                weight=mask,
                positive=np.maximum(credit, 0),
                negative=np.minimum(credit, 0),
                behavior_logprobs=mask * rng.normal(-4.0, 0.3, length),
            )
        )
    return found


def weights(learner: object, path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    learner.export(path)  # type: ignore[attr-defined]
    return load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 3])
def test_two_ranks_train_as_one_process_does(
    zero_stage: int, cluster: None, policy: Path, tmp_path: Path
):
    one = Learner(settings(), policy)
    # The second time with another weight of the penalty, as a controller says it.
    alone = [one.update(rows(), 40.0, kl=kl) for kl in (None, 2.0)]
    group = LearnerGroup(settings(ranks=2, zero_stage=zero_stage), policy)
    together = [group.update(rows(), 40.0, kl=kl) for kl in (None, 2.0)]
    for left, right in zip(alone, together, strict=True):
        left.pop("train/seconds"), right.pop("train/seconds")
        assert right == pytest.approx(left, rel=1e-4, abs=1e-6)
    expected = weights(one, tmp_path / "one.safetensors")
    found = weights(group, tmp_path / "two.safetensors")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    for left, right in zip(one.logprobs(rows()), group.logprobs(rows()), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)
    references = (one.reference_logprobs(rows()), group.reference_logprobs(rows()))
    for left, right in zip(*references, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    for left, right in zip(one.score([[1, 2, 3]]), group.score([[1, 2, 3]]), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)
    # More ranks than rows: one of them goes through the passes with nothing.
    assert group.update(rows()[:1], 9.0)["train/tokens"] == rows()[0].trained_tokens
    assert group.update([], 9.0)["train/tokens"] == 0.0
    group.close()
    group.close()


@pytest.mark.slow
def test_two_ranks_teach_a_critic_as_one_process_does(cluster: None, policy: Path):
    taught = []
    for row in rows():
        target = np.where(row.weight > 0, np.cos(row.token_ids), 0).astype(np.float32)
        nothing = np.zeros_like(target)
        taught.append(replace(row, values=RowValues(row.weight, target, nothing, nothing)))
    options = settings(critic=CriticSettings(learning_rate=1e-2))
    one, group = (
        Learner(options, policy),
        LearnerGroup(options.model_copy(update={"ranks": 2}), policy),
    )
    for _ in range(2):
        alone, together = one.update(taught, 40.0), group.update(taught, 40.0)
        alone.pop("train/seconds"), together.pop("train/seconds")
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-6)
    for left, right in zip(one.values(taught), group.values(taught), strict=True):
        assert np.abs(left).max() > 0
        np.testing.assert_allclose(left, right, atol=1e-4)
    # More ranks than rows: one of them goes through the passes with nothing to teach.
    assert group.update(taught[:1], 9.0)["train/value_loss"] > 0
    group.close()


@pytest.mark.slow
def test_a_killed_rank_is_named_and_the_group_starts_anew_from_a_checkpoint(
    cluster: None, policy: Path, tmp_path: Path
):
    options = settings(ranks=2, zero_stage=2)
    one = Learner(settings(), policy)
    group = LearnerGroup(options, policy)
    for learner in (one, group):
        learner.update(rows(), 40.0)
    group.save(tmp_path / "saved")
    alone, after = (learner.update(rows(), 40.0) for learner in (one, group))
    expected = weights(group, tmp_path / "straight.safetensors")
    for name, value in weights(one, tmp_path / "one.safetensors").items():
        np.testing.assert_allclose(expected[name], value, atol=1e-5, err_msg=name)
    assert after["train/loss"] == pytest.approx(alone["train/loss"], abs=1e-6)
    os.kill(group.pids[1], signal.SIGKILL)
    with pytest.raises(LearnerError, match=r"rank 1 died.*Start it anew from the last checkpoint"):
        group.update(rows(), 40.0)
    with pytest.raises(LearnerError, match="the learner is closed"):
        group.update(rows(), 40.0)
    anew = LearnerGroup(options, policy)
    anew.load(tmp_path / "saved")
    again = anew.update(rows(), 40.0)
    after.pop("train/seconds"), again.pop("train/seconds")
    assert again == after
    found = weights(anew, tmp_path / "resumed.safetensors")
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    # An error inside of a rank keeps its type and ends the group.
    with pytest.raises(ContractError, match="denominator must be positive"):
        anew.update(rows(), 0.0)
    assert not anew.actors
