"""The clipped loss on numbers worked out by hand, against leaf-by-leaf PPO, and its metrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from agentrl.learner.kernels import TrainedTokens, importance_ratio
from agentrl.learner.loss import SUMS, kl_terms, metrics, nll_terms, policy_terms, token_sums
from agentrl.learner.loss_settings import PpoLoss


def tokens(
    ratios: list[float],
    positive: list[float],
    negative: list[float],
    *,
    reference: list[float] | None = None,
) -> tuple[Tensor, TrainedTokens]:
    """Log-probabilities -2 under the policy, with these ratios to the behaviour policy."""
    logprobs = torch.full((len(ratios),), -2.0, dtype=torch.float64).requires_grad_()
    behavior = logprobs.detach() - torch.tensor(ratios, dtype=torch.float64).log()
    columns = (torch.tensor(c, dtype=torch.float64) for c in (positive, negative))
    return logprobs, TrainedTokens(
        *columns,
        weight=torch.ones(len(ratios), dtype=torch.float64),
        behavior=behavior,
        reference=None if reference is None else torch.tensor(reference, dtype=torch.float64),
    )


def entropies(logprobs: Tensor) -> Tensor:
    return torch.zeros_like(logprobs)


@pytest.mark.parametrize(
    ("ratio", "positive", "negative", "loss", "slope"),
    [
        # Inside the bounds: -A·r, and d(r)/d(log p) = r.
        (1.1, 2.0, 0.0, -2.2, -2.2),
        (0.9, 0.0, -2.0, 1.8, 1.8),
        # Outside: min(r, 1.28) and max(r, 0.8) are constants.
        (1.5, 2.0, 0.0, -2.56, 0.0),
        (0.5, 0.0, -2.0, 1.6, 0.0),
        # The other side of each sign is not clipped.
        (0.5, 2.0, 0.0, -1.0, -1.0),
        (1.5, 0.0, -2.0, 3.0, 3.0),
        # Both signs on one shared token: only the unclipped part has a gradient.
        (1.5, 2.0, -1.0, -2.56 + 1.5, 1.5),
        (0.5, 2.0, -1.0, -1.0 + 0.8, -1.0),
        # The dual clip at 3: |A|·3, and nothing flows.
        (5.0, 0.0, -2.0, 6.0, 0.0),
        (5.0, 1.0, -2.0, 6.0 - 1.28, 0.0),
        # No advantage, no loss.
        (5.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_clipped_terms_by_hand(
    ratio: float, positive: float, negative: float, loss: float, slope: float
):
    logprobs, columns = tokens([ratio], [positive], [negative])
    terms = policy_terms(logprobs, entropies(logprobs), columns, PpoLoss(dual_clip=3.0))
    (gradient,) = torch.autograd.grad(terms.sum(), logprobs)
    assert terms.item() == pytest.approx(loss)
    assert gradient.item() == pytest.approx(slope)


def leaf_by_leaf(
    ratio: float, advantages: list[float], weights: list[float], settings: PpoLoss
) -> float:
    """PPO-clip as its papers write it, one term for each trajectory through the token."""
    total = 0.0
    for advantage, weight in zip(advantages, weights, strict=True):
        clipped = min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high)
        term = min(ratio * advantage, clipped * advantage)
        if settings.dual_clip is not None and advantage < 0:
            term = max(term, settings.dual_clip * advantage)
        total -= weight * term
    return total


@given(
    st.floats(0.01, 20.0),
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 3)), min_size=1, max_size=6),
    st.sampled_from([None, 1.5, 3.0]),
)
def test_two_numbers_are_worth_all_leaves(
    ratio: float, leaves: list[tuple[float, float]], dual_clip: float | None
):
    settings = PpoLoss(clip_low=0.2, clip_high=0.28, dual_clip=dual_clip)
    advantages = [advantage for advantage, _ in leaves]
    weights = [weight for _, weight in leaves]
    positive = sum(w * max(a, 0.0) for a, w in leaves)
    negative = sum(w * min(a, 0.0) for a, w in leaves)
    logprobs, columns = tokens([ratio], [positive], [negative])
    found = policy_terms(logprobs, entropies(logprobs), columns, settings).item()
    assert found == pytest.approx(leaf_by_leaf(ratio, advantages, weights, settings), abs=1e-9)


def test_gradients_agree_with_finite_differences_away_from_the_corners():
    ratios = [0.3, 0.7, 0.9, 1.0, 1.2, 1.4, 2.5, 4.0]
    logprobs, columns = tokens(
        ratios,
        [0.4, 0.0, 1.0, 2.0, 0.3, 0.7, 0.0, 0.1],
        [0.0, -1.0, -0.5, -2.0, 0.0, -0.1, -2.0, -1.0],
        reference=[-2.1, -1.0, -3.0, -2.0, -2.5, -0.5, -1.9, -2.2],
    )
    for estimator in ("k2", "k3"):
        settings = PpoLoss(dual_clip=3.0, kl=0.3, kl_estimator=estimator, entropy=0.2)

        def loss(logprobs: Tensor, spread: Tensor, settings: PpoLoss = settings) -> Tensor:
            return policy_terms(logprobs, spread, columns, settings)

        spread = torch.rand(len(ratios), dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(loss, (logprobs, spread))


def test_the_entropy_bonus_and_the_kl_are_weighted_by_the_row_weight():
    logprobs, columns = tokens([1.0, 1.0], [0.0, 0.0], [0.0, 0.0], reference=[-3.0, -3.0])
    columns = columns._replace(weight=torch.tensor([2.0, 0.5], dtype=torch.float64))
    settings = PpoLoss(kl=0.1, kl_estimator="k2", entropy=0.25)
    terms = policy_terms(logprobs, torch.full_like(logprobs, 4.0), columns, settings)
    assert terms.tolist() == pytest.approx([2 * (0.1 * 0.5 - 1.0), 0.5 * (0.1 * 0.5 - 1.0)])


def test_kl_estimates_by_hand():
    logprobs = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-1.5, -1.0], dtype=torch.float64)
    k3 = [math.exp(-0.5) - 0.5, math.exp(1.0) - 2.0]
    gradients = {"k2": [0.5, -1.0], "k3": [1 - math.exp(-0.5), 1 - math.e], "k3+": [0.5, -1.0]}
    values = {"k2": [0.125, 0.5], "k3": k3, "k3+": k3}
    for name in ("k2", "k3", "k3+"):
        estimate = kl_terms(logprobs, reference, name)
        (gradient,) = torch.autograd.grad(estimate.sum(), logprobs)
        assert estimate.tolist() == pytest.approx(values[name])
        assert gradient.tolist() == pytest.approx(gradients[name])


def test_kl_losses_have_the_gradients_that_their_names_promise():
    """By enumeration: k2 and k3+ go down KL(policy ‖ reference), k3 KL(reference ‖ policy)."""
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([1.0, 0.2, -0.5], dtype=torch.float64), 0)
    policy = torch.log_softmax(logits, 0)
    forward = (policy.exp() * (policy - reference)).sum()
    backward = (reference.exp() * (reference - policy)).sum()
    expected = {"k2": forward, "k3": backward, "k3+": forward}
    for name in ("k2", "k3", "k3+"):
        loss = (policy.detach().exp() * kl_terms(policy, reference, name)).sum()
        found, wanted = (
            torch.autograd.grad(value, logits, retain_graph=True)[0]
            for value in (loss, expected[name])
        )
        torch.testing.assert_close(found, wanted)


def test_a_kl_term_without_a_reference_is_refused():
    logprobs, columns = tokens([1.0], [1.0], [0.0])
    with pytest.raises(ValueError, match="reference"):
        policy_terms(logprobs, entropies(logprobs), columns, PpoLoss(kl=0.1))


def test_an_absurd_ratio_is_bounded_and_gives_no_gradient():
    logprobs = torch.tensor([0.0], requires_grad=True)
    ratio = importance_ratio(logprobs, torch.tensor([-200.0]))
    assert ratio.item() == pytest.approx(math.exp(20.0))
    assert torch.autograd.grad(ratio.sum(), logprobs)[0].item() == 0.0


def test_at_the_first_update_the_loss_is_the_mean_advantage_and_nothing_is_clipped():
    logprobs, columns = tokens([1.0] * 3, [1.0, 0.0, 0.5], [0.0, -2.0, -0.25])
    settings = PpoLoss(dual_clip=3.0)
    terms = policy_terms(logprobs, entropies(logprobs), columns, settings)
    assert terms.tolist() == pytest.approx([-1.0, 2.0, -0.25])
    sums = token_sums(logprobs, entropies(logprobs), columns, settings, objective="policy")
    found = metrics(dict(zip(SUMS, sums.tolist(), strict=True)), 3.0, objective="policy")
    assert found["train/loss"] == pytest.approx(0.75 / 3)
    assert found["train/importance_ratio"] == pytest.approx(1.0)
    for name in ("low", "high", "dual"):
        assert found[f"train/clip_fraction_{name}"] == 0.0
    assert found["train/behavior_kl"] == pytest.approx(0.0, abs=1e-12)


def test_metrics_by_hand():
    logprobs, columns = tokens(
        [0.5, 0.5, 2.0, 2.0, 5.0],
        [0.0, 1.0, 1.0, 0.0, 0.0],
        [-1.0, 0.0, 0.0, -1.0, -1.0],
        reference=[-2.0] * 5,
    )
    sums = token_sums(
        logprobs,
        torch.full_like(logprobs, 1.5),
        columns,
        PpoLoss(dual_clip=3.0),
        objective="policy",
    )
    found = metrics(dict(zip(SUMS, sums.tolist(), strict=True)), 10.0, objective="policy")
    assert found["train/tokens"] == 5
    assert found["train/loss"] == pytest.approx((0.8 - 0.5 - 1.28 + 2.0 + 3.0) / 10)
    assert found["train/nll"] == pytest.approx(2.0)
    assert found["train/entropy"] == pytest.approx(1.5)
    assert found["train/importance_ratio"] == pytest.approx(2.0)
    assert found["train/clip_fraction_low"] == pytest.approx(1 / 5)
    assert found["train/clip_fraction_high"] == pytest.approx(1 / 5)
    assert found["train/clip_fraction_dual"] == pytest.approx(1 / 5)
    logs = [math.log(r) for r in (0.5, 0.5, 2.0, 2.0, 5.0)]
    assert found["train/behavior_difference"] == pytest.approx(np.mean(np.abs(logs)))
    assert found["train/behavior_kl"] == pytest.approx(np.mean([math.exp(x) - 1 - x for x in logs]))
    assert "train/reference_kl" not in found
    totals = dict(zip(SUMS, sums.tolist(), strict=True))
    found = metrics(totals, 10.0, objective="policy", with_reference=True)
    assert found["train/reference_kl"] == 0.0


def test_sums_add_over_any_split():
    generator = torch.Generator().manual_seed(0)
    columns = TrainedTokens(
        *(torch.rand(9, generator=generator) * s for s in (1.0, -1.0, 1.0, -4.0, -4.0))
    )
    logprobs = -4 * torch.rand(9, generator=generator)
    settings = PpoLoss(kl=0.1, entropy=0.01)

    def sums(span: slice) -> Tensor:
        spread = torch.arange(9.0)[span]
        return token_sums(logprobs[span], spread, columns.part(span), settings, objective="policy")

    parts = sums(slice(0, 2)) + sums(slice(2, 2)) + sums(slice(2, 9))
    torch.testing.assert_close(parts, sums(slice(0, 9)), rtol=1e-12, atol=1e-12)


def test_no_tokens_give_zero_and_no_means():
    logprobs, columns = tokens([], [], [])
    sums = token_sums(logprobs, logprobs, columns, PpoLoss(), objective="policy")
    found = metrics(dict(zip(SUMS, sums.tolist(), strict=True)), 7.0, objective="policy")
    assert found == {"train/loss": 0.0, "train/tokens": 0.0}


def test_imitation_is_weighted_negative_log_probability():
    logprobs, columns = tokens([1.0, 1.0], [0.0, 0.0], [0.0, 0.0])
    columns = columns._replace(weight=torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert nll_terms(logprobs, columns).tolist() == [2.0, 1.0]
    sums = token_sums(logprobs, logprobs, columns, PpoLoss(), objective="nll")
    found = metrics(dict(zip(SUMS, sums.tolist(), strict=True)), 2.0, objective="nll")
    assert found["train/loss"] == pytest.approx(1.5)
    assert "train/importance_ratio" not in found
