"""How many tasks, and how many samples of each, a difference of a given size needs."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from agentrl.evals.statistics import Array, Values, task_means

_MOST_TASKS = 10_000_000


class Spread(NamedTuple):
    """Where the variance of a task's mean comes from (Miller 2024, section 4).

    `between` is the variance over tasks of what their mean tends to with many samples, `within`
    the variance of one sample of a task, averaged over tasks. Of a paired difference, `between`
    is the variance of the true differences and `within` the sum of both policies'. Where every
    task has one sample they cannot be told apart: `within` is NaN and `between` is all of it.
    """

    between: float
    within: float

    def deviation(self, samples: int) -> float:
        """Standard deviation over tasks of the mean of so many samples each.

        NaN where `within` is unknown and `samples` is not 1.
        """
        if np.isnan(self.within):
            return sqrt(self.between) if samples == 1 else float("nan")
        return sqrt(self.between + self.within / samples)


def spread(samples_P_N: Sequence[Values]) -> Spread:
    """Spread of one policy's scores; needs two tasks, and two samples of some task to split it."""
    means = task_means(samples_P_N)
    return _split(means, [samples_P_N])


def paired_spread(before_P_N: Sequence[Values], after_P_N: Sequence[Values]) -> Spread:
    """Spread of the differences of two policies over the same tasks, in the same order."""
    if len(before_P_N) != len(after_P_N):
        raise ValueError("a paired spread needs the same tasks on both sides")
    return _split(task_means(after_P_N) - task_means(before_P_N), [before_P_N, after_P_N])


def _split(means_P: Array, sides: Sequence[Sequence[Values]]) -> Spread:
    total = float(means_P.var(ddof=1)) if len(means_P) > 1 else float("nan")
    within = noise = 0.0
    for samples_P_N in sides:
        several = [np.var(one, ddof=1) for one in samples_P_N if len(one) > 1]
        if not several:
            return Spread(total, float("nan"))
        of_one = float(np.mean(several))
        within += of_one
        noise += of_one * float(np.mean([1 / len(one) for one in samples_P_N]))
    between = total - noise
    return Spread(0.0 if between < 0.0 else between, within)


def power(
    difference: float, *, deviation: float, tasks: int, level: float = 0.05, paired: bool = True
) -> float:
    """Chance that a two-sided t test at `level` sees a true `difference`.

    Paired: `deviation` is that of the differences over tasks. Unpaired: `tasks` tasks for each
    policy, `deviation` that of one policy's task means. Noncentral t, as in Cohen 1988.
    """
    from scipy.special import nctdtr, stdtrit

    if tasks < 2:
        return 0.0
    if deviation == 0.0:
        return 1.0 if difference else level
    freedom = tasks - 1 if paired else 2 * tasks - 2
    away = abs(difference) / deviation * (tasks if paired else tasks / 2) ** 0.5
    bound = float(stdtrit(freedom, 1 - level / 2))
    # Tails that are too small for the noncentral t to be computed come as NaN: they are 0.
    missed, opposite = np.nan_to_num([nctdtr(freedom, away, one) for one in (bound, -bound)])
    return float(1 - missed + opposite)


def tasks_needed(
    difference: float,
    *,
    deviation: float,
    chance: float = 0.8,
    level: float = 0.05,
    paired: bool = True,
) -> int | None:
    """The fewest tasks (unpaired: for each policy) with which `power` reaches `chance`.

    None where no number up to ten million does, as for a difference of 0.
    """
    if not np.isfinite([difference, deviation]).all():
        return None

    def enough(tasks: int) -> bool:
        found = power(difference, deviation=deviation, tasks=tasks, level=level, paired=paired)
        return found >= chance

    low, high = 1, 2
    while not enough(high):
        low, high = high, high * 2
        if low > _MOST_TASKS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable_difference(
    tasks: int, *, deviation: float, chance: float = 0.8, level: float = 0.05, paired: bool = True
) -> float:
    """The smallest true difference that so many tasks see with probability `chance`."""
    if tasks < 2 or not np.isfinite(deviation):
        return float("nan")
    low, high = 0.0, deviation
    while power(high, deviation=deviation, tasks=tasks, level=level, paired=paired) < chance:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        found = power(middle, deviation=deviation, tasks=tasks, level=level, paired=paired)
        low, high = (low, middle) if found >= chance else (middle, high)
    return high
