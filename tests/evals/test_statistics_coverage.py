"""The 95 % intervals hold the truth about 95 times in 100, and the tests err 5 times in 100.

`benchmarks/interval_coverage.py` prints the whole table, with the settings in which they do worse.
"""

from __future__ import annotations

import numpy as np
import pytest

from agentrl.evals.statistics import (
    bootstrap_interval,
    mean_interval,
    normal_quantile,
    paired_difference,
    ratio_of_means,
    sign_flip_p,
    wilson_bounds,
)

RUNS = 4000


def chances(rng, mean: float, spread: float, shape) -> np.ndarray:
    return rng.beta(mean * spread, (1 - mean) * spread, shape)


@pytest.mark.parametrize("tasks", [100, 300])
@pytest.mark.parametrize("samples", [1, 4, 16])
@pytest.mark.parametrize(("mean", "spread"), [(0.5, 4.0), (0.5, 0.6), (0.2, 2.5), (0.9, 2.0)])
def test_intervals_of_means_cover_93_to_97_in_100(tasks, samples, mean, spread) -> None:
    rng = np.random.default_rng(tasks + samples)
    values = rng.binomial(samples, chances(rng, mean, spread, (RUNS, tasks))) / samples
    low, high = wilson_bounds(values)
    assert 0.93 <= ((low <= mean) & (mean <= high)).mean() <= 0.97
    single = mean_interval(values[0])
    assert (single.low, single.high) == (low[0], high[0])


@pytest.mark.parametrize("samples", [1, 4, 16])
@pytest.mark.parametrize(("mean", "spread"), [(0.5, 4.0), (0.5, 0.6), (0.2, 2.5), (0.9, 2.0)])
def test_intervals_of_ten_tasks_are_wide_but_seldom_wrong(samples, mean, spread) -> None:
    rng = np.random.default_rng(samples)
    values = rng.binomial(samples, chances(rng, mean, spread, (RUNS, 10))) / samples
    low, high = wilson_bounds(values)
    assert ((low <= mean) & (mean <= high)).mean() >= 0.92
    assert (high - low).mean() < 0.65


def test_samples_taken_as_independent_would_not_cover() -> None:
    rng = np.random.default_rng(0)
    values = rng.binomial(16, chances(rng, 0.5, 0.6, (RUNS, 100))) / 16
    half = normal_quantile() * np.sqrt(0.25 / 1600)
    assert (np.abs(values.mean(axis=1) - 0.5) <= half).mean() < 0.6


@pytest.mark.parametrize(("samples", "gain"), [(1, 0.0), (1, 0.2), (4, 0.0), (4, 0.2)])
def test_intervals_of_paired_differences_cover(samples, gain) -> None:
    rng = np.random.default_rng(1)
    chance = chances(rng, 0.5, 2.0, (RUNS // 2, 60))
    before = rng.binomial(samples, chance) / samples
    after = rng.binomial(samples, chance + (1 - chance) * gain) / samples
    found = [paired_difference(a, b) for a, b in zip(before, after, strict=True)]
    held = np.mean([one.low <= gain / 2 <= one.high for one in found])
    assert 0.935 <= held <= 0.97


@pytest.mark.parametrize("samples", [1, 4])
def test_the_sign_flip_test_errs_at_most_as_often_as_it_says(samples) -> None:
    rng = np.random.default_rng(2)
    chance = chances(rng, 0.5, 2.0, (1500, 25))
    before, after = (rng.binomial(samples, chance) / samples for _ in "ab")
    p = np.asarray([sign_flip_p(b - a) for a, b in zip(before, after, strict=True)])
    assert 0.02 <= (p <= 0.05).mean() <= 0.062
    assert (p <= 0.2).mean() <= 0.225


def test_intervals_of_ratios_cover_as_well_as_their_bootstrap() -> None:
    rng = np.random.default_rng(3)
    held = np.zeros(2)
    for run in range(250):
        size = rng.lognormal(5.0, 0.5, 60)
        more = size * rng.lognormal(0.2, 0.3, 60)
        ours = ratio_of_means(size, more)
        columns = np.stack([more, size], axis=1)
        theirs = bootstrap_interval(columns, lambda m: m[:, 0] / m[:, 1], seed=run, resamples=400)
        held += [one.low <= np.exp(0.245) <= one.high for one in (ours, theirs)]
    assert held[0] / 250 >= 0.91 and held[0] >= held[1] - 6
