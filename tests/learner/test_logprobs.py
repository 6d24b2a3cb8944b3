"""Chunked log-probabilities equal those of full logits, and so do their gradients."""

import pytest
import torch
from torch import Tensor

from agentrl.learner import logprobs as module
from agentrl.learner.logprobs import chunked_logprobs, chunked_loss


def problem(*, n: int = 13, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(17, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(17, (n,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def curved(block: slice, logprobs: Tensor, entropies: Tensor) -> Tensor:
    """A loss that is linear in neither, different for each token."""
    factor = torch.arange(100, dtype=logprobs.dtype)[block] + 1
    return (0.3 * factor * logprobs).sin() - factor * entropies.square()


def full(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, ...]:
    log_p = torch.log_softmax(hidden @ weight.T / temperature, -1)
    return log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


@pytest.fixture(params=["one chunk", "small chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "small chunks":
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", 17 * 5)
        monkeypatch.setattr(module, "CPU_BLOCK_ELEMENTS", 17 * 2)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_equal_those_of_full_logits(temperature: float):
    hidden, weight, targets = problem()
    logprobs, entropies = full(hidden, weight, targets, temperature)
    expected = 0.25 * curved(slice(0, 13), logprobs, entropies).sum()
    expected_gradients = torch.autograd.grad(3 * expected, (hidden, weight))
    loss = chunked_loss(
        hidden, weight, targets, curved, temperature=temperature, scale=0.25, entropy_gradient=True
    )
    gradients = torch.autograd.grad(3 * loss.loss, (hidden, weight))
    torch.testing.assert_close(loss.loss, expected)
    torch.testing.assert_close(loss.logprobs, logprobs.detach())
    torch.testing.assert_close(loss.entropies, entropies.detach())
    torch.testing.assert_close(gradients, expected_gradients)
    alone = chunked_logprobs(hidden, weight, targets, temperature=temperature)
    torch.testing.assert_close(alone, (logprobs.detach(), entropies.detach()))


@pytest.mark.usefixtures("chunks")
def test_gradient_agrees_with_finite_differences():
    hidden, weight, targets = problem(n=5)

    def loss() -> Tensor:
        return chunked_loss(
            hidden, weight, targets, curved, temperature=1.3, entropy_gradient=True
        ).loss

    gradients = torch.autograd.grad(loss(), (hidden, weight))
    step = 1e-6
    for inputs, gradient in zip((hidden.data, weight.data), gradients, strict=True):
        for index in range(inputs.numel()):
            value = inputs.view(-1)[index].item()
            inputs.view(-1)[index] = value + step
            above = loss().item()
            inputs.view(-1)[index] = value - step
            slope = (above - loss().item()) / (2 * step)
            inputs.view(-1)[index] = value
            assert slope == pytest.approx(gradient.view(-1)[index].item(), rel=1e-5, abs=1e-6)


def test_without_an_entropy_gradient_the_entropy_is_a_constant():
    hidden, weight, targets = problem()
    loss = chunked_loss(
        hidden, weight, targets, lambda _, logprobs, entropies: entropies * 1.0 + 0 * logprobs
    )
    assert loss.loss.item() != 0.0
    assert all(not g.any() for g in torch.autograd.grad(loss.loss, (hidden, weight)))


def test_no_tokens_give_no_loss_and_a_zero_gradient():
    hidden, weight, targets = problem(n=0)
    loss = chunked_loss(hidden, weight, targets, curved).loss
    to_hidden, to_weight = torch.autograd.grad(loss, (hidden, weight))
    assert loss.item() == 0.0
    assert to_hidden.shape == (0, 6)
    assert to_weight.shape == (17, 6) and not to_weight.any()


@pytest.mark.usefixtures("chunks")
def test_bfloat16_inputs_are_multiplied_and_normalised_in_float32():
    hidden, weight, targets = problem(dtype=torch.bfloat16)
    wide = full(hidden.float(), weight.float(), targets, 1.0)
    loss = chunked_loss(hidden, weight, targets, lambda _, logprobs, __: -logprobs)
    torch.testing.assert_close(loss.logprobs, wide[0].detach(), rtol=0, atol=1e-5)
    expected = torch.autograd.grad(-wide[0].sum(), (hidden, weight))
    gradients = torch.autograd.grad(loss.loss, (hidden, weight))
    for gradient, reference in zip(gradients, expected, strict=True):
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(gradient, reference, rtol=0.02, atol=0.02)


def test_a_frozen_projection_gets_no_gradient():
    hidden, weight, targets = problem()
    loss = chunked_loss(hidden, weight.detach(), targets, curved).loss
    (gradient,) = torch.autograd.grad(loss, (hidden,))
    assert gradient.abs().sum() > 0


def test_logits_of_all_tokens_never_exist_at_once(monkeypatch: pytest.MonkeyPatch):
    hidden, weight, targets = problem(n=64, dtype=torch.float32)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 17 * 8)
    shapes = []
    original = module._Chunks.softmax

    def spy(self: module._Chunks, block: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
        shapes.append(logits.untyped_storage().nbytes() // 4)
        return original(self, block, logits)

    monkeypatch.setattr(module._Chunks, "softmax", spy)
    chunked_loss(hidden, weight, targets, curved).loss.backward()
    assert set(shapes) == {17 * 8}
