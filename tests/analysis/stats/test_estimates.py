"""One type for a value with its interval, whatever made it."""

import numpy as np
import pytest
from scipy import stats

from dgu.analysis.stats import Estimate, bounded_mean, exactly, normal_estimate, proportion
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
