import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import asymptotic_error, best_ridge, class_moments, fit_gaussian, predicted_curve
from dgu.analysis.universality.predicted import size_grid
from dgu.core.errors import InputError


def rows(k=3, n=40, d=12, seed=0):
    rng = np.random.default_rng(seed)
    scales = np.linspace(1.5, 0.5, d) * (1 + 0.3 * np.arange(k)[:, None, None])
    return (rng.normal(size=(k, n, d)) * scales + rng.normal(size=(k, 1, d)) / 2).astype(np.float32)


def test_moments_are_those_of_the_fitted_mixture():
    given = rows()
    means, covariances = class_moments(given)
    for label, block in enumerate(given):
        np.testing.assert_allclose(covariances[label], np.cov(block.T.astype(float)), rtol=1e-12)
        fitted = fit_gaussian(jnp.asarray(block))
        np.testing.assert_allclose(means[label], fitted.mean, atol=1e-6)
        np.testing.assert_allclose(covariances[label], np.asarray(fitted.root).T @ fitted.root, atol=1e-5)


def test_curve_averages_the_theory_over_subsets():
    means, covariances = class_moments(rows())
    subsets = np.asarray([[1, 0], [0, 1], [1, 2]])
    curve = predicted_curve(means, covariances, subsets, [6, 12, 60])
    first, other = [0, 1], [1, 2]
    for place, n in enumerate([6, 12, 60]):
        ridge = best_ridge(means[first], covariances[first], n).ridge
        assert curve.best[place] == pytest.approx(ridge)
        errors = [asymptotic_error(means[s], covariances[s], n, ridge=ridge).error for s in (first, first, other)]
        assert curve.ridge[place] == pytest.approx(np.mean(errors))
    # At n = rank the weights diverge; elsewhere the ridge is better than none.
    assert np.isnan(curve.min_norm).tolist() == [False, True, False]
    plain = [asymptotic_error(means[s], covariances[s], 60).error for s in (first, first, other)]
    assert curve.min_norm[2] == pytest.approx(np.mean(plain)) and curve.ridge[2] <= curve.min_norm[2] + 1e-4


def test_dead_pixels_and_nearly_dead_ones():
    """Pixels that are constant in one class or next to it: singular covariances, a second moment of condition 1e12."""
    given = rows(2, 60)
    given[0, :, 3], given[:, :, 4], given[1, :, 5] = 0.0, 0.0, 0.0
    given[0, :, 6] *= 1e-6
    means, covariances = class_moments(given)
    curve = predicted_curve(means, covariances, np.asarray([[0, 1]]), size_grid(4, 400, 4))
    assert np.isfinite(curve.min_norm).all() and (curve.ridge <= curve.min_norm + 1e-4).all()


def test_size_grid():
    np.testing.assert_allclose(size_grid(2, 200, 3), [2, 20, 200])
    with pytest.raises(InputError, match="smallest = 0: must be from 1 to largest = 5"):
        size_grid(0, 5)
