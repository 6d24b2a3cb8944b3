"""Each token kernel: by hand, leaf by leaf, by finite differences, and where two must agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from published_losses import elements
from torch import Tensor

from agentrl.learner.kernels import TrainedTokens, kernel
from agentrl.learner.loss import SUMS, metrics, policy_terms, token_sums
from agentrl.learner.loss_settings import (
    CispoLoss,
    DppoLoss,
    LossSettings,
    PpoLoss,
    QuadraticLoss,
    ReinforceLoss,
    SapoLoss,
)

KERNELS = {
    "ppo": PpoLoss(),
    "ppo dual": PpoLoss(clip_low=0.2, clip_high=0.2, dual_clip=1.6),
    "ppo balanced": PpoLoss(entropy_balanced=True, dual_clip=1.6),
    "cispo": CispoLoss(clip_high=0.5),
    "cispo both": CispoLoss(clip_low=0.2, clip_high=0.28),
    "sapo": SapoLoss(),
    "sapo sharp": SapoLoss(tau_positive=3.0, tau_negative=5.0),
    "dppo tv": DppoLoss(clip_low=0.1, clip_high=0.12),
    "dppo kl": DppoLoss(divergence="kl", clip_low=0.02, clip_high=0.03),
    "quadratic": QuadraticLoss(beta=0.7),
    "reinforce": ReinforceLoss(),
}


def random_tokens(seed: int, count: int = 40):
    """Log-probabilities of policy and behaviour, and three trajectories' advantages and weights."""
    rng = np.random.default_rng(seed)
    behavior = torch.tensor(np.log(rng.uniform(0.02, 0.98, count)))
    noise = torch.tensor(rng.normal(0.0, 0.6, count))
    logprobs = torch.minimum(behavior + noise, torch.tensor(-0.005, dtype=torch.float64))
    advantages = torch.tensor(rng.normal(0.0, 1.0, (3, count)))
    weights = torch.tensor(rng.uniform(0.2, 2.0, (3, count)))
    return logprobs, behavior, advantages, weights


def summed(behavior: Tensor, advantages: Tensor, weights: Tensor) -> TrainedTokens:
    return TrainedTokens(
        positive=(weights * advantages.clamp_min(0)).sum(0),
        negative=(weights * advantages.clamp_max(0)).sum(0),
        weight=weights.sum(0),
        behavior=behavior,
    )


def leaf_by_leaf(
    s: LossSettings, logprobs: Tensor, behavior: Tensor, a: Tensor, w: Tensor, frozen: Tensor
) -> Tensor:
    turns = torch.zeros(len(logprobs), dtype=torch.long)
    return sum(
        each_w * elements(s, logprobs, behavior, each_a, turns, frozen)
        for each_a, each_w in zip(a, w, strict=True)
    )


def gradient(terms: Tensor, logprobs: Tensor) -> Tensor:
    return torch.autograd.grad(terms.sum(), logprobs)[0]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("seed", range(3))
def test_three_numbers_are_worth_all_trajectories(name: str, seed: int):
    logprobs, behavior, a, w = random_tokens(seed)
    logprobs.requires_grad_()
    found = kernel(KERNELS[name], logprobs, summed(behavior, a, w)).terms
    wanted = leaf_by_leaf(KERNELS[name], logprobs, behavior, a, w, logprobs.detach())
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradient(found, logprobs), gradient(wanted, logprobs), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", KERNELS)
def test_the_gradient_is_that_of_finite_differences(name: str):
    logprobs, behavior, a, w = random_tokens(5)
    step = 1e-6

    def value(moved: float) -> Tensor:
        return leaf_by_leaf(KERNELS[name], logprobs + moved, behavior, a, w, logprobs)

    wanted = (value(step) - value(-step)) / (2 * step)
    policy = logprobs.clone().requires_grad_()
    found = gradient(kernel(KERNELS[name], policy, summed(behavior, a, w)).terms, policy)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)
    assert found.abs().max() > 0.1


def one(s: LossSettings, ratio: float, advantage: float, *, p: float = 0.5) -> tuple[float, float]:
    """Value and slope of the element of one token whose probability is now `p`."""
    logprobs = torch.tensor([math.log(p)], dtype=torch.float64, requires_grad=True)
    behavior = logprobs.detach() - math.log(ratio)
    a, w = torch.tensor([[advantage]], dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    terms = kernel(s, logprobs, summed(behavior, a, w)).terms
    return terms.item(), gradient(terms, logprobs).item()


LOG_HALF = math.log(0.5)


@pytest.mark.parametrize(
    ("settings", "ratio", "advantage", "value", "slope"),
    [
        # Beyond 1.28 the value stays and a gradient of the same size goes on; A < 0 as ever.
        (PpoLoss(entropy_balanced=True), 2.0, 1.5, -1.28 * 1.5, -1.28 * 1.5),
        (PpoLoss(entropy_balanced=True), 1.1, 1.5, -1.1 * 1.5, -1.1 * 1.5),
        (PpoLoss(entropy_balanced=True), 0.5, -1.0, 0.8, 0.0),
        (PpoLoss(entropy_balanced=True, dual_clip=3.0), 4.0, -1.0, 3.0, 0.0),
        # The ratio 8 counts as 5, at log p = log 0.5.
        (CispoLoss(), 8.0, 2.0, -5.0 * 2.0 * LOG_HALF, -10.0),
        (CispoLoss(), 0.01, 2.0, -0.02 * LOG_HALF, -0.02),
        (CispoLoss(clip_low=0.2), 0.01, -1.0, 0.8 * LOG_HALF, 0.8),
        # sigmoid(0) = 1/2 at the ratio 1: 4 / (2 tau) A, slope -A.
        (SapoLoss(), 1.0, 1.0, -2.0, -1.0),
        (SapoLoss(), 1.0, -1.0, 2.0 / 1.05, 1.0),
        # x = 2, tau = 1: -4 / (1 + e^-1), slope -4 s (1 - s) x with s = 0.7310586.
        (SapoLoss(), 2.0, 1.0, -2.9242343, -1.5728955),
        # p = 0.5 from q = 0.4: moved by 0.1. The ratio is 1.25.
        (DppoLoss(), 1.25, 1.0, -1.25 * LOG_HALF, -1.25),
        (DppoLoss(clip_high=0.05), 1.25, 1.0, 0.0, 0.0),
        (DppoLoss(clip_high=0.05), 1.25, -1.0, 1.25 * LOG_HALF, 1.25),
        # p = 0.5 from q = 0.8: down by 0.3; a token that gains is moved back up.
        (DppoLoss(), 0.625, -1.0, 0.0, 0.0),
        (DppoLoss(), 0.625, 1.0, -0.625 * LOG_HALF, -0.625),
        # KL of (0.8, 0.2) from (0.5, 0.5): 0.8 log 1.6 + 0.2 log 0.4 = 0.19274.
        (DppoLoss(divergence="kl", clip_low=0.19), 0.625, -1.0, 0.0, 0.0),
        (DppoLoss(divergence="kl", clip_low=0.2), 0.625, -1.0, 0.625 * LOG_HALF, 0.625),
        (DppoLoss(divergence="kl", clip_high=0.01), 0.625, 1.0, -0.625 * LOG_HALF, -0.625),
        # l = log 2: -(log 0.5 - 0.05 l²), slope -(1 - 0.1 l).
        (QuadraticLoss(), 2.0, 1.0, 0.6931472 + 0.05 * 0.4804530, -1.0 + 0.06931472),
        (QuadraticLoss(), 2.0, 0.0, 0.05 * 0.4804530, 0.06931472),
        (ReinforceLoss(), 7.0, -3.0, 3.0 * LOG_HALF, 3.0),
    ],
)
def test_elements_by_hand(settings, ratio, advantage, value, slope):
    found = one(settings, ratio, advantage)
    assert found == (pytest.approx(value, rel=1e-6), pytest.approx(slope, rel=1e-6))


def test_a_rare_token_may_change_by_a_ratio_that_ppo_stops():
    """From 0.001 to 0.01: ten times as probable, and no policy is far away."""
    assert one(DppoLoss(), 10.0, 1.0, p=0.01)[1] == pytest.approx(-10.0)
    assert one(DppoLoss(), 50.0, 1.0, p=0.05)[1] == pytest.approx(-20.0)  # The cap of its weight.
    assert one(PpoLoss(), 10.0, 1.0, p=0.01)[1] == 0.0


@pytest.mark.parametrize("p", [1e-30, 1.0 - 1e-12, 1.0])
@pytest.mark.parametrize("divergence", ["tv", "kl"])
def test_dppo_is_finite_at_the_ends_of_probability(p: float, divergence: str):
    settings = DppoLoss(divergence=divergence)
    for ratio in (0.5, 1.0, 2.0) if p < 0.1 else (1.0, 2.0):
        for advantage in (1.0, -1.0):
            assert np.isfinite(one(settings, ratio, advantage, p=p)).all()


def test_on_the_behaviour_policy_ratio_kernels_have_the_plain_gradient():
    """CISPO, PPO, SAPO, DPPO, quadratic and no kernel at all (spec: same gradient at ratio 1)."""
    _, behavior, a, w = random_tokens(2)
    found = []
    for settings in KERNELS.values():
        logprobs = behavior.clone().requires_grad_()
        found.append(gradient(kernel(settings, logprobs, summed(behavior, a, w)).terms, logprobs))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-12)


def test_the_dual_clip_is_trls_delta():
    """-min(min(x, delta) A, clip(x) A) for delta above 1 + high (TRL's two-sided form)."""
    logprobs, behavior, a, w = random_tokens(3, 200)
    settings = PpoLoss(dual_clip=1.7)
    policy = logprobs.clone().requires_grad_()
    ratio = (policy - behavior).exp()
    delta = -torch.minimum(ratio.clamp(max=1.7) * a, ratio.clamp(0.8, 1.28) * a)
    wanted = (w * delta).sum(0)
    found = kernel(settings, policy, summed(behavior, a, w)).terms
    keeps = (ratio < 1.7).detach()  # Above it TRL stops gains too; they are clipped at 1.28 anyway.
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient(found, policy), gradient(wanted, policy))
    assert 5 < int((~keeps).sum()) < 150


def test_outside_the_trust_region_the_gradient_is_exactly_zero():
    outside = [
        (PpoLoss(), 1.2801, 1.0),
        (PpoLoss(), 0.7999, -1.0),
        (PpoLoss(dual_clip=2.0), 2.0001, -1.0),
        (DppoLoss(), 2.0, 1.0),
        (DppoLoss(divergence="kl"), 2.0, 1.0),
    ]
    for settings, ratio, advantage in outside:
        assert one(settings, ratio, advantage)[1] == 0.0


@pytest.mark.parametrize("name", KERNELS)
def test_no_tokens_give_zero(name: str):
    nothing = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    columns = TrainedTokens(*(torch.zeros(0, dtype=torch.float64) for _ in range(4)))
    terms = policy_terms(nothing, nothing, columns, KERNELS[name])
    assert terms.sum().item() == 0.0
    assert gradient(terms, nothing).shape == (0,)
    sums = token_sums(nothing, nothing, columns, KERNELS[name], objective="policy")
    found = metrics(dict(zip(SUMS, sums.tolist(), strict=True)), 1.0, objective="policy")
    assert found == {"train/loss": 0.0, "train/tokens": 0.0}


@pytest.mark.parametrize("name", KERNELS)
def test_sums_add_over_micro_batches_in_any_order(name: str):
    logprobs, behavior, a, w = random_tokens(6)
    columns, spread = summed(behavior, a, w), torch.zeros(40, dtype=torch.float64)

    def sums(at) -> Tensor:
        part = TrainedTokens(*(None if c is None else c[at] for c in columns))
        return token_sums(logprobs[at], spread[at], part, KERNELS[name], objective="policy")

    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    parts = sums(order[:7]) + sums(order[7:]) + sums(order[:0])
    torch.testing.assert_close(parts, sums(torch.arange(40)), rtol=1e-12, atol=1e-12)


def test_only_kernels_that_clip_report_it():
    logprobs, behavior, a, w = random_tokens(7)
    for settings in KERNELS.values():
        spread = torch.zeros(40, dtype=torch.float64)
        columns = summed(behavior, a, w)
        sums = token_sums(logprobs, spread, columns, settings, objective="policy")
        totals = dict(zip(SUMS, sums.tolist(), strict=True))
        found = metrics(totals, 1.0, objective="policy", clips=settings.clips)
        sides = {k.rpartition("_")[2] for k in found if "clip_fraction" in k}
        assert sides == set(settings.clips)
        if isinstance(settings, DppoLoss | CispoLoss):
            assert found["train/clip_fraction_high"] > 0.02


def test_a_loss_without_a_kernel_says_so():
    columns = TrainedTokens(*(torch.zeros(1) for _ in range(4)))
    with pytest.raises(NotImplementedError, match="LossSettings"):
        kernel(LossSettings(), torch.zeros(1), columns)
