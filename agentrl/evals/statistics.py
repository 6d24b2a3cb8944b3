"""Means over tasks, differences of two policies and their tests; float64, pure, seeded.

The unit is the task. Samples of one task are never independent of each other, so they become one
number, the task's mean, before anything else happens (`task_means`); the mean over tasks then
estimates the score on tasks like these, and the spread between tasks carries both the tasks' and
the samples' share of the uncertainty (clustered standard errors: Miller 2024, arXiv:2411.00640;
Cameron and Miller 2015). Which interval is used where was chosen by its coverage, which
`benchmarks/interval_coverage.py` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import comb, exp, gcd, isfinite
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Values: TypeAlias = Sequence[float] | Array

LEVEL: Final = 0.95
_NAN: Final = float("nan")
_TINY: Final = 1e-9
_ONE_TASK_OF_DOUBT: Final = 0.25
"""The variance of one task that is right or wrong by the toss of a coin."""


class Interval(NamedTuple):
    """A value, its 95 % interval, its standard error, the tasks behind it and the method used.

    Where there is no interval (no task, or one), `low` and `high` are NaN and the method "none".
    """

    value: float
    low: float
    high: float
    error: float = _NAN
    tasks: int = 0
    method: str = "none"

    def plain(self) -> list[float | None]:
        """Value and bounds for JSON, which has no NaN: null where there is none."""
        return [one if isfinite(one) else None for one in self[:3]]


def task_means(samples_P_N: Sequence[Values]) -> Array:
    """Each task's mean over its samples; tasks may have different numbers of them.

    Raises ValueError on a task without samples: it has no mean, and leaving it out is a decision.
    """
    if any(len(samples) == 0 for samples in samples_P_N):
        raise ValueError("a task has no samples: leave it out and say so, or count it otherwise")
    return np.asarray([np.mean(samples) for samples in samples_P_N], np.float64)


def mean_interval(values_P: Values, *, level: float = LEVEL) -> Interval:
    """Mean over tasks with its interval; each value is one task's mean over its samples.

    "wilson" (Wilson 1927, no continuity correction) where each value is 0 or 1. "cluster_wilson"
    where they lie in [0, 1]: Wilson's interval at the effective number of tasks, n divided by the
    dispersion (sum of squares + 1/4) / ((n - 1) mean (1 - mean) + 1/4), at most 1. That is the
    interval for proportions in clustered surveys (Korn and Graubard 1998; Franco et al. 2019),
    with one coin-toss task of doubt added, so that a sample whose tasks are all right is no
    proof of certainty. "cluster_t" otherwise: Student's t with n - 1 degrees of freedom.
    `error` is the standard error clustered by task, the values' standard deviation / sqrt(n).
    """
    values = _finite(values_P)
    n = len(values)
    mean = float(values.mean()) if n else _NAN
    if n < 2:
        return Interval(mean, _NAN, _NAN, tasks=n)
    error = float(values.std(ddof=1)) / n**0.5
    if values.min() >= 0.0 and values.max() <= 1.0:
        low, high = wilson_bounds(values[None, :], level=level)
        whole = bool(np.isin(values, (0.0, 1.0)).all())
        method = "wilson" if whole else "cluster_wilson"
        return Interval(mean, float(low[0]), float(high[0]), error, n, method)
    return student_interval(values, level=level)


def student_interval(values: Values, *, level: float = LEVEL) -> Interval:
    """Mean with Student's t interval, of tasks' means or of a number of each seed.

    None where there is one value, or where all are equal, which says nothing of their spread.
    """
    found = _finite(values)
    n = len(found)
    mean = float(found.mean()) if n else _NAN
    if n < 2:
        return Interval(mean, _NAN, _NAN, tasks=n)
    error = float(found.std(ddof=1)) / n**0.5
    if error <= _TINY * abs(mean):
        return Interval(mean, _NAN, _NAN, 0.0, n)
    half = t_quantile(n - 1, level) * error
    return Interval(mean, mean - half, mean + half, error, n, "cluster_t")


def wilson_bounds(values_R_P: Array, *, level: float = LEVEL) -> tuple[Array, Array]:
    """Bounds of `mean_interval` for R sets of P values in [0, 1] at once, each of shape (R,)."""
    n = values_R_P.shape[1]
    mean = np.clip(values_R_P.mean(axis=1), 0.0, 1.0)
    squares = ((values_R_P - mean[:, None]) ** 2).sum(axis=1)
    most = (n - 1) * mean * (1.0 - mean)
    dispersion = np.minimum(1.0, (squares + _ONE_TASK_OF_DOUBT) / (most + _ONE_TASK_OF_DOUBT))
    doubt = normal_quantile(level) ** 2 * dispersion / n
    centre = (mean + doubt / 2) / (1 + doubt)
    half = np.sqrt(doubt * mean * (1 - mean) + doubt**2 / 4) / (1 + doubt)
    # A bound that is 0 or 1 by algebra must not miss it by rounding.
    low = np.where(mean == 0.0, 0.0, np.maximum(0.0, centre - half))
    high = np.where(mean == 1.0, 1.0, np.minimum(1.0, centre + half))
    return low, high


def paired_difference(before_P: Values, after_P: Values, *, level: float = LEVEL) -> Interval:
    """Mean of after - before over the same tasks, with its interval.

    "bonett_price" where every difference is -1, 0 or 1 (one 0/1 sample on each side, or no
    difference anywhere): Bonett and Price 2012, Wald's interval after one more task for each
    side, so that no difference in few tasks is no proof of equality. "cluster_t" otherwise.
    None where all differences are one other number, or there is one task.
    """
    difference = _differences(before_P, after_P)
    n = len(difference)
    mean = float(difference.mean()) if n else _NAN
    if n < 2:
        return Interval(mean, _NAN, _NAN, tasks=n)
    error = float(difference.std(ddof=1)) / n**0.5
    if np.isin(difference, (-1.0, 0.0, 1.0)).all():
        won = (float((difference == 1.0).sum()) + 1) / (n + 2)
        lost = (float((difference == -1.0).sum()) + 1) / (n + 2)
        half = normal_quantile(level) * ((won + lost - (won - lost) ** 2) / (n + 2)) ** 0.5
        low, high = max(-1.0, won - lost - half), min(1.0, won - lost + half)
        return Interval(mean, low, high, error, n, "bonett_price")
    return student_interval(difference, level=level)


def unpaired_difference(before_P: Values, after_P: Values, *, level: float = LEVEL) -> Interval:
    """Difference of two means over different tasks (or seeds), after - before (Welch 1947).

    `tasks` is the smaller of the two numbers.
    """
    one, two = _finite(before_P), _finite(after_P)
    fewest = min(len(one), len(two))
    mean = float(two.mean() - one.mean()) if fewest else _NAN
    if fewest < 2:
        return Interval(mean, _NAN, _NAN, tasks=fewest)
    parts = np.asarray([one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)])
    error = float(parts.sum()) ** 0.5
    if error == 0.0:
        return Interval(mean, _NAN, _NAN, 0.0, fewest)
    freedom = float(parts.sum() ** 2 / (parts**2 / np.asarray([len(one) - 1, len(two) - 1])).sum())
    half = t_quantile(freedom, level) * error
    return Interval(mean, mean - half, mean + half, error, fewest, "welch_t")


def ratio_of_means(before_P: Values, after_P: Values, *, level: float = LEVEL) -> Interval:
    """Mean of after over mean of before, paired by task, as of the tokens of two policies.

    Student's t on the logarithm of the ratio, linearised ("log_t"); of the intervals that were
    tried the one with the best coverage. `error` is that of the logarithm. None where a mean is
    not above 0, or where every task has the same ratio.
    """
    before, after = _finite(before_P), _finite(after_P)
    _differences(before, after)
    n = len(before)
    if not n or before.mean() <= 0 or after.mean() <= 0:
        return Interval(_NAN, _NAN, _NAN, tasks=n)
    ratio = float(after.mean() / before.mean())
    around = student_interval(1 + after / after.mean() - before / before.mean(), level=level)
    if around.method == "none":
        return Interval(ratio, _NAN, _NAN, around.error, n)
    reach = exp(around.high - around.value)
    return Interval(ratio, ratio / reach, ratio * reach, around.error, n, "log_t")


def bootstrap_interval(
    columns_P_C: Array,
    statistic: Callable[[Array], Array],
    *,
    seed: int,
    resamples: int = 2000,
    method: Literal["percentile", "bca"] = "bca",
    level: float = LEVEL,
) -> Interval:
    """Interval of a function of means over tasks, by drawing whole tasks with replacement.

    `columns_P_C` has a row for each task; `statistic` maps means of shape (R, C) to values (R,),
    as `lambda m: m[:, 0] / m[:, 1]` for a ratio of totals. BCa: Efron 1987. `error` is the
    standard deviation over resamples. None where the resamples do not differ.
    """
    n = len(columns_P_C)
    value = float(statistic(columns_P_C.mean(axis=0)[None, :])[0]) if n else _NAN
    if n < 2:
        return Interval(value, _NAN, _NAN, tasks=n)
    rng = np.random.default_rng(seed)
    # How often each task was drawn is all that a mean needs.
    counts = rng.multinomial(n, np.full(n, 1.0 / n), size=resamples)
    drawn = np.sort(statistic(counts @ columns_P_C / n))
    if not np.isfinite(drawn).all() or drawn[-1] - drawn[0] <= _TINY * abs(value):
        return Interval(value, _NAN, _NAN, tasks=n)
    tails = np.asarray([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        left_out = (columns_P_C.sum(axis=0) - columns_P_C) / (n - 1)
        tails = _bca_tails(tails, drawn, value, statistic(left_out))
    low, high = np.quantile(drawn, tails)
    return Interval(value, float(low), float(high), float(drawn.std(ddof=1)), n, "bootstrap")


def _bca_tails(tails: Array, drawn: Array, value: float, left_out: Array) -> Array:
    """Quantiles that correct for bias and for a spread that changes with the value."""
    from scipy.special import ndtr, ndtri

    below = ((drawn < value).mean() + (drawn <= value).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
    away = left_out.mean() - left_out
    cubes, squares = float((away**3).sum()), float((away**2).sum())
    skew = cubes / (6 * squares**1.5) if squares else 0.0
    z = bias + ndtri(tails)
    return np.asarray(ndtr(bias + z / (1 - skew * z)), np.float64)


def sign_flip_p(differences_P: Values, *, seed: int = 0, flips: int = 99_999) -> float:
    """Two-sided p of "no difference": how often chance signs give a mean as far from 0.

    Holds exactly where both policies have equally many samples of each task. Worked out over all
    2^P signs where the differences are multiples of one fraction, as 0/1 scores give, or few are
    not 0; else estimated from `flips` random signs, the observed ones counted with them.
    """
    differences = _finite(differences_P)
    moved = differences[np.abs(differences) > _TINY]
    if not len(differences):
        return _NAN
    if not len(moved):
        return 1.0
    target = abs(float(moved.sum())) * (1 - 1e-12) - _TINY
    steps = _as_integers(np.abs(moved))
    if steps is not None:
        chance = _subset_sums(steps)
        sums = np.abs(2 * np.arange(len(chance)) - int(steps.sum()))
        observed = abs(round(float(moved.sum() / np.abs(moved).sum() * int(steps.sum()))))
        return min(1.0, float(chance[sums >= observed].sum()))
    if len(moved) <= 20:
        sums = np.zeros(1)
        for size in np.abs(moved):
            sums = np.concatenate([sums + size, sums - size])
        return float((np.abs(sums) >= target).mean())
    rng, reached, left = np.random.default_rng(seed), 0, flips
    while left:
        part = min(left, 1 + 4_000_000 // len(moved))
        signs = rng.integers(0, 2, (part, len(moved)), dtype=np.int8) * 2 - 1
        reached += int((np.abs(signs @ moved) >= target).sum())
        left -= part
    return (reached + 1) / (flips + 1)


def _as_integers(sizes: Array) -> npt.NDArray[np.int64] | None:
    """`sizes` as integers times one unknown fraction; None where there is no small one."""
    different = np.unique(sizes.round(12))
    if len(different) > 2000:
        return None
    for factor in range(1, 2049):
        scaled = different * factor
        if np.abs(scaled - scaled.round()).max() <= 1e-7:
            whole = (sizes * factor).round().astype(np.int64)
            whole //= gcd(*map(int, np.unique(whole)))
            return whole if len(whole) * int(whole.sum()) <= 1_000_000_000 else None
    return None


def _subset_sums(steps: npt.NDArray[np.int64]) -> Array:
    """Chance of each sum of a subset in which every step is with probability one half."""
    chance = np.ones(1)
    for step in map(int, steps):
        grown = np.zeros(len(chance) + step)
        grown[: len(chance)] += chance / 2
        grown[step:] += chance / 2
        chance = grown
    return chance


def mcnemar_p(before_P: Values, after_P: Values) -> float:
    """McNemar's exact two-sided p for one 0/1 score of each policy at each task.

    Raises ValueError on other scores.
    """
    difference = _differences(before_P, after_P)
    if not np.isin(np.concatenate([before_P, after_P]), (0.0, 1.0)).all():
        raise ValueError("McNemar's test is for scores of 0 and 1; use sign_flip_p")
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    tail = sum(comb(won + lost, k) for k in range(min(won, lost) + 1))
    return min(1.0, 2 * tail / 2 ** (won + lost)) if len(difference) else _NAN


def holm(p_values: Values) -> Array:
    """P values corrected for being several (Holm 1979): the family-wise error is held."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    found = np.empty_like(p)
    found[order] = corrected
    return found


@lru_cache(maxsize=4096)
def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """Student's t that a share `level` stays within, on both sides."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


@lru_cache(maxsize=64)
def normal_quantile(level: float = LEVEL) -> float:
    """The normal deviate that a share `level` stays within, on both sides."""
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _finite(values: Values) -> Array:
    found = np.asarray(values, np.float64)
    if not np.isfinite(found).all():
        raise ValueError("a score is not finite: a lost sample is left out, and counted as lost")
    return found


def _differences(before_P: Values, after_P: Values) -> Array:
    before, after = _finite(before_P), _finite(after_P)
    if len(before) != len(after):
        raise ValueError(
            f"a paired comparison needs the same tasks, got {len(before)} and {len(after)}"
        )
    difference = after - before
    return np.where(np.abs(difference) <= _TINY, 0.0, difference)  # a tie is not a rounding error
