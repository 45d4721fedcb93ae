"""Variance between pools and the interval that has it: against closed forms, against a slow computation, and covered."""

import numpy as np
import pytest
from scipy import stats

from dgu.analysis.stats.pools import (
    PoolVariance,
    no_pool_variance,
    pool_variance,
    pooled_interval,
    smoothed_bootstrap,
)
from dgu.core.errors import InputError


def by_hand(values):
    """Mean squares of the two-way analysis of variance, one number at a time."""
    pools, splits = values.shape
    grand = values.mean()
    rest = sum(
        (values[p, j] - values[p].mean() - values[:, j].mean() + grand) ** 2
        for p in range(pools)
        for j in range(splits)
    ) / ((pools - 1) * (splits - 1))
    between = sum((values[p].mean() - grand) ** 2 for p in range(pools)) / (pools - 1)
    return between, rest / splits


def test_pool_variance_is_that_of_the_table():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 7, 4)) + 3 * rng.normal(size=(3, 7, 1)) + 100 * rng.normal(size=(3, 1, 4))
    found = pool_variance(values)
    for place in range(3):
        between, rest = by_hand(values[place])
        assert found.value[place] == pytest.approx(between - rest, rel=1e-9)
        assert found.variance[place] == pytest.approx(2 * between**2 / 6 + 2 * rest**2 / 18, rel=1e-9)
    assert found.freedom == 6


def test_pool_variance_is_unbiased_and_its_expectation_is_that_of_what_is_above_zero():
    rng = np.random.default_rng(1)
    for truth in (0.0, 2.0):
        found = pool_variance(np.sqrt(truth) * rng.normal(size=(20_000, 24, 1)) + rng.normal(size=(20_000, 24, 2)))
        assert found.value.mean() == pytest.approx(truth, abs=5 * found.value.std() / np.sqrt(20_000))
        # The estimate of its sampling variance exceeds it by about 2 / 23: a mean square is squared.
        assert found.variance.mean() == pytest.approx(found.value.var(), rel=0.15)
    for value, variance in ((0.5, 0.04), (-1.0, 2.0), (0.0, 1.0)):
        drawn = np.maximum(value + np.sqrt(variance) * rng.normal(size=400_000), 0)
        expected = PoolVariance(value, variance, 9).expected
        assert expected == pytest.approx(drawn.mean(), abs=5 * drawn.std() / np.sqrt(400_000))
    assert PoolVariance(0.3, 0.0, 9).expected == 0.3 and PoolVariance(-0.3, 0.0, 9).expected == 0.0


def test_the_interval_is_student_s_without_variance_between_pools():
    values = np.random.default_rng(2).normal(size=(2, 9))
    found = pooled_interval(values, no_pool_variance((2,)))
    half = stats.t.ppf(0.975, 8) * values.std(axis=1, ddof=1) / 3
    np.testing.assert_allclose(found.high, values.mean(axis=1) + half, rtol=1e-12)
    np.testing.assert_allclose(found.low, values.mean(axis=1) - half, rtol=1e-12)


def test_error_freedom_and_ends_with_variance_between_pools():
    values = np.asarray([1.0, 2.0, 4.0, 5.0])
    between = PoolVariance(np.asarray(0.3), np.asarray(0.02), 11)
    found = pooled_interval(values, between)
    inside = values.var(ddof=1) / 4
    outside = float(between.expected)
    assert 0.3 < outside < 0.301
    freedom = (inside + outside) ** 2 / (inside**2 / 3 + outside**2 / 11)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(inside + outside)
    assert found.standard_error == pytest.approx(np.sqrt(inside + outside), rel=1e-12)
    assert (found.low, found.high) == (pytest.approx(3 - half, rel=1e-12), pytest.approx(3 + half, rel=1e-12))
    cut = pooled_interval(values, between, bounds=(2.5, 3.5))
    assert (cut.low, cut.high) == (2.5, 3.5)


def test_several_pools_share_the_variance_between_them():
    """Two pools whose means differ: only the spread within a pool counts, and V is halved."""
    values = np.asarray([0.0, 10.0, 1.0, 11.0, 2.0, 12.0])
    found = pooled_interval(values, PoolVariance(np.asarray(4.0), np.asarray(0.01), 9), pool_of=np.arange(6) % 2)
    assert found.value == 6.0
    assert found.standard_error == pytest.approx(np.sqrt(1.0 / 6 + 4.0 / 2), rel=1e-12)


def test_replicates_that_agree_have_no_width_whatever_the_pools_say():
    found = pooled_interval(np.full(5, 0.1), PoolVariance(np.asarray(2.0), np.asarray(0.1), 9))
    assert found.low == found.high == pytest.approx(0.1) and found.standard_error == 0.0


@pytest.mark.parametrize(("ratio", "least", "alone"), [(0.3, 0.95, 0.95), (2.0, 0.93, 0.8), (4.0, 0.92, 0.7)])
def test_the_interval_covers(ratio, least, alone):
    """Whatever the variance between pools, in units of S^2 / 12; cut at 0, its estimate would leave 91 % at 2 and 4."""
    rng = np.random.default_rng(3)
    count, deviation = 20_000, np.sqrt(ratio / 12)
    values = deviation * rng.normal(size=(count, 1)) + rng.normal(size=(count, 12))
    again = pool_variance(deviation * rng.normal(size=(count, 24, 1)) + rng.normal(size=(count, 24, 2)))
    found, without = pooled_interval(values, again), pooled_interval(values, no_pool_variance((count,)))
    covered, narrow = (np.mean((one.low <= 0) & (one.high >= 0)) for one in (found, without))
    assert least <= covered <= 0.99
    assert narrow < alone
    # The former rule, with the estimate cut at 0.
    inside, cut = values.var(axis=1, ddof=1) / 12, np.maximum(again.value, 0)
    freedom = 2 * (inside + cut) ** 2 / (2 * inside**2 / 11 + again.variance)
    half = stats.t.ppf(0.975, np.maximum(freedom, 11)) * np.sqrt(inside + cut)
    former = np.mean(np.abs(values.mean(axis=1)) <= half)
    assert former < covered and (ratio < 1 or former == pytest.approx(0.911, abs=0.01))


def test_the_smoothed_bootstrap_keeps_mean_and_covariance_and_no_two_rows_are_equal():
    rng = np.random.default_rng(4)
    rows = (rng.exponential(size=(2, 400, 3)) @ rng.normal(size=(2, 3, 3)) + 5).astype(np.float32)
    drawn = np.stack([smoothed_bootstrap(rows, np.random.default_rng(seed), 0.5) for seed in range(200)])
    assert drawn.dtype == np.float32 and len(np.unique(drawn[0, 0], axis=0)) == 400
    for label in range(2):
        every = drawn[:, label].reshape(-1, 3).astype(float)
        spread = rows[label].std(axis=0)
        np.testing.assert_allclose(every.mean(axis=0) / spread, rows[label].mean(axis=0) / spread, atol=5 / 80_000**0.5)
        scale = np.linalg.norm(np.cov(rows[label].T))
        np.testing.assert_allclose(np.cov(every.T) / scale, np.cov(rows[label].T) / scale, atol=0.02)
        # Skewness falls by (1 + h^2)^(3/2): what is not Gaussian stays, less of it.
        skew = stats.skew(every[:, 0]) / stats.skew(rows[label][:, 0].astype(float))
        assert skew == pytest.approx(1.25**-1.5, abs=0.06)


def test_whole_numbers_are_moved_like_any_others():
    rows = np.random.default_rng(6).integers(0, 9, size=(1, 50, 3))
    drawn = smoothed_bootstrap(rows, np.random.default_rng(0), 0.5)
    assert np.issubdtype(drawn.dtype, np.floating) and np.abs(drawn - np.round(drawn)).max() > 0.1


def test_a_pool_of_fewer_rows_than_dimensions_stays_in_their_span():
    rows = np.random.default_rng(5).normal(size=(1, 4, 9))
    drawn = smoothed_bootstrap(rows, np.random.default_rng(0), 1.0)
    basis = np.linalg.svd(rows[0] - rows[0].mean(axis=0))[2][:3]
    moved = drawn[0] - rows[0].mean(axis=0)
    np.testing.assert_allclose(moved @ basis.T @ basis, moved, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: pool_variance(np.zeros((1, 4))), "pools = 1: must be at least 2"),
        (lambda: pool_variance(np.zeros((4, 1))), "splits = 1: must be at least 2"),
        (lambda: pool_variance(np.full((2, 2), np.nan)), "values = 'non-finite': must be finite"),
        (lambda: pooled_interval(np.zeros(3), no_pool_variance(()), pool_of=[0, 0, 1]), "replicates of each pool"),
        (lambda: pooled_interval(np.zeros(1), no_pool_variance(())), "replicates of each pool"),
        (lambda: pooled_interval(np.arange(3.0), no_pool_variance(()), confidence=1.0), "confidence = 1.0"),
        (lambda: pooled_interval(np.arange(3.0), no_pool_variance(()), bounds=(1, 1)), "bounds"),
        (lambda: smoothed_bootstrap(np.zeros((1, 3, 2)), np.random.default_rng(0), 0.0), "bandwidth = 0.0"),
        (lambda: pooled_interval(np.zeros((2, 0)), no_pool_variance((2,))), "values.shape = (2, 0)"),
    ],
)
def test_refusals(call, line):
    with pytest.raises(InputError) as error:
        call()
    assert line in str(error.value)
