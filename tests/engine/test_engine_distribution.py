"""The sampling distribution against a slow one written with sets, and the draw by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.engine.distribution import draw, entropies, sampling_logprobs


def slow(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Probabilities of one row; 0 where removed."""
    weights = [math.exp(one / temperature) for one in logits]
    kept = set(range(len(logits)))
    if top_k:
        least = sorted(weights, reverse=True)[min(top_k, len(weights)) - 1]
        kept = {i for i in kept if weights[i] >= least}
    total = sum(weights[i] for i in kept)
    chosen, reached = set(), 0.0
    for i in sorted(kept, key=lambda one: -weights[one]):
        if chosen and reached >= top_p:
            break
        chosen.add(i)
        reached += weights[i] / total
    total = sum(weights[i] for i in chosen)
    return [weights[i] / total if i in chosen else 0.0 for i in range(len(logits))]


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.3, 0.7, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 2, 5, 100]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
)
def test_filters_equal_the_slow_definition(seed, temperature, top_k, top_p):
    logits = np.random.default_rng(seed).normal(size=(3, 9)) * 2
    found = sampling_logprobs(
        torch.tensor(logits),
        torch.full((3,), temperature),
        torch.full((3,), top_k),
        torch.full((3,), top_p),
    )
    wanted = [slow(list(row), temperature, top_k, top_p) for row in logits]
    np.testing.assert_allclose(found.exp().numpy(), wanted, atol=1e-6)


def test_rows_keep_their_own_settings():
    logits = torch.tensor([[2.0, 1.0, 0.0]] * 3)
    found = sampling_logprobs(
        logits, torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 1, 1]), torch.tensor([1.0, 0.1, 1])
    )
    plain = logits[0].log_softmax(0)
    assert torch.allclose(found[0], plain)
    assert torch.allclose(found[1], plain)  # greedy: unfiltered, at temperature 1
    assert found[2].tolist() == [0.0, -math.inf, -math.inf]


def test_entropy_of_a_filtered_row_counts_only_what_is_left():
    logprobs = torch.tensor(
        [[math.log(0.5), math.log(0.5), -math.inf], [0.0, -math.inf, -math.inf]]
    )
    assert entropies(logprobs).tolist() == pytest.approx([math.log(2), 0.0])


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 1), (0.24, 1), (0.26, 2), (0.99, 2), (0.9999999, 2)]
)
def test_draw_by_hand_skips_impossible_tokens(uniform, token):
    logprobs = torch.tensor([[-math.inf, math.log(0.25), math.log(0.75), -math.inf]])
    assert draw(logprobs, torch.tensor([uniform])).tolist() == [token]


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    uniform = (torch.arange(1000) + 0.5) / 1000
    drawn = draw(probabilities.log().expand(1000, 4), uniform)
    assert torch.bincount(drawn).tolist() == pytest.approx([100, 200, 300, 400], abs=1)
