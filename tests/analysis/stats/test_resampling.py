"""Intervals and equivalence tests against scipy, closed forms and simulated studies."""

import inspect
from math import inf, sqrt

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dgu.analysis.stats import resampling
from dgu.analysis.stats.resampling import (
    equivalence,
    geometric_mean,
    jackknife_interval,
    rounding,
    sample_deviation,
    t_interval,
)
from dgu.core.errors import InputError

J = 20


def values(mean=0.0, spread=1.0, seed=0, size=J):
    """Exactly this sample mean and sample standard deviation."""
    raw = np.random.default_rng(seed).normal(size=size)
    return mean + spread * (raw - raw.mean()) / raw.std(ddof=1)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_plain_interval_equals_scipy(confidence):
    data = values(0.3, 2.0)
    found = t_interval(data, confidence)
    expected = stats.ttest_1samp(data, 0).confidence_interval(confidence)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), rtol=1e-12)
    assert found.value == pytest.approx(0.3) and found.standard_error == pytest.approx(2 / sqrt(J))
    assert found.n == J and found.level == confidence
    assert t_interval(data.tolist(), confidence) == found


def test_leading_axes_are_a_loop():
    data = np.random.default_rng(1).normal(size=(2, 3, J))
    found = t_interval(data)
    assert found.standard_error.shape == (2, 3)
    for index in np.ndindex(2, 3):
        one = t_interval(data[index])
        for name in ("value", "standard_error", "low", "high"):
            assert getattr(found, name)[index] == pytest.approx(getattr(one, name), rel=1e-12)


def test_the_jackknife_of_a_mean_is_the_t_interval_of_its_groups():
    groups = np.random.default_rng(1).normal(2.0, 1.0, (3, 8, 5))
    without = np.stack([np.delete(groups, g, axis=1).mean(axis=(1, 2)) for g in range(8)], axis=1)
    found, expected = jackknife_interval(groups.mean(axis=(1, 2)), without), t_interval(groups.mean(axis=2))
    for name in ("value", "standard_error", "low", "high"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)
    assert found.n == 8
    assert jackknife_interval(float(groups[0].mean()), without[0]).low == pytest.approx(found.low[0])
    with pytest.raises(InputError, match=r"without\.shape = \(3, 8\)"):
        jackknife_interval(0.0, without)
    with pytest.raises(InputError, match="replicates = 1"):
        jackknife_interval(0.0, [1.0])


def test_the_jackknife_covers_a_curved_statistic():
    """A variance from 8 groups of 25: the interval holds the truth nineteen times in twenty, or nearly."""
    rows = np.random.default_rng(2).normal(0.0, 1.5, (1000, 8, 25))
    without = np.stack([np.delete(rows, g, axis=1).var(axis=(1, 2)) for g in range(8)], axis=1)
    found = jackknife_interval(rows.var(axis=(1, 2)), without)
    assert 0.92 < coverage(found, 1.5**2) < 0.97


def coverage(interval, truth=0.0):
    return np.mean((interval.low < truth) & (truth < interval.high))


def binomial_bound(share, trials):
    return 3.5 * sqrt(share * (1 - share) / trials)


def test_coverage_of_fresh_replicates():
    rng, trials = np.random.default_rng(2), 20_000
    fresh = coverage(t_interval(rng.normal(size=(trials, J))))
    assert abs(fresh - 0.95) < binomial_bound(0.95, trials)


def test_equivalence_has_its_nominal_size_and_power():
    """A true difference equal to the margin is called equivalent in 2.5 % of studies, no difference nearly always."""
    rng, trials, margin, spread = np.random.default_rng(4), 20_000, 0.025, 0.02
    noise = spread * rng.normal(size=(trials, J))

    def called(truth):
        found = t_interval(truth + noise)
        return (found.low > -margin) & (found.high < margin)

    assert abs(called(margin).mean() - 0.025) < binomial_bound(0.025, trials)
    assert called(0.0).mean() > 0.99
    single = [equivalence(margin + row, margin).equivalent for row in noise[:300]]
    np.testing.assert_array_equal(single, called(margin)[:300])


@pytest.mark.parametrize("mean", [-0.03, -0.004, 0.0, 0.02, 0.06])
def test_p_values_equal_scipy(mean):
    data, margin = values(mean, 0.02, seed=5), 0.025
    found = equivalence(data, margin)
    above = stats.ttest_1samp(data, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(data, margin, alternative="less").pvalue
    assert found.p_equivalence == pytest.approx(max(above, below), rel=1e-9)
    assert found.p_difference == pytest.approx(stats.ttest_1samp(data, 0).pvalue, rel=1e-9, abs=1e-15)
    outside = min(
        stats.ttest_1samp(data, margin, alternative="greater").pvalue,
        stats.ttest_1samp(data, -margin, alternative="less").pvalue,
    )
    assert found.p_beyond == pytest.approx(min(1, 2 * outside), rel=1e-9)
    other = np.random.default_rng(6).normal(size=J)
    assert equivalence(data + other - other, margin).p_difference == pytest.approx(
        stats.ttest_rel(data + other, other).pvalue, rel=1e-6, abs=1e-12
    )


@settings(max_examples=15, deadline=None)
@given(mean=st.floats(-0.08, 0.08), spread=st.floats(1e-4, 0.1))
def test_intervals_p_values_and_verdicts_agree(mean, spread):
    data = values(mean, spread)
    found = equivalence(data, 0.025, max_standard_error=inf)
    assert found.equivalent == (found.p_equivalence < 0.025)
    assert found.different == (found.p_difference < 0.05)
    assert found.beyond == (found.p_beyond < 0.05)
    inside = -0.025 < found.tost_interval.low and found.tost_interval.high < 0.025
    assert inside == (found.p_equivalence < 0.05) and found.tost_interval.level == pytest.approx(0.9)
    assert found.standard_error == pytest.approx(spread / sqrt(J))
    expected = "supported" if found.equivalent else "not supported" if found.beyond else "undecided"
    reverse = {"supported": "not supported", "not supported": "supported", "undecided": "undecided"}
    assert found.verdict == expected and found.difference_verdict == reverse[expected]
    mirrored = equivalence(-data, 0.025, max_standard_error=inf)
    assert mirrored.verdict == found.verdict and mirrored.p_equivalence == pytest.approx(found.p_equivalence, rel=1e-9)
    # Only the unit changes between fractions and points.
    points = equivalence(100 * data, 2.5, max_standard_error=inf)
    assert points.verdict == found.verdict and points.p_beyond == pytest.approx(found.p_beyond, rel=1e-9)


@pytest.mark.parametrize(
    ("mean", "spread", "verdict", "different"),
    [
        (0.002, 0.02, "supported", False),
        (0.015, 0.01, "supported", True),  # a real difference, too small to matter
        (0.022, 0.02, "undecided", True),  # straddles the margin
        (0.045, 0.02, "not supported", True),
        (-0.045, 0.02, "not supported", True),
        (0.002, 0.05, "undecided", False),  # standard error of 1.1 points
        (0.001, 0.04, "undecided", False),  # 0.9 points, although the interval lies inside the margin
        (0.30, 0.05, "undecided", True),  # so even when far outside
    ],
)
def test_verdicts(mean, spread, verdict, different):
    found = equivalence(values(mean, spread), 0.025)
    assert found.max_standard_error == pytest.approx(0.008)
    assert (found.verdict, found.different) == (verdict, different)
    assert found.estimate == pytest.approx(mean)


#: Differences that agree, or differ by rounding alone: 0.1 seven times has a standard deviation of 1.5e-17.
AGREE = {
    "zeros": np.zeros(5),
    "apart": np.full(5, 0.5),
    "rounded mean": np.full(7, 0.1),
    "rounded differences": np.array([0.3 - 0.2, 0.2 - 0.1, 0.9 - 0.8]),
    "rounded zeros": np.array([0.1 + 0.2 - 0.3, 0.0, 0.0]),
    "single precision": np.full(9, 0.1, np.float32),
    "rounded in single precision": np.float32([0.1, np.nextafter(np.float32(0.1), np.float32(1)), 0.1]),
    "whole numbers": np.array([3, 3, 3]),
}


@pytest.mark.parametrize("differences", AGREE.values(), ids=AGREE)
def test_differences_without_spread_decide_nothing(differences):
    for bound in (None, inf):
        found = equivalence(differences, 0.025, max_standard_error=bound)
        assert (found.verdict, found.difference_verdict) == ("undecided", "undecided")
        assert (found.p_equivalence, found.p_difference, found.p_beyond) == (1, 1, 1)
        assert not (found.equivalent or found.different or found.beyond)
        assert found.standard_error == 0 and found.interval.low == found.interval.high == found.estimate
    # Ten thousand times the rounding is a spread again, and scipy's numbers hold.
    spread = np.asarray(differences, np.float64) + 1e-8 * np.arange(len(differences)) ** 2
    expected = stats.ttest_1samp(spread, 0).pvalue
    assert equivalence(spread, 0.025).p_difference == pytest.approx(expected, rel=1e-6)


def test_no_spread_is_found_row_by_row():
    rows = np.array([[0.1] * 7, [0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1]])
    found = t_interval(rows)
    assert found.standard_error[0] == 0 and found.low[0] == found.high[0] == pytest.approx(0.1)
    low, high = stats.t.interval(0.95, 6, rows[1].mean(), stats.sem(rows[1]))
    assert (found.low[1], found.high[1]) == pytest.approx((low, high), rel=1e-12)
    assert jackknife_interval(0.3, [0.1] * 7).standard_error == 0
    assert rounding(np.float32([1])) == pytest.approx(4.8e-7, rel=0.01) and rounding([1]) == rounding(1.0) == 1e-12
    np.testing.assert_array_equal(sample_deviation(rows), [0, rows[1].std(ddof=1)])


def test_intervals_stay_inside_the_range_of_what_they_estimate():
    shares = [0.9, 1.0, 1.0]
    wide, cut = t_interval(shares), t_interval(shares, bounds=(0, 1))
    assert wide.high > 1 and (cut.low, cut.high, cut.standard_error) == (wide.low, 1.0, wide.standard_error)
    points = [-90.0, -99.0]
    assert t_interval(points, bounds=(-100, 100)).low == -100
    assert equivalence(points, 2.5, bounds=(-100, 100)).interval.low == -100
    correlation = jackknife_interval(
        np.array([0.95, 0.1]), np.array([[0.9, 0.99, 0.93], [0.1, 0.12, 0.08]]), bounds=(-1, 1)
    )
    free = jackknife_interval(np.array([0.95, 0.1]), np.array([[0.9, 0.99, 0.93], [0.1, 0.12, 0.08]]))
    assert free.high[0] > 1 == correlation.high[0] and correlation.high[1] == free.high[1]
    with pytest.raises(InputError, match=r"bounds = \(1, 0\): must be \(low, high\) with low < high"):
        t_interval(shares, bounds=(1, 0))


def test_bad_input_is_named():
    good = values()
    for arguments, message in [
        ((good[:1], 1), "replicates = 1: must be at least 2"),
        ((good.reshape(2, -1), 1), r"differences\.shape = \(2, 10\)"),
        ((np.where(good > 1, np.nan, good), 1), "values = 'non-finite'"),
        ((good, 0), "margin = 0: must be positive"),
    ]:
        with pytest.raises(InputError, match=message):
            equivalence(*arguments)
    with pytest.raises(InputError, match=r"confidence = 0\.5"):
        equivalence(good, 1, confidence=0.5)
    with pytest.raises(InputError, match=r"confidence = 1\.0"):
        t_interval(good, 1.0)
    with pytest.raises(InputError, match="max_standard_error"):
        equivalence(good, 1, max_standard_error=-1)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (np.float32(1e-7), "undecided"),  # One rounding of accuracies in single precision.
        (np.float64(1e-9), "supported"),  # A real difference in double precision.
        (np.float64(1e-13), "undecided"),
    ],
)
def test_differences_that_are_rounding_of_what_is_compared_decide_nothing(change, verdict):
    accuracies = np.array([0.91234, 0.8123, 0.7123], change.dtype)
    assert equivalence(accuracies - accuracies * (1 + change), 0.025).verdict == verdict
    points = 100 * accuracies
    assert equivalence(points - points * (1 + change), 2.5).verdict == verdict
    assert equivalence(points - points * (1 + change), 2.5, bounds=(-100, 100)).verdict == verdict


def test_bounds_say_the_size_of_what_is_compared():
    """Tiny but real differences in single precision: only the caller knows that nothing larger was rounded."""
    tiny = np.array([1e-9, 2e-9, 3e-9], np.float32)
    assert equivalence(tiny, 1e-7).verdict == "undecided"
    assert equivalence(tiny, 1e-7, bounds=(-1e-6, 1e-6)).verdict == "supported"


def test_single_numbers_are_refused():
    with pytest.raises(InputError, match=r"values.shape = \(\): must be"):
        resampling._interval(3.0, 0.95)
    with pytest.raises(InputError, match=r"^without.shape = \(\): must be \(J\), one value without each group$"):
        inspect.unwrap(jackknife_interval)(1.0, 2.0)
    with pytest.raises(InputError, match=r"^without.shape = \(2, 5\): must be \(3, J\)"):
        inspect.unwrap(jackknife_interval)(np.ones(3), np.ones((2, 5)))
    for bad in (np.float64(3.0), [3.0], np.ones((2, 1))):
        with pytest.raises(InputError, match=r"^values.shape = .*: must be \(..., J\), J at least 2$"):
            inspect.unwrap(sample_deviation)(bad)
    with pytest.raises(InputError, match=r"^values = 'non-finite': must be finite$"):
        sample_deviation([1.0, inf])


def test_rounding_is_that_of_the_dtype_given():
    for dtype in (np.float16, jnp.bfloat16):
        assert rounding(np.ones(2, dtype)) == 4 * float(jnp.finfo(dtype).eps)
    near = np.array([1.0, 1 + 2**-7] * 4, jnp.bfloat16)  # One spacing apart.
    assert t_interval(near).standard_error == 0


def test_numbers_without_room_for_their_squares_are_refused():
    with pytest.raises(InputError, match="largest absolute value of values"):
        t_interval([1e308, 1.5e308])
    with pytest.raises(InputError, match="whole"):
        jackknife_interval(float("nan"), [1.0, 2.0, 3.0])


def test_a_geometric_mean_is_that_of_the_logarithms():
    data = np.exp(values(1.0, 0.3))
    found, logs = geometric_mean(data), t_interval(np.log(data))
    assert found.value == pytest.approx(stats.gmean(data), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((np.exp(logs.low), np.exp(logs.high)), rel=1e-12)
    for wrong in ([1.0, 0.0], [1.0, -2.0], [1.0, inf]):
        with pytest.raises(InputError, match=r"^values = "):
            geometric_mean(wrong)


@pytest.mark.parametrize("kind", [np.uint8, np.uint64, np.float32])
def test_a_margin_of_any_type_is_the_same_number(kind):
    differences = [0.1, 0.2, 0.15]
    found = inspect.unwrap(equivalence)(differences, kind(10))
    assert found == equivalence(differences, 10) and found.verdict == "supported"
