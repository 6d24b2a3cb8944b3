"""What several attempts at a task say: pass@k, pass^k, majority@k, different answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb, expm1, fsum, log1p

import numpy as np

from agentrl.evals.statistics import Array


def pass_at_k(samples_P: Sequence[int], right_P: Sequence[int], k: int) -> Array:
    """For each task, the chance that at least one of k of its n samples is right: pass@k.

    k samples drawn without replacement, 1 - C(n - c, k) / C(n, k), without bias (Chen et al. 2021,
    arXiv:2107.03374, equation 1), as a product that is exact for any n. Raises ValueError where a
    task has fewer than k samples, which no estimate makes up for.
    """
    return np.asarray(
        [
            1.0 if n - c < k else -expm1(_log_ratio(n, c, k))
            for n, c in _checked(samples_P, right_P, k)
        ],
        np.float64,
    )


def pass_all_k(samples_P: Sequence[int], right_P: Sequence[int], k: int) -> Array:
    """For each task, the chance that all of k of its n samples are right: pass^k.

    C(c, k) / C(n, k), without bias (tau-bench, arXiv:2406.12045). Raises like `pass_at_k`.
    """
    return np.asarray(
        [
            0.0 if c < k else float(np.exp(_log_ratio(n, n - c, k)))
            for n, c in _checked(samples_P, right_P, k)
        ],
        np.float64,
    )


def _checked(samples_P: Sequence[int], right_P: Sequence[int], k: int) -> list[tuple[int, int]]:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    pairs = [(int(n), int(c)) for n, c in zip(samples_P, right_P, strict=True)]
    for n, c in pairs:
        if n < k:
            raise ValueError(f"a task has {n} samples, fewer than k = {k}")
        if not 0 <= c <= n:
            raise ValueError(f"a task has {c} right samples of {n}")
    return pairs


def _log_ratio(n: int, c: int, k: int) -> float:
    """Log of C(n - c, k) / C(n, k), which does not change when c and k change places."""
    many, few = max(c, k), min(c, k)
    return fsum(log1p(-many / (n - i)) for i in range(few))


def majority_at_k(answers: Sequence[str | None], scores: Sequence[float], k: int) -> float:
    """Expected score of the most frequent answer among k of a task's n samples.

    The mean over all C(n, k) subsets, exactly (in float64), without bias. Answers are equal when
    they are the same text. An answer's score is the mean score of its samples; several that are
    equally frequent share the vote, each with its part of the score. None does not vote; where
    nobody votes the score is 0. (Wang et al. 2023, arXiv:2203.11171, vote once over all n.)
    Raises ValueError where there are fewer than k samples.
    """
    n = len(answers)
    if not 1 <= k <= n:
        raise ValueError(f"a task has {n} samples, fewer than k = {k}" if k > 0 else "k is below 1")
    votes = Counter(answers)
    silent = votes.pop(None, 0)
    totals = dict.fromkeys(votes, 0.0)
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            totals[answer] += score
    worth = [(count, totals[answer] / count) for answer, count in votes.items()]
    if not worth:
        return 0.0
    if k == n:
        most = max(count for count, _ in worth)
        leading = [score for count, score in worth if count == most]
        return fsum(leading) / len(leading)
    most = min(k, max(count for count, _ in worth))
    return fsum(_won_with(lead, worth, silent, k) for lead in range(1, most + 1)) / comb(n, k)


def _won_with(lead: int, worth: list[tuple[int, float]], silent: int, k: int) -> float:
    """Sum, over the subsets of k whose leading answers have `lead` votes, of their mean score.

    `ways[t, u]` counts the choices so far with u votes given and t answers at the lead; `scored`
    is the same with the sum of the leading answers' scores as weight.
    """
    ties = k // lead
    ways, scored = np.zeros((ties + 1, k + 1)), np.zeros((ties + 1, k + 1))
    for used in range(min(silent, k) + 1):
        ways[0, used] = comb(silent, used)
    for count, score in worth:
        more_ways, more_scored = np.zeros_like(ways), np.zeros_like(scored)
        for used in range(min(lead - 1, count) + 1):
            more_ways[:, used:] += comb(count, used) * ways[:, : k + 1 - used]
            more_scored[:, used:] += comb(count, used) * scored[:, : k + 1 - used]
        if count >= lead:
            before = ways[:-1, : k + 1 - lead]
            more_ways[1:, lead:] += comb(count, lead) * before
            more_scored[1:, lead:] += comb(count, lead) * (
                scored[:-1, : k + 1 - lead] + score * before
            )
        ways, scored = more_ways, more_scored
    return fsum(scored[tied, k] / tied for tied in range(1, ties + 1))


def unique_ratio(answers: Sequence[str | None]) -> float | None:
    """Different answers over answers given (UFO, arXiv:2507.14295); None where none was given."""
    given = [answer for answer in answers if answer is not None]
    return len(set(given)) / len(given) if given else None
