"""Intervals for accuracies and for the difference of two evaluations of the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_Z95 = 1.959963984540054


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_interval(values_P: Sequence[float]) -> Interval:
    """Mean over tasks with a 95 % interval; Wilson's for zeros and ones, normal otherwise.

    Each value is one task's mean over its samples, so that samples of one task do not count as
    independent. Wilson: Wilson 1927, without continuity correction.
    """
    values = np.asarray(values_P, np.float64)
    n = len(values)
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    mean = float(values.mean())
    if np.isin(values, (0.0, 1.0)).all():
        centre = (mean + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
        half = _Z95 * np.sqrt(mean * (1 - mean) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
        return Interval(mean, float(centre - half), float(centre + half))
    half = _Z95 * float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else float("nan")
    return Interval(mean, mean - float(half), mean + float(half))


def paired_difference(before_P: Sequence[float], after_P: Sequence[float]) -> Interval:
    """Mean of after - before over the same tasks, with its normal 95 % interval."""
    difference = np.asarray(after_P, np.float64) - np.asarray(before_P, np.float64)
    n = len(difference)
    mean = float(difference.mean()) if n else float("nan")
    half = _Z95 * float(difference.std(ddof=1)) / np.sqrt(n) if n > 1 else float("nan")
    return Interval(mean, mean - float(half), mean + float(half))
