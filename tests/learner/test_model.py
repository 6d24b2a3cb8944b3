"""Packed rows are read as separate sequences would be, and weights leave under hub names."""

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_fakes import VOCABULARY, build_model
from torch import Tensor

from agentrl.core.errors import EngineError, SetupError
from agentrl.engine import build as build_engine
from agentrl.engine.settings import TransformersSettings
from agentrl.learner.batch import Row, join_rows
from agentrl.learner.logprobs import ChunkedLoss
from agentrl.learner.model import PackedPolicy, load_policy, prepare_policy
from agentrl.learner.settings import LoraSettings


def read(policy: PackedPolicy, row: Row, *, gradient: bool = False) -> ChunkedLoss:
    trained = np.flatnonzero(row.weight)
    token_ids, positions = (
        torch.from_numpy(column.astype(np.int64)) for column in (row.token_ids, row.positions)
    )
    return policy(
        token_ids,
        positions,
        torch.from_numpy(trained),
        torch.from_numpy(row.previous[trained]),
        layout=row.layout,
        terms=(lambda _, logprobs, __: logprobs.square()) if gradient else None,
    )


def plain_logprobs(model: torch.nn.Module, row: Row) -> Tensor:
    """From full logits of one sequence, by transformers alone."""
    ids = torch.from_numpy(row.token_ids.astype(np.int64))
    logits = model(input_ids=ids[None]).logits[0]
    trained = np.flatnonzero(row.weight)
    return torch.log_softmax(logits, -1)[trained - 1, ids[trained]]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_packed_row_equals_transformers_on_each_sequence(grouped: bool, sequences: Sequence[Row]):
    plain = build_model(grouped=grouped)
    plain.set_attn_implementation("eager")
    policy = prepare_policy(build_model(grouped=grouped))
    with torch.no_grad():
        expected = torch.cat([plain_logprobs(plain, row) for row in sequences])
    found = read(policy, join_rows(sequences))
    torch.testing.assert_close(found.logprobs, expected, rtol=1e-5, atol=1e-5)
    assert found.entropies.min() >= 0
    assert found.entropies.max() <= np.log(VOCABULARY)


def gradients(policy: PackedPolicy, rows: Sequence[Row]) -> list[Tensor]:
    policy.zero_grad()
    for row in rows:
        read(policy, row, gradient=True).loss.backward()
    return [p.grad.clone() for p in policy.parameters() if p.grad is not None]


def test_gradients_of_a_packed_row_are_those_of_its_sequences(sequences: Sequence[Row]):
    policy = prepare_policy(build_model(grouped=True).double())
    apart = gradients(policy, sequences)
    packed = gradients(policy, [join_rows(sequences)])
    torch.testing.assert_close(packed, apart, rtol=1e-6, atol=1e-8)


def test_gradient_checkpointing_changes_nothing(sequences: Sequence[Row]):
    row = join_rows(sequences)
    plain = gradients(prepare_policy(build_model()), [row])
    policy = prepare_policy(build_model(), gradient_checkpointing=True)
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for layer in policy.model.model.layers:
        layer.mlp.register_forward_pre_hook(count)
    torch.testing.assert_close(gradients(policy, [row]), plain)
    assert calls == 2 * len(policy.model.model.layers)


def test_no_token_sees_its_neighbours(sequences: Sequence[Row]):
    policy = prepare_policy(build_model())
    before, one, after = sequences[:3]
    clean = read(policy, join_rows([before, one, after])).logprobs
    rng = np.random.default_rng(1)

    def garbage(row: Row) -> Row:
        return Row.sequence(rng.integers(0, VOCABULARY, len(row)), weight=row.weight)

    dirty = read(policy, join_rows([garbage(before), one, garbage(after)])).logprobs
    start, stop = before.trained_tokens, before.trained_tokens + one.trained_tokens
    assert torch.equal(dirty[start:stop], clean[start:stop])
    assert not torch.allclose(dirty[:start], clean[:start])


def test_later_tokens_do_not_change_earlier_ones(sequences: Sequence[Row]):
    policy = prepare_policy(build_model())
    row = sequences[1]
    ids = row.token_ids.copy()
    ids[20:] = (ids[20:] + 1) % VOCABULARY
    changed = read(policy, Row.sequence(ids, weight=row.weight)).logprobs
    earlier = int(np.count_nonzero(row.weight[:20]))
    assert torch.equal(read(policy, row).logprobs[:earlier], changed[:earlier])


def test_dropout_is_off():
    model = build_model()
    model.model.layers[0].mlp.act_fn = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Dropout(0.5))
    policy = prepare_policy(model)
    row = Row.sequence([1, 2, 3, 4], weight=[0, 1, 1, 1])
    assert torch.equal(read(policy, row).logprobs, read(policy, row).logprobs)


def perturb(policy: PackedPolicy) -> None:
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)


def test_merged_adapters_leave_under_hub_names(sequences: Sequence[Row]):
    policy = prepare_policy(build_model(), lora=LoraSettings(rank=4, alpha=8.0))
    assert all("lora_" in name for name, p in policy.named_parameters() if p.requires_grad)
    perturb(policy)
    weights = policy.hub_weights()
    merged = build_model(seed=1)
    assert set(weights) == set(merged.state_dict())
    merged.load_state_dict(weights)
    row = sequences[0]
    with torch.no_grad():
        expected = plain_logprobs(merged, row)
    torch.testing.assert_close(read(policy, row).logprobs, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, plain_logprobs(build_model(), row).detach(), atol=1e-2)


def test_without_adapters_the_policy_is_the_one_it_started_as(sequences: Sequence[Row]):
    row = sequences[0]
    policy = prepare_policy(build_model(), lora=LoraSettings(rank=4))
    base = read(prepare_policy(build_model()), row).logprobs
    assert torch.equal(read(policy, row).logprobs, base)
    perturb(policy)
    trainable = [name for name, p in policy.named_parameters() if p.requires_grad]
    with policy.without_adapters():
        assert torch.equal(read(policy, row).logprobs, base)
    assert not torch.allclose(read(policy, row).logprobs, base)
    assert [name for name, p in policy.named_parameters() if p.requires_grad] == trainable


def test_adapters_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = prepare_policy(build_model(), lora=LoraSettings(), seed=3)
    torch.manual_seed(6)
    second = prepare_policy(build_model(), lora=LoraSettings(), seed=3)
    other = prepare_policy(build_model(), lora=LoraSettings(), seed=4)
    for (name, p), (_, q), (_, r) in zip(
        *(policy.named_parameters() for policy in (first, second, other)), strict=True
    ):
        assert torch.equal(p, q)
        assert "lora_A" not in name or not torch.equal(p, r)


async def test_learner_and_engine_of_a_process_load_their_models_one_after_the_other(monkeypatch):
    # While one is loaded transformers keeps models from tying their weights, in all threads.
    loading, most = set(), []

    def load(*_, **__):
        loading.add(threading.get_ident())
        time.sleep(0.05)
        most.append(len(loading))
        loading.remove(threading.get_ident())
        raise OSError("no such model")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", load)
    found = await asyncio.gather(
        asyncio.to_thread(load_policy, "x"),
        build_engine(TransformersSettings(), "x").start(),
        asyncio.to_thread(load_policy, "x"),
        return_exceptions=True,
    )
    assert [type(one) for one in found] == [SetupError, EngineError, SetupError]
    assert most == [1, 1, 1]


def test_tied_weights_leave_once():
    policy = prepare_policy(build_model(tied=True))
    weights = policy.hub_weights()
    assert "model.embed_tokens.weight" in weights
    assert "lm_head.weight" not in weights
    fresh = build_model(tied=True, seed=1)
    missing, unexpected = fresh.load_state_dict(weights, strict=False)
    assert missing == ["lm_head.weight"] and not unexpected


def test_bfloat16_weights_give_log_probabilities_near_those_of_float32(
    model_folder: Path, sequences: Sequence[Row]
):
    row = join_rows(sequences)
    wide = read(load_policy(model_folder), row).logprobs
    narrow = read(load_policy(model_folder, dtype="bfloat16"), row).logprobs
    assert narrow.dtype == torch.float32
    assert (wide - narrow).abs().mean() < 0.05


def test_what_packed_rows_would_change_is_refused():
    sliding = build_model()
    sliding.config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(SetupError, match="layers of type sliding_attention"):
        prepare_policy(sliding)
    capped = build_model()
    capped.config.final_logit_softcapping = 30.0
    with pytest.raises(SetupError, match="final_logit_softcapping = 30"):
        prepare_policy(capped)
    biased = build_model()
    biased.lm_head = torch.nn.Linear(32, VOCABULARY, bias=True)
    with pytest.raises(SetupError, match="a bias in the output projection"):
        prepare_policy(biased)
    with pytest.raises(SetupError, match=r"names qproj.*it has down_proj, .*q_proj"):
        prepare_policy(build_model(), lora=LoraSettings(targets=("qproj",)))


def test_a_policy_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(SetupError, match=r"cannot be loaded.*config\.json"):
        load_policy(tmp_path)
