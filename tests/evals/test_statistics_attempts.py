"""pass@k, pass^k and majority@k beside every subset; what counts as a different answer."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations, pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.core.try_again import plain_answer
from agentrl.evals.attempts import (
    majority_at_k,
    pass_all_k,
    pass_at_k,
    unique_ratio,
)

COUNTS = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


def test_pass_at_k_by_hand() -> None:
    # 2 right of 4: a pair misses both in 1 of 6, so 5/6; both are right in 1 of 6.
    assert pass_at_k([4], [2], 2) == pytest.approx([5 / 6])
    assert pass_all_k([4], [2], 2) == pytest.approx([1 / 6])
    assert pass_at_k([3, 3, 3], [0, 1, 3], 1) == pytest.approx([0, 1 / 3, 1])


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(1, 12))
def test_pass_at_k_is_the_share_of_all_subsets(counts, k) -> None:
    n, c = counts
    if k > n:
        with pytest.raises(ValueError, match=f"{n} samples, fewer than k = {k}"):
            pass_at_k([n], [c], k)
        return
    subsets = list(combinations([1] * c + [0] * (n - c), k))
    assert pass_at_k([n], [c], k)[0] == pytest.approx(np.mean([any(one) for one in subsets]))
    assert pass_all_k([n], [c], k)[0] == pytest.approx(np.mean([all(one) for one in subsets]))


@settings(max_examples=60, deadline=None)
@given(COUNTS)
def test_pass_at_1_is_the_mean_pass_at_n_is_any_and_it_grows_with_k(counts) -> None:
    n, c = counts
    at = [pass_at_k([n], [c], k)[0] for k in range(1, n + 1)]
    every = [pass_all_k([n], [c], k)[0] for k in range(1, n + 1)]
    assert at[0] == pytest.approx(c / n) and every[0] == pytest.approx(c / n)
    assert at[-1] == float(c > 0) and every[-1] == pytest.approx(float(c == n))
    assert all(b >= a - 1e-12 for a, b in pairwise(at))
    assert all(b <= a + 1e-12 for a, b in pairwise(every))


@pytest.mark.parametrize(
    ("n", "c", "k"), [(10**6, 1, 1), (10**6, 3, 10**5), (5000, 2500, 12), (10**4, 9, 5000)]
)
def test_pass_at_k_is_exact_for_large_n(n: int, c: int, k: int) -> None:
    missed = Fraction(1)
    for i in range(min(c, k)):
        missed *= Fraction(n - max(c, k) - i, n - i)
    assert pass_at_k([n], [c], k)[0] == pytest.approx(float(1 - missed), rel=1e-12)


def test_pass_at_k_of_samples_has_no_bias() -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(6, 0.3, 40_000)
    assert pass_at_k([6] * 40_000, right, 3).mean() == pytest.approx(1 - 0.7**3, abs=0.005)
    assert pass_all_k([6] * 40_000, right, 3).mean() == pytest.approx(0.3**3, abs=0.003)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0)])
def test_counts_that_cannot_be_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"right samples of|at least 1"):
        pass_at_k([n], [c], k)


def vote(chosen: list[tuple[str | None, float]]) -> float:
    """The score of the most frequent answer, straight from the definition."""
    votes = Counter(answer for answer, _ in chosen if answer is not None)
    leading = [answer for answer, n in votes.items() if n == max(votes.values())]
    return float(np.mean([WORTH[answer] for answer in leading])) if leading else 0.0


WORTH = {"a": 1.0, "b": 0.0, "c": 0.5, "d": 0.0}
ANSWERS = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), min_size=1, max_size=9)


@settings(max_examples=100, deadline=None)
@given(ANSWERS, st.integers(1, 9))
def test_majority_at_k_is_the_mean_over_all_subsets(answers, k) -> None:
    scores = [WORTH.get(answer, 0.0) for answer in answers]
    if k > len(answers):
        with pytest.raises(ValueError, match="fewer than k"):
            majority_at_k(answers, scores, k)
        return
    subsets = list(combinations(zip(answers, scores, strict=True), k))
    assert majority_at_k(answers, scores, k) == pytest.approx(np.mean([vote(s) for s in subsets]))


def test_majority_by_hand() -> None:
    assert majority_at_k(["4", "4", "5"], [1, 1, 0], 3) == 1.0
    assert majority_at_k(["4", "5", "5"], [1, 0, 0], 3) == 0.0
    assert majority_at_k(["4", "5"], [1, 0], 2) == 0.5  # a tie is split
    assert majority_at_k([None, None, "4"], [0, 0, 1], 3) == 1.0  # who says nothing does not vote
    assert majority_at_k([None, None], [0, 0], 2) == 0.0
    # Pairs of 4, 4, 5: one agrees on 4, two are tied.
    assert majority_at_k(["4", "4", "5"], [1, 1, 0], 2) == pytest.approx(2 / 3)


@settings(max_examples=60, deadline=None)
@given(ANSWERS)
def test_majority_at_1_is_the_mean_score(answers) -> None:
    scores = [WORTH.get(answer, 0.0) for answer in answers]
    assert majority_at_k(answers, scores, 1) == pytest.approx(np.mean(scores))


def test_majority_of_many_samples_is_a_share() -> None:
    answers = [str(i % 20) for i in range(128)]
    found = majority_at_k(answers, [float(one == "3") for one in answers], 60)
    assert 0.0 < found < 1.0
    assert comb(128, 60) > 1e37  # more subsets than could be listed


def test_different_answers_are_counted_without_case_and_white_space() -> None:
    assert unique_ratio(["1", "1", "2", None]) == pytest.approx(2 / 3)
    assert unique_ratio([None]) is None and unique_ratio([]) is None
    assert plain_answer(" 1 / 2\n") == plain_answer("1/2") and plain_answer("Paris") == "paris"
