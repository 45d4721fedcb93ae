"""Sigmoids through scores: planted parameters come back, inside intervals that cover, and curves collapse where they
should.
"""

import numpy as np
import pytest
from scipy.special import expit

from dgu.analysis import SigmoidFit, fit_sigmoids
from dgu.core.errors import InputError

X = np.log2([5.0, 10, 20, 40, 80, 160])


def test_exact_scores_give_the_parameters_and_the_crossing():
    found = fit_sigmoids(X, expit(1.7 * (X - 4.2)), resamples=5)
    np.testing.assert_allclose([found.slope, found.midpoints[0], found.rmse], [1.7, 4.2, 0], atol=1e-6)
    # 2.944 = log(.95 / .05): the sheet's x* = b + 2.944 / a.
    np.testing.assert_allclose(found.crossing().value, 4.2 + 2.9444390 / 1.7, rtol=1e-6)
    np.testing.assert_allclose(found(np.array([4.2])), 0.5, atol=1e-6)


def test_intervals_cover_planted_parameters():
    rng, covered = np.random.default_rng(0), []
    x = np.repeat(X, 3)
    for seed in range(30):
        truth = expit(1.5 * (x - 4.0))
        # Scores scatter most between 0 and 1, and stay inside.
        y = np.clip(truth + rng.normal(size=len(x)) * 0.15 * np.sqrt(truth * (1 - truth)), 0, 1)
        found = fit_sigmoids(x, y, resamples=60, seed=seed)
        slope, crossing = found.of(lambda a, _: a), found.crossing()
        target = 4.0 + np.log(19) / 1.5
        covered.append((slope.low <= 1.5 <= slope.high, crossing.low <= target <= crossing.high))
    # Of 30 sets 28.5 are expected; 23 or fewer have a chance below 1e-3.
    assert (np.sum(covered, axis=0) >= 24).all(), np.sum(covered, axis=0)


def test_curves_collapse_over_the_abscissa_that_they_were_made_on():
    rng = np.random.default_rng(1)
    ids = np.array([6.0, 8, 12, 24])
    curve = np.repeat(np.arange(4), 3 * len(X))
    ratio = np.tile(np.repeat(X, 3), 4)
    x = ratio + np.log2(ids)[curve]
    for exponent in (1.0, 0.0):
        truth = expit(1.5 * (x - exponent * np.log2(ids)[curve] - 4.5 - (1 - exponent) * 3.5))
        y = np.clip(truth + rng.normal(size=len(x)) * 0.05 * np.sqrt(truth * (1 - truth)), 0, 1)
        found = fit_sigmoids(x, y, curve, resamples=80)
        power = found.exponent(np.log2(ids))
        assert power.low <= exponent <= power.high and power.high - power.low < 0.4
        assert (found.spread().value > found.spread(np.log2(ids)).value) == (power.value > 0.5) == (exponent == 1)


def test_the_exponent_is_above_one_half_where_the_shift_brings_curves_together():
    """In every one of many sets of midpoints, of two curves or more."""
    rng = np.random.default_rng(0)
    for count in (2, 3, 5):
        for midpoints, shift in zip(rng.normal(size=(50, count)), rng.normal(size=(50, count))):
            fit = SigmoidFit(1.0, midpoints, 0.0, np.ones(2), np.stack([midpoints, midpoints]))
            assert (fit.exponent(shift).value > 0.5) == (fit.spread(shift).value < fit.spread().value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((X, np.linspace(0.6, 1, 6)), "y = .* must be on both sides of 0.5"),
        ((X, np.linspace(0, 1.1, 6)), r"y = .* must be in \[0, 1\]"),
        ((X[:5], np.linspace(0, 1, 6)), "shapes of"),
        ((X[:2], np.array([0.0, 1.0])), "number of points = 2: must be at least 3"),
        ((X, np.linspace(0, 1, 6), np.array([0, 0, 0, 0, 0, 1])), "different x of curve 1 = 1"),
        ((np.append(X[:5], np.nan), np.linspace(0, 1, 6)), "x = 'non-finite'"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        fit_sigmoids(*arguments)


def test_one_curve_has_no_spread():
    found = fit_sigmoids(X, expit(X - 4), resamples=4)
    with pytest.raises(InputError, match="number of curves = 1"):
        found.spread()
    with pytest.raises(InputError, match="level = 1"):
        found.crossing(1)
