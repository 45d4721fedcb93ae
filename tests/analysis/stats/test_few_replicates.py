"""Intervals of a median and of a trend in ranks: exact for a handful of replicates, by counting and against scipy."""

import inspect
import itertools

import numpy as np
import pytest
from scipy import stats

from dgu.analysis import median_interval, rank_correlation, rank_trend
from dgu.core.errors import InputError


@pytest.mark.parametrize(("rows", "points"), [(3, 3), (2, 4), (3, 4), (2, 6), (4, 5)])
def test_the_interval_of_a_trend_leaves_zero_out_where_pages_test_rejects(rows, points):
    """In either direction; the value is the mean of Spearman's correlations."""
    rng, x = np.random.default_rng(points), np.array([1.0, 2, 4, 8, 16, 32])[:points]
    decided = 0
    for strength in np.repeat([0.0, 0.4, 0.8], 30):
        values = rng.normal(size=(rows, points)) + strength * np.arange(points)
        found = rank_trend(x, values)
        assert found.value == pytest.approx(rank_correlation(x, values).mean()) and -1 <= found.low <= found.high <= 1
        rising, falling = (stats.page_trend_test(of, method="exact").pvalue for of in (values, -values))
        assert (found.low > 0) == (rising <= 0.025) and (found.high < 0) == (falling <= 0.025)
        decided += found.low > 0
    assert 0 < decided < 90


def test_a_trend_with_ties_is_that_of_all_orders_of_the_tied_ranks():
    """By writing down every order of two rows of four; a row of equal values counts as no correlation."""
    x, rows = [1, 3, 2, 9], np.array([[1.0, 2.0, 1.0, 5.0], [0.0, 7.0, 0.0, 7.0]])
    a = stats.rankdata(x) - 2.5
    sums = [[a @ np.array(order) for order in itertools.permutations(stats.rankdata(row) - 2.5)] for row in rows]
    every = np.sort(np.add.outer(*sums).ravel())
    reached = np.array([(every >= value).mean() for value in np.unique(every)])
    first = np.flatnonzero(reached <= 0.025)[0]
    critical = np.unique(every)[first - 1 : first + 1].mean() / (2 * a @ a)
    found, value = rank_trend(x, rows), sum(a @ (stats.rankdata(row) - 2.5) for row in rows) / (2 * a @ a)
    ends = max(-1, value - critical), min(1, value + critical)
    np.testing.assert_allclose((found.value, found.low, found.high), (value, *ends), atol=1e-12)
    level = rank_trend(x, np.ones((2, 4)))
    assert (level.value, level.low, level.high) == (0, -1, 1)


def test_seeds_that_all_agree_leave_the_strength_of_a_trend_open():
    alike = np.tile(np.arange(4.0), (3, 1))
    assert rank_trend([1, 2, 3, 4], alike).low == pytest.approx(0.3)
    # Of one row of four values 1 of 24 orders rises throughout: more than 2.5 %.
    alone = rank_trend([1, 2, 3, 4], alike[:1])
    assert (alone.value, alone.low, alone.high) == (1, -1, 1)


def test_of_many_points_orders_are_nearly_normal():
    """At 12 points, where they are still counted, and at 13: one step of the sum of three rows apart at most."""
    rng = np.random.default_rng(0)
    for points in (12, 13):
        rows = rng.normal(size=(3, points))
        found = rank_trend(np.arange(points), rows)
        assert (found.method == "exact over all orders") == (points == 12)
        normal = stats.norm.isf(0.025) / np.sqrt(3 * (points - 1))
        assert found.high - found.value == pytest.approx(normal, rel=0.01)


def test_the_interval_of_a_median_is_between_order_statistics():
    """Its level is the probability that the median has k values on either side, by counting signs of n values."""
    rng = np.random.default_rng(0)
    for n in (6, 9, 10, 12):
        values = rng.lognormal(size=n)
        found, ordered = median_interval(values), np.sort(values)
        k = int(np.flatnonzero(ordered == found.low)[0]) + 1
        signs = (np.arange(2**n)[:, None] >> np.arange(n) & 1).sum(axis=1)
        level, next_level = (np.mean((signs >= at) & (signs <= n - at)) for at in (k, k + 1))
        assert found.high == ordered[-k] and found.value == np.median(values)
        assert found.level == pytest.approx(level) and level >= 0.95 > next_level


def test_five_values_have_no_interval_and_ends_stay_in_the_range():
    found = median_interval([1.0, 2, 3, 4, 5])
    assert (found.value, found.low, found.high) == (3, -np.inf, np.inf)
    assert median_interval([0.2, 0.4], bounds=(0, 1)).stacked().tolist() == pytest.approx([0.3, 0, 1])
    assert median_interval(np.arange(5.0), 0.9).stacked().tolist() == [2, 0, 4]


@pytest.mark.parametrize(
    ("call", "arguments", "words"),
    [
        (median_interval, ([],), r"values.shape = \(0,\): must be \(n,\)"),
        (median_interval, ([1.0, np.inf],), "values = 'not finite'"),
        (median_interval, ([1.0], 1.0), "confidence = 1.0"),
        (rank_trend, ([1, 2, 3], [[1.0, 2.0]]), r"shapes of x and rows = \(\(3,\), \(1, 2\)\)"),
        (rank_trend, ([1, 2], [[1.0, 2.0]]), "length of x = 2: must be 3 or more"),
        (rank_trend, ([1, 2, 2], [[1.0, 2.0, 3.0]]), "x = .*: must be different values"),
        (rank_trend, ([1, 2, 3], [[1.0, np.nan, 3.0]]), "rows = 'not finite'"),
        (rank_trend, ([1, 2, 3], [[1.0, 2.0, 3.0]], 0.0), "confidence = 0.0"),
    ],
)
def test_bad_input_is_one_line(call, arguments, words):
    with pytest.raises(InputError, match=words) as error:
        inspect.unwrap(call)(*arguments)
    assert "\n" not in str(error.value)
