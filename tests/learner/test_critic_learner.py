"""A critic beside the policy, under DeepSpeed: its updates are those of a plain loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_learner import SMOOTH, largest_difference, weights

from agentrl.core.errors import CheckpointError, ContractError, LearnerError
from agentrl.learner.batch import Row, RowValues
from agentrl.learner.learner import Learner
from agentrl.learner.settings import (
    CriticSettings,
    LearnerSettings,
    LoraSettings,
    OptimizerSettings,
)

pytestmark = pytest.mark.slow

OWN = CriticSettings(learning_rate=0.25, value_clip=0.4)
SHARED = CriticSettings(trunk="shared", learning_rate=0.25, coefficient=0.7)


def settings(**changes: object) -> LearnerSettings:
    values: dict[str, object] = {"optimizer": SMOOTH, "threads": 1, "device": "cpu", "critic": OWN}
    return LearnerSettings(**(values | changes))  # type: ignore[arg-type]


def with_targets(row: Row, seed: int) -> Row:
    """`row` with random targets; every third trained token teaches nothing."""
    rng, trained = np.random.default_rng(seed), row.weight > 0
    teaches = trained & (np.arange(len(row)) % 3 > 0)

    def column(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.where(where, values, 0).astype(np.float32)

    found = RowValues(
        weight=column(rng.uniform(0.5, 2, len(row)), teaches),
        target=column(rng.normal(size=len(row)), teaches),
        spread=column(rng.random(len(row)), teaches),
        old=column(rng.normal(0, 0.1, len(row)), teaches),
    )
    return replace(row, values=found)


@pytest.fixture
def taught(sequences: Sequence[Row]) -> list[Row]:
    return [with_targets(row, seed) for seed, row in enumerate(sequences)]


def plain_critic(folder: Path, rows: Sequence[Row], updates: int) -> list[np.ndarray]:
    """Values after updates by hand: a copy of the decoder, full precision, one row at a time."""
    from transformers import AutoModel

    trunk = AutoModel.from_pretrained(folder, attn_implementation="eager")
    head = torch.nn.Linear(trunk.config.hidden_size, 1)
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    adam = torch.optim.AdamW(
        [*trunk.parameters(), *head.parameters()], lr=0.25, eps=1.0, weight_decay=0.0
    )

    def values(row: Row) -> torch.Tensor:
        ids = torch.from_numpy(row.token_ids.astype(np.int64))
        return head(trunk(ids[None]).last_hidden_state[0])[:, 0]

    for _ in range(updates):
        adam.zero_grad()
        for row in rows:
            at = np.flatnonzero(row.weight)
            v = values(row)[at - 1]
            weight, target, _, old = (torch.from_numpy(one[at]) for one in row.values)
            bounded = torch.minimum(torch.maximum(v, old - 0.4), old + 0.4)
            worse = torch.maximum((v - target) ** 2, (bounded - target) ** 2)
            ((weight * worse).sum() / 2 / 20.0).backward()
        adam.step()
    with torch.no_grad():
        return [values(row).numpy()[np.flatnonzero(row.weight) - 1] for row in rows]


def known(learner: Learner, rows: Sequence[Row]) -> list[np.ndarray]:
    columns = learner.values(rows)
    for row, column in zip(rows, columns, strict=True):
        assert (column[row.weight == 0] == 0).all()
    return [column[row.weight > 0] for row, column in zip(rows, columns, strict=True)]


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_critics_updates_are_those_of_a_plain_loop_and_the_policys_are_as_without(
    zero_stage: int, model_folder: Path, taught: list[Row], tmp_path: Path
):
    learner = Learner(settings(zero_stage=zero_stage), model_folder)
    assert all((one == 0).all() for one in known(learner, taught))
    for _ in range(3):
        found = learner.update(taught, 20.0)
    expected = plain_critic(model_folder, taught, 3)
    assert max(np.abs(one).max() for one in expected) > 0.1
    for one, other in zip(known(learner, taught), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert found["train/value_gradient_norm"] > 0
    assert 0 < found["train/value_clip_fraction"] < 1
    alone = Learner(settings(zero_stage=zero_stage, critic=None), model_folder)
    for _ in range(3):
        alone.update(taught, 20.0)
    assert largest_difference(weights(learner, tmp_path), weights(alone, tmp_path)) == 0.0


def test_the_value_loss_is_the_mean_that_was_asked_for(model_folder: Path, taught: list[Row]):
    learner = Learner(settings(critic=CriticSettings()), model_folder)
    found = learner.update(taught, 20.0)
    # Before any training V is 0: 1/2 sum (W R^2 + spread) / 20.
    wanted = sum(
        (row.values.weight * row.values.target**2 + row.values.spread).sum() for row in taught
    )
    assert found["train/value_loss"] == pytest.approx(wanted / 40, rel=1e-5)
    assert "train/value_clip_fraction" not in found


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_a_head_on_the_policys_trunk_adds_its_loss_to_the_policys(
    zero_stage: int, model_folder: Path, taught: list[Row], tmp_path: Path
):
    """Against a plain loop over full logits with both losses in one."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, attn_implementation="eager")
    head = torch.nn.Linear(model.config.hidden_size, 1)
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    groups = [
        {"params": list(model.parameters()), "lr": 0.5},
        {"params": list(head.parameters()), "lr": 0.25},
    ]
    adam = torch.optim.AdamW(groups, eps=1.0, weight_decay=0.0)
    learner = Learner(settings(zero_stage=zero_stage, critic=SHARED), model_folder)
    for _ in range(3):
        adam.zero_grad()
        for row in taught:
            at = np.flatnonzero(row.weight)
            ids = torch.from_numpy(row.token_ids.astype(np.int64))
            seen = model(ids[None], output_hidden_states=True)
            logp = torch.log_softmax(seen.logits[0, at - 1], -1).gather(1, ids[at][:, None])[:, 0]
            columns = (row.positive, row.negative, row.behavior_logprobs, *row.values)
            gain, fall, behavior, weight, target, spread, _ = (
                torch.from_numpy(one[at]) for one in columns
            )
            ratio = torch.exp(logp - behavior)
            policy = -(gain * ratio.clamp(max=1.28) + fall * ratio.clamp(min=0.8)).sum()
            v = head(seen.hidden_states[-1][0])[at - 1, 0]
            value = (weight * (v - target) ** 2 + spread).sum() / 2
            ((policy + 0.7 * value) / 20.0).backward()
        adam.step()
        found = learner.update(taught, 20.0)
    expected = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    ours = weights(learner, tmp_path)
    assert not any("value" in name for name in ours)
    assert largest_difference(ours, {name: expected[name] for name in ours}) < 2e-5
    assert found["train/value_learning_rate"] == 0.25
    with torch.no_grad():
        ids = torch.from_numpy(taught[1].token_ids.astype(np.int64))
        hidden = model(ids[None], output_hidden_states=True).hidden_states[-1][0]
        plain = head(hidden)[np.flatnonzero(taught[1].weight) - 1, 0].numpy()
    np.testing.assert_allclose(known(learner, taught)[1], plain, atol=5e-5)


def test_while_the_critic_warms_up_the_policy_stays_and_then_starts_as_if_new(
    model_folder: Path, taught: list[Row], tmp_path: Path
):
    optimizer = OptimizerSettings(learning_rate=1e-2, warmup_steps=2)
    critic = CriticSettings(learning_rate=0.1, warmup_updates=2)
    learner = Learner(settings(optimizer=optimizer, critic=critic), model_folder)
    for number in (1, 2):
        found = learner.update(taught, 20.0)
        assert found["train/updates"] == number
        assert found["train/tokens"] == found["train/learning_rate"] == 0.0
        assert found["train/value_loss"] > 0
    assert (
        largest_difference(
            weights(learner, tmp_path), load_file(model_folder / "model.safetensors")
        )
        == 0.0
    )
    assert all(np.abs(one).max() > 0 for one in known(learner, taught))
    new = Learner(settings(optimizer=optimizer, critic=None), model_folder)
    for _ in range(2):
        assert (
            learner.update(taught, 20.0)["train/learning_rate"]
            == (new.update(taught, 20.0)["train/learning_rate"])
        )
    assert largest_difference(weights(learner, tmp_path), weights(new, tmp_path)) == 0.0


@pytest.mark.parametrize(
    "changes",
    [{}, {"zero_stage": 2}, {"critic": SHARED}, {"lora": LoraSettings(rank=2)}],
    ids=["own", "own zero 2", "shared", "own with adapters"],
)
def test_a_resumed_critic_continues_bit_for_bit(
    changes: dict[str, object], model_folder: Path, taught: list[Row], tmp_path: Path
):
    options = settings(optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=4), **changes)
    straight = Learner(options, model_folder)
    for _ in range(2):
        straight.update(taught, 20.0)
    straight.save(tmp_path / "saved")
    after = [straight.update(taught, 20.0) for _ in range(2)]
    resumed = Learner(options, model_folder)
    resumed.load(tmp_path / "saved")
    again = [resumed.update(taught, 20.0) for _ in range(2)]
    for one, other in zip(after, again, strict=True):
        one.pop("train/seconds"), other.pop("train/seconds")
        assert one == other
    for one, other in zip(known(straight, taught), known(resumed, taught), strict=True):
        assert one.tolist() == other.tolist()
    assert largest_difference(weights(straight, tmp_path), weights(resumed, tmp_path)) == 0.0


def test_what_does_not_fit_together_is_said(model_folder: Path, taught: list[Row], tmp_path: Path):
    without = Learner(settings(critic=None), model_folder)
    with pytest.raises(LearnerError, match=r"no critic: learner\.critic is not set"):
        without.values(taught)
    learner = Learner(settings(), model_folder)
    with pytest.raises(ContractError, match="row 0 says nothing of values"):
        learner.update([replace(taught[0], values=None)], 20.0)
    without.save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="saved with critic = None, this learner has 'own'"):
        learner.load(tmp_path / "saved")
    imitates = Learner(settings(), model_folder, objective="nll")
    assert imitates._critic is None and imitates.update(taught, 20.0)["train/loss"] > 0
