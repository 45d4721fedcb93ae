"""One type for a value with its interval, whatever made it."""

import inspect
from itertools import islice

import numpy as np
import pytest
from scipy import stats

from dgu.analysis.stats import (
    Estimate,
    bounded_mean,
    exactly,
    independent_difference,
    independent_ratio,
    normal_estimate,
    proportion,
    share_difference,
)
from dgu.analysis.stats.estimates import standard_deviation, wilson
from dgu.core.errors import InputError


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_a_normal_estimate_covers_as_often_as_it_says(level):
    draws = np.random.default_rng(0).normal(2.0, 0.5, 20_000)
    found = normal_estimate(draws, np.full_like(draws, 0.5), level=level)
    covers = np.mean((found.low <= 2.0) & (found.high >= 2.0))
    assert abs(covers - level) < 4 * np.sqrt(level * (1 - level) / len(draws))


def test_a_normal_estimate_is_cut_to_its_range():
    found = normal_estimate(0.99, 0.1, bounds=(0.0, 1.0))
    assert found.high == 1.0 and found.low == pytest.approx(0.99 - 0.1 * stats.norm.ppf(0.975), rel=1e-12)
    assert isinstance(found.low, float) and found.method == "normal"


def test_what_is_known_exactly_says_so():
    assert exactly(3.0) == Estimate(
        3.0, 3.0, 3.0, method="exact", exact=True, standard_error=exactly(3.0).standard_error
    )
    assert exactly(3.0).exact and not normal_estimate(3.0, 0.0).exact


def test_entries_of_an_estimate_of_arrays():
    whole = normal_estimate(np.arange(3.0), np.array([0.1, 0.2, 0.3]), n=7)
    one = whole[1]
    assert (one.value, one.standard_error, one.n) == (1.0, 0.2, 7)
    assert one.low == pytest.approx(float(normal_estimate(1.0, 0.2).low), rel=1e-12)
    np.testing.assert_array_equal(whole[1:].value, [1.0, 2.0])


def test_a_rising_function_maps_the_ends():
    found = Estimate(4.0, 1.0, 9.0, standard_error=2.0).map(np.sqrt)
    assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0) and np.isnan(found.standard_error)


@pytest.mark.parametrize("hits", [0, 3, 10])
def test_a_proportion_has_the_interval_of_scipy(hits):
    found = proportion(np.arange(10) < hits)
    exact = stats.binomtest(hits, 10).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert (found.value, found.n) == (hits / 10, 10)


@pytest.mark.parametrize("hits", [0, 3, 10])
def test_the_exact_interval_of_a_proportion_is_made_of_quantiles_of_beta_distributions(hits):
    found = proportion(np.arange(10) < hits, exact=True)
    low = stats.beta.ppf(0.025, hits, 11 - hits) if hits else 0.0
    high = stats.beta.ppf(0.975, hits + 1, 10 - hits) if hits < 10 else 1.0
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert (found.value, found.n, found.method) == (hits / 10, 10, "Clopper-Pearson")


def test_a_bounded_mean_stays_within_its_range():
    """A thousand numbers of 12, the largest there is: by Wilson at most z^2 / (n + z^2) of the others differ."""
    z2 = stats.norm.ppf(0.975) ** 2
    found = bounded_mean(np.full(1000, 12), (0, 12))
    assert (found.value, found.high) == (12, 12) and found.low == pytest.approx(12 * (1 - z2 / (1000 + z2)), rel=1e-12)
    found = bounded_mean(np.full(8, 6), (2, 12))
    ends = 6 - 4 * z2 / (8 + z2), 6 + 6 * z2 / (8 + z2)
    assert (found.low, found.high, found.method) == (*map(pytest.approx, ends), "Wilson")
    found = bounded_mean(np.repeat([11, 12], [100, 900]), (0, 12))
    assert found.value == pytest.approx(11.9) and (found.low + found.high) / 2 == pytest.approx(11.9, abs=0.005)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.3 / 1000**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("values", "bounds", "line"),
    [([], (0, 1), r"values.shape"), ([2.0], (0, 1), r"values = .*within \[0, 1\]"), ([1.0], (1, 1), "bounds")],
)
def test_what_has_no_bounded_mean_is_refused(values, bounds, line):
    with pytest.raises(InputError, match=line):
        bounded_mean(np.asarray(values), bounds)


@pytest.mark.parametrize(("given", "line"), [((1.0, 2.0, 1.0), "interval"), ((1.0, 0.0, 2.0, 1.0), "level = 1.0")])
def test_impossible_estimates_are_refused(given, line):
    with pytest.raises(InputError, match=line):
        Estimate(*given)


def test_entries_follow_one_another():
    whole = normal_estimate(np.arange(3.0), np.array([0.1, 0.2, 0.3]))
    assert [one.value for one in whole] == [0.0, 1.0, 2.0] and [one.standard_error for one in whole] == [0.1, 0.2, 0.3]
    np.testing.assert_array_equal([one.stacked() for one in whole], whole.stacked())
    np.testing.assert_array_equal(whole.stacked()[2], [2.0, whole.low[2], whole.high[2]])


@pytest.mark.parametrize("value", [0.25, np.array([[0.25, 0.5], [1.0, 2.0]])])
def test_a_packed_estimate_is_read_back(value):
    given = normal_estimate(value, np.asarray(value) / 10)
    stored = given.packed()
    assert stored.shape == (4, *np.shape(value)) and stored.dtype == np.float64
    found = Estimate.unpacked(stored)
    for name in ("value", "standard_error", "low", "high"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
    assert isinstance(found.value, float) == (np.ndim(value) == 0)
    with pytest.raises(InputError, match=r"^stored.shape = \(3,"):
        Estimate.unpacked(stored[:3])


def of_means(rng, mean, spread, count, sets):
    """Means of many sets of draws, with their standard errors."""
    draws = rng.normal(mean, spread, (sets, count))
    return normal_estimate(draws.mean(axis=1), draws.std(axis=1, ddof=1) / np.sqrt(count))


def test_intervals_of_ratio_and_difference_cover_as_often_as_they_say():
    rng, sets = np.random.default_rng(1), 4000
    a, b = of_means(rng, 3.0, 0.9, 100, sets), of_means(rng, 2.0, 0.8, 150, sets)
    ratio = independent_ratio(a, b)
    # One after the other: the difference takes one estimate.
    difference = [independent_difference(one, other, 0.5) for one, other in islice(zip(a, b), 500)]

    def error(sets):
        return 4 * np.sqrt(0.95 * 0.05 / sets)

    assert abs(np.mean((ratio.low <= 1.5) & (ratio.high >= 1.5)) - 0.95) < error(sets)
    assert abs(np.mean([one.low <= 2.0 <= one.high for one in difference]) - 0.95) < error(500)
    # The standard errors are those that the values have.
    np.testing.assert_allclose(ratio.standard_error.mean(), ratio.value.std(), rtol=0.04)
    np.testing.assert_allclose(difference[0].standard_error, 2 * np.hypot(a.standard_error[0], b.standard_error[0]))


def test_ratio_and_difference_of_what_cannot_be_measured():
    nothing, b = normal_estimate(0.0, 0.1), normal_estimate(2.0, 0.1)
    assert independent_ratio(nothing, b).stacked().tolist() == [0.0, 0.0, nothing.high / 2.0]
    below = normal_estimate(-1.0, 0.1)
    assert independent_ratio(below, b).stacked().tolist() == [0.0, 0.0, 0.0]
    for denominator in (nothing, below):
        with pytest.raises(InputError, match=r"^b = .*: must be positive and finite$"):
            independent_ratio(b, denominator)
    with pytest.raises(InputError, match=r"^a = .*: must be positive, where there are several$"):
        independent_ratio(Estimate(np.zeros(2), 0.0, 1.0, standard_error=np.ones(2)), b)
    with pytest.raises(InputError, match=r"^scale = 0.0: must be positive and finite$"):
        independent_difference(b, b, 0.0)
    other = normal_estimate(2.0, 0.1, level=0.9)
    for combined in (independent_ratio, independent_difference):
        with pytest.raises(InputError, match=r"^levels of the two estimates = \(0.95, 0.9\): must be the same$"):
            combined(b, other)


@pytest.mark.parametrize("level", [0.8, 0.99])
def test_ratio_and_difference_keep_the_level(level):
    a, b = (normal_estimate(value, 0.1, level=level) for value in (3.0, 2.0))
    z = stats.norm.ppf((1 + level) / 2)
    ratio, difference = independent_ratio(a, b), independent_difference(a, b)
    assert ratio.level == difference.level == level
    np.testing.assert_allclose(np.log(ratio.high / ratio.value), z * np.hypot(0.1 / 3, 0.1 / 2))
    np.testing.assert_allclose(difference.high - difference.value, z * np.hypot(0.1, 0.1))


@pytest.mark.parametrize("given", [(1.5, 10), (-0.1, 10), (np.nan, 10), (0.5, 0), (0.5, np.nan), (0.5, 10, 1.0)])
def test_wilsons_interval_of_no_share_is_refused(given):
    with pytest.raises(InputError, match=r"^(share|cases|confidence) = "):
        wilson(*given)


def test_a_bounded_mean_of_numbers_that_differ_by_rounding_is_that_of_one_number():
    one, rounded = (bounded_mean(np.array([0.3, other, 0.3, 0.3]), (0, 1)) for other in (0.3, 0.1 * 3))
    assert rounded.method == one.method == "Wilson" and rounded.high - rounded.low > 0.4


def test_a_ratio_has_the_interval_of_its_logarithm():
    b = Estimate(2.0, 1.8, 2.2, standard_error=0.1)
    a = Estimate(np.asarray([1.0, 3.0]), 0.0, 4.0, standard_error=np.asarray([0.05, 0.0]))
    found = independent_ratio(a, b)
    np.testing.assert_allclose(np.log(found.high / found.value), 1.96 * np.hypot([0.05, 0.0], 0.05), rtol=1e-4)
    np.testing.assert_allclose(found.low * found.high, np.square(found.value))


def test_an_estimate_is_stored_and_shown_as_three_numbers():
    several = Estimate(np.array([2.0, 5.0]), np.array([1.0, 4.0]), np.array([3.0, 7.0]))
    np.testing.assert_array_equal(several.stacked(), [[2, 1, 3], [5, 4, 7]])
    np.testing.assert_array_equal(several.stacked(axis=0), [[2, 5], [1, 4], [3, 7]])
    np.testing.assert_array_equal(several[1].stacked(), [5, 4, 7])
    assert Estimate(0.1234, 0.05, 0.2).text(".1%") == "12.3% [5.0%, 20.0%]"
    assert several[0].text("+.2f") == "+2.00 [+1.00, +3.00]"


def test_the_interval_of_a_standard_deviation():
    """On average over sets the error is that of the simulated deviations: for Gaussian values and for heavier tails."""
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=(2000, 400)), rng.standard_t(9, size=(2000, 400))):
        found = standard_deviation(3 * values)
        np.testing.assert_allclose(found.value, 3 * values.std(axis=1, ddof=1), rtol=1e-12)
        assert np.mean(found.standard_error) == pytest.approx(np.std(found.value), rel=0.06)
        truth = 3 * values.std()
        assert 0.93 < np.mean((found.low <= truth) & (truth <= found.high)) < 0.97
        one = standard_deviation(3 * values[7])
        assert (one.value, one.low, one.high) == (found.value[7], found.low[7], found.high[7]) and one.n == 400
    gaussian = standard_deviation(np.sort(rng.normal(size=200_000)))
    assert gaussian.standard_error == pytest.approx(gaussian.value / np.sqrt(2 * 200_000), rel=0.01)
    assert standard_deviation(np.full(4, 4.0)).standard_error == 0
    # Seven times 0.1 differ by rounding alone.
    assert standard_deviation(np.full(7, 0.1)).value == 0


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0, np.nan]])
def test_a_standard_deviation_needs_four_finite_values(values):
    with pytest.raises(InputError, match=r"^values"):
        standard_deviation(np.array(values))


def test_newcombes_interval():
    """56 / 70 less 48 / 80: his example (a), 0.2 [0.0524, 0.3339]."""
    shares = proportion(np.arange(70) < 56), proportion(np.arange(80) < 48)
    found = share_difference(*shares)
    np.testing.assert_allclose([found.value, found.low, found.high], [0.2, 0.0524, 0.3339], atol=5e-5)


def test_numbers_of_narrow_types_neither_wrap_nor_overflow():
    one, three = (Estimate(*[np.asarray(value, np.uint8)] * 3, standard_error=0.0) for value in (1, 3))
    assert independent_difference(one, three).value == -2
    assert (
        share_difference(Estimate(*[np.zeros(2, np.uint8)] * 3), Estimate(*[np.ones(2, np.uint8)] * 3)).value[0] == -1
    )
    for cases in (np.uint8(200), np.int16(30000), np.int32(100000)):
        np.testing.assert_array_equal(inspect.unwrap(wilson)(0.1, cases), wilson(0.1, int(cases)))


def test_what_is_exact_has_no_error_and_any_level():
    found = independent_difference(exactly(3.0), exactly(1.0))
    assert found.stacked().tolist() == [2.0, 2.0, 2.0]
    other = normal_estimate(2.0, 0.1, level=0.9)
    for mixed in (independent_difference(exactly(3.0), other), independent_difference(other, exactly(3.0))):
        assert mixed.level == 0.9 and mixed.standard_error == pytest.approx(0.1)
    assert independent_ratio(other, exactly(2.0)).standard_error == pytest.approx(0.05)
