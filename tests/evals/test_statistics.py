"""Intervals, differences and tests: worked by hand, by their properties, and beside scipy's."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.regression.linear_model import WLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from agentrl.evals.statistics import (
    bootstrap_interval,
    holm,
    mcnemar_p,
    mean_interval,
    paired_difference,
    sign_flip_p,
    task_means,
    unpaired_difference,
)

UNIT = st.floats(0.0, 1.0, allow_subnormal=False)


# -- means ----------------------------------------------------------------------------------------


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    found = mean_interval([1.0] * 8 + [0.0] * 2)  # Wilson 1927: 0.8 of 10 -> [0.490, 0.943]
    assert found.method == "wilson" and found.tasks == 10
    assert found.value == pytest.approx(0.8)
    assert found.error == pytest.approx(math.sqrt(0.16 / 9))
    assert found.low == pytest.approx(0.4902, abs=1e-4)
    assert found.high == pytest.approx(0.9433, abs=1e-4)


@pytest.mark.parametrize(("right", "n"), [(0, 7), (7, 7), (1, 12), (30, 31), (500, 1319)])
def test_wilsons_interval_is_scipys(right: int, n: int) -> None:
    found = mean_interval([1.0] * right + [0.0] * (n - right))
    wanted = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_samples_of_a_task_are_one_number_with_wilsons_interval_at_the_effective_n() -> None:
    found = mean_interval([0.0, 0.5, 1.0, 0.5])
    # By hand: mean 1/2, sum of squares 1/2, (n-1) * mean * (1-mean) = 3/4; the dispersion is
    # (1/2 + 1/4) / (3/4 + 1/4) = 3/4, so 4 tasks say as much as 16/3 independent ones.
    n, z2 = 16 / 3, 1.959963984540054**2
    half = math.sqrt(z2) * math.sqrt(0.25 / n + z2 / (4 * n * n)) / (1 + z2 / n)
    assert found.method == "cluster_wilson"
    assert found.error == pytest.approx(math.sqrt(0.5 / 3 / 4))
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_what_is_not_between_0_and_1_takes_students_t() -> None:
    values = [-0.5, 0.25, 1.0, 3.0, 0.5]
    found = mean_interval(values)
    wanted = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.method == "cluster_t"
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_the_error_is_that_of_a_regression_clustered_by_task() -> None:
    rng = np.random.default_rng(3)
    samples = [rng.random(n) + rng.normal() for n in rng.integers(1, 9, 25)]
    task = np.repeat(np.arange(25), [len(one) for one in samples])
    weights = np.repeat([1 / len(one) for one in samples], [len(one) for one in samples])
    fit = WLS(np.concatenate(samples), np.ones(len(task)), weights=weights)
    wanted = fit.fit(cov_type="cluster", cov_kwds={"groups": task})
    found = mean_interval(task_means(samples))
    assert found.value == pytest.approx(wanted.params[0])
    assert found.error == pytest.approx(wanted.bse[0])


def test_one_task_has_a_value_and_no_interval_and_no_task_has_neither() -> None:
    one, none = mean_interval([0.75]), mean_interval([])
    assert one.value == 0.75 and one.method == none.method == "none"
    assert math.isnan(one.low) and math.isnan(one.error) and math.isnan(none.value)
    assert one.plain() == [0.75, None, None] and none.plain() == [None, None, None]


def test_all_right_and_all_wrong_are_no_proof_of_certainty() -> None:
    right, wrong = mean_interval([1.0] * 20), mean_interval([0.0] * 20)
    z2 = 1.959963984540054**2
    assert right.high == 1.0 and right.low == pytest.approx(20 / (20 + z2))
    assert wrong.low == 0.0 and wrong.high == pytest.approx(z2 / (20 + z2))


def test_equal_numbers_outside_0_to_1_give_no_interval() -> None:
    assert mean_interval([2.0, 2.0, 2.0]).method == "none"


def test_a_lost_sample_is_refused_instead_of_averaged() -> None:
    with pytest.raises(ValueError, match="not finite"):
        mean_interval([1.0, math.nan])
    with pytest.raises(ValueError, match="no samples"):
        task_means([[1.0], []])


@settings(max_examples=60, deadline=None)
@given(st.lists(UNIT, min_size=2, max_size=40), st.randoms())
def test_an_interval_holds_its_value_stays_in_bounds_and_knows_no_order(values, random) -> None:
    found = mean_interval(values)
    assert 0.0 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1.0
    shuffled = list(values)
    random.shuffle(shuffled)
    assert mean_interval(shuffled)[:4] == pytest.approx(found[:4], abs=1e-9)
    mirrored = mean_interval([1.0 - value for value in values])
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(UNIT, min_size=1, max_size=5), min_size=2, max_size=12), st.randoms())
def test_neither_the_order_of_samples_nor_copies_of_them_change_anything(tasks, random) -> None:
    found = mean_interval(task_means(tasks))
    mixed = [random.sample(one, len(one)) for one in tasks]
    assert mean_interval(task_means(mixed))[:4] == pytest.approx(found[:4], abs=1e-9)
    copied = mean_interval(task_means([one * 3 for one in tasks]))
    assert copied[:4] == pytest.approx(found[:4], abs=1e-9)  # copies are no new evidence


# -- the bootstrap --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_bootstrap_of_a_mean_is_scipys(method: str) -> None:
    values = np.random.default_rng(5).gamma(1.0, 2.0, 40)
    found = bootstrap_interval(
        values[:, None], lambda m: m[:, 0], seed=1, resamples=20_000, method=method
    )
    wanted = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(2)
    )
    low, high = wanted.confidence_interval
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.06)
    assert found.error == pytest.approx(wanted.standard_error, rel=0.03)


def test_the_bootstrap_of_a_ratio_is_scipys() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.gamma(2.0, 1.0, 60), rng.gamma(3.0, 1.0, 60)
    found = bootstrap_interval(
        np.stack([a, b], axis=1), lambda m: m[:, 0] / m[:, 1], seed=1, resamples=20_000
    )
    wanted = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis=axis) / y.mean(axis=axis),
        paired=True,
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found.value == pytest.approx(a.sum() / b.sum())
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.015)


def test_the_bootstrap_repeats_itself_and_says_nothing_of_equal_or_single_tasks() -> None:
    values = np.arange(10.0)[:, None]
    one = bootstrap_interval(values, lambda m: m[:, 0], seed=4)
    assert one == bootstrap_interval(values, lambda m: m[:, 0], seed=4)
    assert one != bootstrap_interval(values, lambda m: m[:, 0], seed=5)
    for same in (np.ones((10, 1)), np.ones((1, 1))):
        assert bootstrap_interval(same, lambda m: m[:, 0], seed=4).method == "none"


# -- differences ----------------------------------------------------------------------------------


def test_a_paired_difference_of_one_sample_each_by_hand() -> None:
    found = paired_difference([0, 0, 1, 0], [1, 1, 1, 0])
    # Bonett and Price 2012: (2 + 1) / 6 won, (0 + 1) / 6 lost.
    half = 1.959963984540054 * math.sqrt((4 / 6 - (2 / 6) ** 2) / 6)
    assert found.value == 0.5 and found.method == "bonett_price"
    assert (found.low, found.high) == pytest.approx((2 / 6 - half, 2 / 6 + half))
    assert found.error == pytest.approx(np.std([1, 1, 0, 0], ddof=1) / 2)


def test_a_paired_difference_of_means_is_students() -> None:
    before, after = [0.25, 0.5, 0.0, 1.0, 0.75], [0.5, 0.5, 0.25, 0.75, 1.0]
    found = paired_difference(before, after)
    wanted = scipy.stats.ttest_rel(after, before).confidence_interval(0.95)
    assert found.method == "cluster_t"
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_an_unpaired_difference_is_welchs() -> None:
    one, two = [0.2, 0.4, 0.9, 0.1], [0.7, 0.8, 0.95, 0.5, 0.6, 1.0]
    found = unpaired_difference(one, two)
    wanted = scipy.stats.ttest_ind(two, one, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_ties_everywhere_leave_room_for_a_difference() -> None:
    few, many = paired_difference([1.0] * 5, [1.0] * 5), paired_difference([0.5] * 500, [0.5] * 500)
    assert few.value == many.value == 0.0
    assert few.low < -0.3 and few.high > 0.3 and -0.02 < many.low < 0.0
    assert sign_flip_p([0.0] * 5) == 1.0 and mcnemar_p([1, 0], [1, 0]) == 1.0


def test_one_task_or_equal_differences_give_no_interval() -> None:
    assert paired_difference([0.0], [1.0]).method == "none"
    assert paired_difference([0.1, 0.2], [0.35, 0.45]).method == "none"
    assert unpaired_difference([1.0], [0.5, 0.25]).method == "none"
    assert math.isnan(paired_difference([], []).value) and math.isnan(sign_flip_p([]))


def test_different_numbers_of_tasks_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="the same tasks, got 2 and 1"):
        paired_difference([0.0, 1.0], [1.0])


# -- tests of no difference -----------------------------------------------------------------------


def test_the_p_of_three_wins_in_three_is_a_quarter() -> None:
    assert sign_flip_p([1.0, 1.0, 1.0]) == 0.25  # +++ and --- of eight
    assert sign_flip_p([0.5, 0.25, 0.0]) == 0.5  # |0.75| by two of four
    assert sign_flip_p([0.3, -0.1, -0.2]) == 1.0


def by_all_signs(differences: list[float]) -> float:
    observed = abs(sum(differences)) - 1e-9
    signs = product((-1, 1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(sign, differences, strict=True))) for sign in signs]
    return sum(one >= observed for one in sums) / len(sums)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([-1.0, -0.75, -1 / 3, 0.0, 0.25, 0.5, 2 / 3]), min_size=1, max_size=9)
)
def test_the_p_of_fractions_is_that_of_all_signs(differences) -> None:
    assert sign_flip_p(differences) == pytest.approx(by_all_signs(differences))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=9))
def test_the_p_of_any_numbers_is_that_of_all_signs(differences) -> None:
    differences = [one if abs(one) > 1e-6 else 0.0 for one in differences]
    assert sign_flip_p(differences) == pytest.approx(by_all_signs(differences))


def test_the_p_of_many_numbers_is_scipys() -> None:
    differences = np.random.default_rng(8).normal(0.2, 1.0, 80)
    wanted = scipy.stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert sign_flip_p(differences) == pytest.approx(wanted, abs=0.01)
    assert sign_flip_p(differences, seed=3) == sign_flip_p(differences, seed=3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_mcnemars_p_is_statsmodels_and_the_sign_flip_test_is_the_same(pairs) -> None:
    before, after = ([float(one) for one in side] for side in zip(*pairs, strict=True))
    table = [[sum(p == (i, j) for p in pairs) for j in (0, 1)] for i in (0, 1)]
    found = mcnemar_p(before, after)
    assert found == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert found == pytest.approx(sign_flip_p(np.subtract(after, before)))


def test_mcnemar_is_not_for_means() -> None:
    with pytest.raises(ValueError, match="sign_flip_p"):
        mcnemar_p([0.5, 1.0], [1.0, 0.0])


@settings(max_examples=8, deadline=None)
@given(st.lists(UNIT, min_size=1, max_size=12))
def test_holm_is_statsmodels(p_values) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert len(holm([])) == 0
