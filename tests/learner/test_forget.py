"""EEPO's forgetting: one step away from what was sampled, gone without a trace afterwards."""

import numpy as np
import pytest
import torch

from agentrl.core.errors import LearnerError
from agentrl.learner.batch import Row, pack_rows
from agentrl.learner.forget import Forgotten, forget_terms
from agentrl.learner.learner import Learner
from agentrl.learner.settings import LearnerSettings, LoraSettings

SETTINGS = LearnerSettings(optimizer={"learning_rate": 1e-2, "warmup_steps": 0})


def weights(learner):
    return {name: one.clone() for name, one in learner._policy.named_parameters()}


def sampled(seed, *, count=3):
    rng = np.random.default_rng(seed)
    return [
        Row.sequence(rng.integers(0, 53, 12), weight=[0.0] * 4 + [1.0] * 8) for _ in range(count)
    ]


def test_a_step_pushes_down_what_is_likely_and_leaves_what_is_not():
    # One softmax over three words. d/dlogit of -log(1 - p_y) is p_y for y itself, so a step of
    # rate r moves its logit down by r p_y: nine times as far at p = 0.9 as at p = 0.1.
    moved = []
    for p in (0.9, 0.1):
        logits = torch.nn.Parameter(torch.tensor([p, (1 - p) / 2, (1 - p) / 2]).double().log())
        forgotten = Forgotten([logits])
        loss = forget_terms(torch.log_softmax(logits, -1)[:1]).sum()
        (gradient,) = forgotten.gradient(loss)
        assert gradient[0].item() == pytest.approx(p, rel=1e-6)
        before = logits.detach().clone()
        forgotten.step([gradient], rate=0.5)
        moved.append((before - logits.detach())[0].item())
        assert torch.softmax(logits, -1)[0] < p and torch.softmax(logits, -1)[1] > (1 - p) / 2
        forgotten.undo()
        assert torch.equal(logits.detach(), before)
    assert moved == pytest.approx([0.45, 0.05])


def test_a_certain_token_has_a_finite_loss_and_no_gradient():
    logprobs = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    loss = forget_terms(logprobs)
    loss.sum().backward()
    assert loss.item() == pytest.approx(-np.log(1e-6)) and logprobs.grad.item() == 0.0


def test_the_step_is_the_mean_over_tokens_however_the_rows_are_packed(model_folder):
    from transformers import AutoModelForCausalLM

    rows = sampled(0)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    total = 0.0
    for row in rows:
        ids = torch.from_numpy(row.token_ids.astype(np.int64))
        logits = model(input_ids=ids[None]).logits[0, 3:-1]
        p = torch.softmax(logits, -1).gather(1, ids[4:, None])
        total = total - torch.log(1 - p).sum()
    (total / 24).backward()
    expected = {name: one.detach() - 0.3 * one.grad for name, one in model.named_parameters()}
    for packed in (rows, pack_rows(rows, 40)):
        learner = Learner(SETTINGS, model_folder)
        learner.forget(packed, rate=0.3)
        for name, one in learner._policy.model.named_parameters():
            torch.testing.assert_close(one.detach(), expected[name], atol=2e-6, rtol=1e-4)
        learner.close()


def test_what_was_forgotten_leaves_no_trace_in_later_updates(model_folder, rows):
    plain, other = Learner(SETTINGS, model_folder), Learner(SETTINGS, model_folder)
    plain.update(rows, 10.0)
    other.update(rows, 10.0)
    before = weights(other)
    probe = [np.arange(9, dtype=np.int32)]
    scores = other.score(probe)[0]
    ours = sampled(1)
    learned = other.logprobs(ours)
    other.forget(ours, rate=0.1)
    assert any((one != before[name]).any() for name, one in weights(other).items())
    likelier = [
        (new - old)[row.weight > 0]
        for new, old, row in zip(other.logprobs(ours), learned, ours, strict=True)
    ]
    assert np.concatenate(likelier).mean() < 0
    assert (other.score(probe)[0] != scores).any()
    other.recall()
    for name, one in weights(other).items():
        assert torch.equal(one, before[name])
    assert plain.update(rows, 10.0)["train/loss"] == other.update(rows, 10.0)["train/loss"]
    for name, one in weights(plain).items():
        assert torch.equal(one, weights(other)[name])
    plain.close()
    other.close()


def test_a_policy_that_forgot_is_not_trained_saved_or_moved_again(model_folder, rows, tmp_path):
    learner = Learner(SETTINGS, model_folder)
    learner.recall()
    learner.forget(sampled(2), rate=0.1)
    with pytest.raises(LearnerError, match="cannot be trained"):
        learner.update(rows, 10.0)
    with pytest.raises(LearnerError, match="cannot be saved"):
        learner.save(tmp_path)
    with pytest.raises(LearnerError, match="cannot be moved again"):
        learner.forget(sampled(2), rate=0.1)
    learner.recall()
    assert learner.update(rows, 10.0)["train/updates"] == 1.0
    learner.close()


def test_only_adapters_move_where_only_they_are_trained(model_folder):
    learner = Learner(SETTINGS.model_copy(update={"lora": LoraSettings(rank=2)}), model_folder)
    before = weights(learner)
    learner.forget(sampled(3), rate=1.0)
    moved = {name for name, one in weights(learner).items() if (one != before[name]).any()}
    assert moved and all(".lora_" in name for name in moved)
    learner.recall()
    learner.close()


def test_without_a_sampled_token_nothing_moves(model_folder):
    learner = Learner(SETTINGS, model_folder)
    before = weights(learner)
    learner.forget([Row.sequence([1, 2, 3], weight=[0.0] * 3)], rate=1.0)
    assert all(torch.equal(one, before[name]) for name, one in weights(learner).items())
    learner.recall()
    learner.close()
