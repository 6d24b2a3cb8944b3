"""One rank under DeepSpeed: its updates are those of a plain loop, and it resumes bit for bit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_fakes import VOCABULARY, build_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from agentrl.core.errors import CheckpointError, ContractError, LearnerError
from agentrl.learner.batch import Row, join_rows, pack_rows
from agentrl.learner.learner import Learner
from agentrl.learner.loss_settings import PpoLoss
from agentrl.learner.settings import LearnerSettings, LoraSettings, OptimizerSettings

pytestmark = pytest.mark.slow

# With so large an eps a step of Adam is nearly proportional to the gradient; the usual one turns
# rounding noise in a gradient of zero into a whole step.
SMOOTH = OptimizerSettings(learning_rate=0.5, warmup_steps=0, eps=1.0, grad_clip=0.0)
LOSS = PpoLoss(dual_clip=3.0, kl=0.1, kl_estimator="k2", entropy=0.02)


def settings(**changes: object) -> LearnerSettings:
    values: dict[str, object] = {"optimizer": SMOOTH, "loss": LOSS, "threads": 1, "device": "cpu"}
    return LearnerSettings(**(values | changes))  # type: ignore[arg-type]


def weights(learner: Learner, folder: Path) -> dict[str, Tensor]:
    learner.export(folder / "weights.safetensors")
    found = load_file(folder / "weights.safetensors")
    (folder / "weights.safetensors").unlink()
    assert not list(folder.glob(".*.part"))
    return found


def largest_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


def plain_update(
    folder: Path, sequences: Sequence[Row], denominator: float, updates: int
) -> dict[str, Tensor]:
    """The same updates by full logits, one sequence at a time, the loss written anew."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    adam = torch.optim.AdamW(
        model.parameters(), lr=0.5, betas=(0.9, 0.999), eps=1.0, weight_decay=0.0
    )
    for _ in range(updates):
        adam.zero_grad()
        for row in sequences:
            trained = np.flatnonzero(row.weight)
            ids = torch.from_numpy(row.token_ids.astype(np.int64))
            log_p = torch.log_softmax(model(ids[None]).logits[0, trained - 1], -1)
            with torch.no_grad():
                ref_p = torch.log_softmax(reference(ids[None]).logits[0, trained - 1], -1)
            chosen = ids[trained][:, None]
            logp, ref = log_p.gather(1, chosen)[:, 0], ref_p.gather(1, chosen)[:, 0]
            entropy = torch.distributions.Categorical(logits=log_p).entropy()
            positive, negative, weight, behavior = (
                torch.from_numpy(column[trained])
                for column in (row.positive, row.negative, row.weight, row.behavior_logprobs)
            )
            ratio = torch.exp(logp - behavior)
            loss = -positive * torch.minimum(ratio, torch.tensor(1.28))
            loss -= negative * torch.minimum(
                torch.maximum(ratio, torch.tensor(0.8)), torch.tensor(3.0)
            )
            loss += weight * (0.1 * (logp - ref) ** 2 / 2 - 0.02 * entropy)
            (loss.sum() / denominator).backward()
        adam.step()
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def expected(model_folder: Path) -> dict[str, Tensor]:
    from learner_fakes import sequence

    rng = np.random.default_rng(7)
    rows = [sequence(length, rng) for length in (19, 31, 8, 26, 12, 5)]
    return plain_update(model_folder, rows, 20.0, 2)


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_updates_equal_a_plain_loop_over_full_logits(
    zero_stage: int,
    model_folder: Path,
    rows: Sequence[Row],
    expected: dict[str, Tensor],
    tmp_path: Path,
):
    learner = Learner(settings(zero_stage=zero_stage), model_folder)
    first = learner.update(rows, 20.0)
    assert first["train/reference_kl"] == pytest.approx(0.0, abs=1e-9)
    second = learner.update(rows, 20.0)
    assert second["train/reference_kl"] > 0
    assert first["train/gradient_norm"] > 0.1
    found = weights(learner, tmp_path)
    assert largest_difference(found, load_file(model_folder / "model.safetensors")) > 0.01
    assert largest_difference(found, expected) < 1e-5
    learner.close()
    learner.close()


def test_a_given_weight_of_the_penalty_stands_in_for_that_of_the_settings(
    model_folder: Path, rows: Sequence[Row], expected: dict[str, Tensor], tmp_path: Path
):
    learner = Learner(settings(loss=LOSS.model_copy(update={"kl": 5.0})), model_folder)
    for _ in range(2):
        learner.update(rows, 20.0, kl=LOSS.kl)
    assert largest_difference(weights(learner, tmp_path), expected) < 1e-5
    learner.update(rows, 20.0)
    learner.close()


def test_rows_may_come_in_any_order_packing_and_split(
    model_folder: Path, sequences: Sequence[Row], expected: dict[str, Tensor], tmp_path: Path
):
    rng = np.random.default_rng(3)

    def dirty(row: Row) -> Row:
        """Garbage wherever nothing is trained: it must not count."""
        untrained = row.weight == 0
        noise = rng.normal(size=len(row)).astype(np.float32) * untrained
        return replace(
            row,
            positive=row.positive + noise,
            negative=row.negative + noise,
            behavior_logprobs=row.behavior_logprobs + 100 * noise,
        )

    masked = Row.sequence([1, 2, 3], weight=[0.0] * 3)
    arrangements = {
        "reversed": pack_rows(sequences[::-1], 40),
        "alone": sequences,
        "one row": [join_rows(sequences)],
        "garbage": [dirty(row) for row in pack_rows(sequences, 64)],
        "a masked row": [masked, *pack_rows([*sequences, masked], 64)],
    }
    for name, rows in arrangements.items():
        learner = Learner(settings(), model_folder)
        for _ in range(2):
            metrics = learner.update(rows, 20.0)
        assert metrics["train/tokens"] == sum(row.trained_tokens for row in sequences)
        assert largest_difference(weights(learner, tmp_path), expected) < 1e-5, name


def test_an_update_without_a_trained_token_changes_nothing(
    model_folder: Path, rows: Sequence[Row], tmp_path: Path
):
    learner = Learner(settings(optimizer=OptimizerSettings(weight_decay=0.1)), model_folder)
    learner.update(rows, 20.0)
    before = weights(learner, tmp_path)
    for nothing in ([], [Row.sequence([1, 2, 3], weight=[0.0] * 3)]):
        found = learner.update(nothing, 20.0)
        assert found["train/loss"] == found["train/tokens"] == found["train/gradient_norm"] == 0.0
    assert learner.updates == 1
    assert largest_difference(weights(learner, tmp_path), before) == 0.0


@pytest.mark.parametrize(
    "changes",
    [{"zero_stage": 0}, {"zero_stage": 2}, {"zero_stage": 3}, {"lora": LoraSettings(rank=4)}],
    ids=["plain", "zero 2", "zero 3", "adapters"],
)
def test_a_resumed_learner_continues_bit_for_bit(
    changes: dict[str, object], model_folder: Path, rows: Sequence[Row], tmp_path: Path
):
    optimizer = OptimizerSettings(learning_rate=1e-2, warmup_steps=4, weight_decay=0.1)
    options = settings(optimizer=optimizer, **changes)
    straight = Learner(options, model_folder)
    for _ in range(2):
        straight.update(rows, 20.0)
    straight.save(tmp_path / "saved")
    after = [straight.update(rows, 20.0) for _ in range(2)]
    resumed = Learner(options, model_folder)
    resumed.load(tmp_path / "saved")
    again = [resumed.update(rows, 20.0) for _ in range(2)]
    for one, other in zip(after, again, strict=True):
        one.pop("train/seconds"), other.pop("train/seconds")
        assert one == other
    assert largest_difference(weights(straight, tmp_path), weights(resumed, tmp_path)) == 0.0
    assert resumed.updates == 4


def test_a_checkpoint_that_cannot_be_loaded_is_named(
    model_folder: Path, rows: Sequence[Row], tmp_path: Path
):
    learner = Learner(settings(), model_folder)
    with pytest.raises(CheckpointError, match=r"learner\.json: no readable learner state"):
        learner.load(tmp_path / "nowhere")
    learner.update(rows, 20.0)
    learner.save(tmp_path / "saved")
    other = Learner(settings(zero_stage=1), model_folder)
    with pytest.raises(CheckpointError, match="saved with zero_stage = 0, this learner has 1"):
        other.load(tmp_path / "saved")
    (state,) = (tmp_path / "saved" / "learner").glob("*model_states.pt")
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        learner.load(tmp_path / "saved")
    state.unlink()
    with pytest.raises(CheckpointError, match=r"damaged|missing"):
        learner.load(tmp_path / "saved")


def test_a_log_probability_that_is_not_finite_names_its_row(
    model_folder: Path, rows: Sequence[Row], tmp_path: Path
):
    tensors = load_file(model_folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][7] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((model_folder / "config.json").read_text())
    learner = Learner(settings(), tmp_path)
    good = Row.sequence([1, 2, 3], weight=[0, 0, 1])
    bad = Row.sequence([1, 7, 3, 4], weight=[0, 0, 0, 1])
    with pytest.raises(LearnerError, match=r"row 2: the log-probability of token 3 \(id 4\)"):
        learner.update([good, good, bad], 5.0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"zero_stage": 1}, {"zero_stage": 3}, {"zero_stage": 1, "dtype": "bfloat16"}],
    ids=["plain", "zero 1", "zero 3", "bfloat16"],
)
def test_a_gradient_that_is_not_finite_stops_the_run(
    changes: dict[str, object], model_folder: Path, rows: Sequence[Row]
):
    learner = Learner(settings(loss=PpoLoss(), **changes), model_folder)
    huge = Row.sequence(
        [1, 2, 3, 4],
        weight=[0, 1, 1, 1],
        negative=[0, -3e38, -3e38, -3e38],
        behavior_logprobs=[0, -9, -9, -9],
    )
    with pytest.raises(LearnerError, match="the gradient's norm is"):
        learner.update([huge], 1.0)


def test_a_row_that_cannot_be_trained_leaves_no_trace(
    model_folder: Path, rows: Sequence[Row], tmp_path: Path
):
    learner = Learner(settings(), model_folder)
    bad = Row.sequence([1, 2, 3], weight=[0, 1, 1], behavior_logprobs=[0, -1, float("nan")])
    with pytest.raises(ContractError, match=r"row 1: .*behaviour log-probability of token 2 is"):
        learner.update([rows[0], bad], 20.0)
    learner.update(rows, 20.0)
    clean = Learner(settings(), model_folder)
    clean.update(rows, 20.0)
    assert largest_difference(weights(learner, tmp_path), weights(clean, tmp_path)) == 0.0


def test_the_first_token_of_a_sequence_cannot_be_trained(model_folder: Path):
    learner = Learner(settings(), model_folder)
    row = join_rows([Row.sequence([1, 2], weight=[0, 1]), Row.sequence([3, 4], weight=[1, 1])])
    with pytest.raises(ContractError, match="row 0: token 2 is the first of its sequence"):
        learner.update([row], 5.0)
    with pytest.raises(ContractError, match="denominator must be positive, got 0"):
        learner.update([row], 0.0)


def test_log_probabilities_and_scores(model_folder: Path, rows: Sequence[Row]):
    from transformers import AutoModelForCausalLM

    learner = Learner(settings(), model_folder, temperature=0.7)
    plain = AutoModelForCausalLM.from_pretrained(model_folder)
    ids = torch.tensor([[5, 9, 2, 30, 11]])
    with torch.no_grad():
        logits = plain(ids).logits[0, :-1]
    targets = ids[0, 1:, None]
    at_one = torch.log_softmax(logits, -1).gather(1, targets)[:, 0]
    cooler = torch.log_softmax(logits / 0.7, -1).gather(1, targets)[:, 0]
    scores = learner.score([ids[0].tolist(), [3, 4], [3]])
    assert [len(score) for score in scores] == [4, 1, 0]
    np.testing.assert_allclose(scores[0], at_one, atol=1e-5)
    row = Row.sequence(ids[0].tolist(), weight=[0, 0.5, 1, 0, 2])
    (column,) = learner.logprobs([row])
    np.testing.assert_allclose(column[[1, 2, 4]], cooler[[0, 1, 3]], atol=1e-5)
    assert column[0] == column[3] == 0.0


def test_imitation_learns_its_rows_by_heart(model_folder: Path, rows: Sequence[Row]):
    options = settings(optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=2))
    learner = Learner(options, model_folder, objective="nll")
    weight = float(sum(row.weight.sum() for row in rows))
    first = learner.update(rows, weight)
    for _ in range(40):
        last = learner.update(rows, weight)
    assert first["train/loss"] > np.log(VOCABULARY) > 0.5 > last["train/loss"]


def test_without_a_kl_term_no_reference_is_held_or_reported(
    model_folder: Path, rows: Sequence[Row]
):
    learner = Learner(settings(loss=PpoLoss()), model_folder)
    assert learner._reference is None
    assert "train/reference_kl" not in learner.update(rows, 20.0)


def test_adapters_train_and_the_rest_stays(model_folder: Path, rows: Sequence[Row], tmp_path: Path):
    options = settings(
        lora=LoraSettings(rank=4), optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=0)
    )
    learner = Learner(options, model_folder)
    first, second = (learner.update(rows, 20.0) for _ in range(2))
    assert first["train/reference_kl"] == pytest.approx(0.0, abs=1e-9)
    assert second["train/reference_kl"] > 1e-6
    before, after = load_file(model_folder / "model.safetensors"), weights(learner, tmp_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        f"model.layers.{layer}.{name}.weight"
        for layer in range(2)
        for name in (
            *(f"self_attn.{side}_proj" for side in "qkvo"),
            *(f"mlp.{side}_proj" for side in ("gate", "up", "down")),
        )
    }


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_bfloat16_trains_near_float32(
    zero_stage: int, model_folder: Path, rows: Sequence[Row], tmp_path: Path
):
    reports = {}
    for dtype in ("float32", "bfloat16"):
        optimizer = OptimizerSettings(learning_rate=1e-3, warmup_steps=0, grad_clip=1.0)
        learner = Learner(
            settings(zero_stage=zero_stage, dtype=dtype, optimizer=optimizer), model_folder
        )
        reports[dtype] = [learner.update(rows, 20.0) for _ in range(4)]
        found = weights(learner, tmp_path)
        assert {tensor.dtype for tensor in found.values()} == {getattr(torch, dtype)}
    for wide, narrow in zip(reports["float32"], reports["bfloat16"], strict=True):
        assert narrow["train/loss"] == pytest.approx(wide["train/loss"], abs=0.1)
        assert narrow["train/gradient_norm"] == pytest.approx(wide["train/gradient_norm"], rel=0.1)
    assert reports["bfloat16"][-1]["train/loss"] < reports["bfloat16"][0]["train/loss"]


def test_tied_weights_train_and_leave_once(tied_folder: Path, rows: Sequence[Row], tmp_path: Path):
    found = {}
    for zero_stage in (0, 2, 3):
        learner = Learner(settings(zero_stage=zero_stage), tied_folder)
        learner.update(rows, 20.0)
        found[zero_stage] = weights(learner, tmp_path)
        assert "lm_head.weight" not in found[zero_stage]
    assert largest_difference(found[0], found[2]) < 1e-6
    assert largest_difference(found[0], found[3]) < 1e-6
    fresh = build_model(tied=True, seed=1)
    fresh.load_state_dict(found[0], strict=False)
    assert torch.equal(fresh.lm_head.weight, found[0]["model.embed_tokens.weight"])


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_learner_starts_where_somebody_has_destroyed_the_process_group(
    made_anew, model_folder, rows
):
    first = Learner(LearnerSettings(), model_folder)
    expected = first.logprobs(rows)
    first.close()
    torch.distributed.destroy_process_group()
    if made_anew:
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    second = Learner(LearnerSettings(), model_folder)
    for ours, theirs in zip(second.logprobs(rows), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    second.close()
