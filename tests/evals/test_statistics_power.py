"""Power and the number of tasks beside statsmodels, by simulation, and their inverses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower, TTestPower

from agentrl.evals.power import (
    detectable_difference,
    paired_spread,
    power,
    spread,
    tasks_needed,
)
from agentrl.evals.statistics import t_quantile


@pytest.mark.parametrize(("effect", "tasks"), [(0.1, 50), (0.3, 40), (0.5, 12), (0.05, 3000)])
def test_power_is_statsmodels(effect: float, tasks: int) -> None:
    wanted = TTestPower().power(effect, tasks, 0.05)
    assert power(effect * 0.4, deviation=0.4, tasks=tasks) == pytest.approx(wanted, abs=1e-6)
    wanted = TTestIndPower().power(effect, tasks, 0.05)
    found = power(effect * 0.4, deviation=0.4, tasks=tasks, paired=False)
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("difference", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("paired", [True, False])
def test_the_tasks_needed_are_statsmodels(difference: float, paired: bool) -> None:
    solver = TTestPower() if paired else TTestIndPower()
    wanted = solver.solve_power(difference / 0.45, power=0.8, alpha=0.05)
    assert tasks_needed(difference, deviation=0.45, paired=paired) == math.ceil(wanted)


def test_the_tasks_needed_are_near_the_textbooks_formula() -> None:
    # (1.96 + 0.8416)^2 * variance / difference^2, and twice that for each policy when unpaired.
    assert tasks_needed(0.03, deviation=0.5) == pytest.approx(7.849 * 0.25 / 0.0009, rel=0.002)
    unpaired = tasks_needed(0.03, deviation=0.5, paired=False)
    assert unpaired == pytest.approx(2 * 7.849 * 0.25 / 0.0009, rel=0.002)


def test_no_number_of_tasks_sees_nothing() -> None:
    assert tasks_needed(0.0, deviation=0.5) is None
    assert tasks_needed(0.1, deviation=math.nan) is None
    assert tasks_needed(1e-9, deviation=0.5) is None
    assert tasks_needed(0.1, deviation=0.0) == 2
    assert power(0.5, deviation=0.5, tasks=1) == 0.0


def test_the_detectable_difference_is_the_other_way_round() -> None:
    for tasks in (2, 3, 5, 10, 30, 100, 300, 500, 2000, 20_000):
        found = detectable_difference(tasks, deviation=0.45)
        assert power(found, deviation=0.45, tasks=tasks) == pytest.approx(0.8, abs=1e-6)
        assert tasks_needed(found * 1.000001, deviation=0.45) == tasks
    assert math.isnan(detectable_difference(1, deviation=0.45))


@pytest.mark.parametrize("tasks", [2, 6, 11, 100, 300, 500, 100_001])
def test_power_grows_with_the_difference_up_to_certainty(tasks: int) -> None:
    found = [power(one, deviation=0.3, tasks=tasks) for one in np.linspace(0, 30, 400)]
    assert found[0] == pytest.approx(0.05, abs=1e-6) and found[-1] > 0.99
    assert min(np.diff(found)) >= -1e-9 and max(found) <= 1.0


def test_power_with_two_tasks_is_that_of_a_simulation() -> None:
    rng = np.random.default_rng(4)
    d = rng.normal(4.0, 0.2, (100_000, 2))
    t = d.mean(axis=1) / d.std(axis=1, ddof=1) * math.sqrt(2)
    seen = float((np.abs(t) > t_quantile(1)).mean())
    assert power(4.0, deviation=0.2, tasks=2) == pytest.approx(seen, abs=0.005)


def test_a_spread_by_hand() -> None:
    # Means 0.5 and 1; variances of the samples 0.5 and 0; of the means 0.125.
    found = spread([[0.0, 1.0], [1.0, 1.0]])
    assert found.within == pytest.approx(0.25)
    assert found.between == pytest.approx(max(0.0, 0.125 - 0.25 / 2))
    assert found.deviation(2) == pytest.approx(math.sqrt(0.125))


def test_single_samples_cannot_be_split() -> None:
    found = spread([[0.0], [1.0], [1.0]])
    assert found.between == pytest.approx(1 / 3) and math.isnan(found.within)
    assert found.deviation(1) == pytest.approx(math.sqrt(1 / 3))
    assert math.isnan(found.deviation(4))
    assert math.isnan(spread([[1.0, 0.0]]).between)


def test_a_spread_is_found_again_in_simulated_samples() -> None:
    rng = np.random.default_rng(1)
    p = rng.beta(2.0, 2.0, 4000)
    q = np.clip(p + rng.normal(0.05, 0.05, 4000), 0, 1)
    before, after = (rng.random((4000, 5)) < one[:, None] for one in (p, q))
    found = spread(before.astype(float))
    assert found.between == pytest.approx(0.05, rel=0.1)  # of Beta(2, 2)
    assert found.within == pytest.approx(0.2, rel=0.05)  # the mean of p (1 - p)
    of_pairs = paired_spread(before.astype(float), after.astype(float))
    assert of_pairs.between == pytest.approx(np.var(q - p), abs=0.004)
    assert of_pairs.within == pytest.approx((p * (1 - p) + q * (1 - q)).mean(), rel=0.05)
    with pytest.raises(ValueError, match="same tasks"):
        paired_spread([[1.0]], [])


def test_power_and_size_of_the_paired_test_are_what_the_formula_says() -> None:
    """Two policies with 4 samples of each of 60 tasks, 4,000 times."""
    rng = np.random.default_rng(2)
    tasks, samples, runs = 60, 4, 4000
    p = rng.beta(2.0, 2.0, (runs, tasks))
    bound = t_quantile(tasks - 1)
    for shift in (0.0, 0.2):
        q = p * (1 - shift) + shift
        d = (rng.binomial(samples, q) - rng.binomial(samples, p)) / samples
        t = d.mean(axis=1) / d.std(axis=1, ddof=1) * math.sqrt(tasks)
        seen = float((np.abs(t) > bound).mean())
        if not shift:
            assert seen == pytest.approx(0.05, abs=0.012)
            continue
        within = float((p * (1 - p) + q * (1 - q)).mean())
        between = float(np.var(q - p))
        wanted = power((q - p).mean(), deviation=math.sqrt(between + within / 4), tasks=tasks)
        assert 0.3 < wanted < 0.95 and seen == pytest.approx(wanted, abs=0.025)
