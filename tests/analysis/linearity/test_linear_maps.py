"""What is measured of linear maps, on maps whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import map_spectra, orthogonality_residual, subspace_overlap, vector_correlation, weight_nmse
from dgu.analysis.linearity import linear_maps
from dgu.core.errors import InputError
from dgu.core.noisy import noisy_input
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, LinearDenoiser
from dgu.training import distill_exactly
from tests.scale_mixtures import GRID, D, scale_mixture

KEY = jax.random.key(2)


def maps(weights):
    return LinearDenoiser(np.arange(1.0, len(weights) + 1), weights, np.zeros(weights.shape[:2]))


def test_weight_nmse_is_the_squared_frobenius_ratio():
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((2, 3, 6, 6))
    expected = [np.linalg.norm(a - b) ** 2 / np.linalg.norm(b) ** 2 for a, b in zip(ours, theirs)]
    np.testing.assert_allclose(weight_nmse(maps(ours), maps(theirs)), expected)
    np.testing.assert_array_equal(weight_nmse(maps(0 * ours), maps(theirs)), 1)
    with pytest.raises(InputError, match=r"reference\.sigmas"):
        weight_nmse(maps(ours), maps(theirs[:2]))


def test_large_maps_are_known_by_products_to_the_bound_that_is_told(monkeypatch):
    rng = np.random.default_rng(2)
    left, right = (np.linalg.qr(rng.standard_normal((60, 60)))[0] for _ in range(2))
    both = np.stack([(left * values) @ right.T for values in (1 / np.arange(1, 61), np.linspace(1, 0.9, 60))])
    whole = map_spectra(maps(both), 4)
    assert not whole.errors.any()
    monkeypatch.setattr(linear_maps, "_WHOLE", 50)
    found = map_spectra(maps(both), 4)
    assert 0 < found.errors.max() <= 1e-6 and not np.array_equal(found.values, whole.values)
    for values, errors, every in zip(found.values, found.errors, (1 / np.arange(1, 61), np.linspace(1, 0.9, 60))):
        # Some singular value of the map lies within the bound, and these are the largest.
        assert (np.abs(values[:, None] - every[None]).min(axis=1) <= errors + 1e-12).all()
        np.testing.assert_allclose(values, every[:4], atol=1e-8)
    np.testing.assert_allclose(vector_correlation(found.left, left[:, :4]), np.tile(np.eye(4), (2, 1, 1)), atol=1e-3)
    np.testing.assert_allclose(found.alignment, whole.alignment, atol=1e-3)
    np.testing.assert_array_equal(found.asymmetry, whole.asymmetry)


def test_spectra_of_planted_maps():
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2))
    values = np.array([5.0, 3.0, 2.0, 1.0, 0.5, 0.1])
    skew = rng.standard_normal((6, 6))
    found = map_spectra(maps(np.stack([(left * values) @ left.T, (left * values) @ right.T, skew - skew.T])), 4)
    np.testing.assert_allclose(found.values[:2], np.tile(values[:4], (2, 1)))
    np.testing.assert_allclose(found.alignment[0], 1)
    np.testing.assert_allclose(found.alignment[1], np.abs((left * right).sum(0))[:4], atol=1e-12)
    np.testing.assert_allclose(found.asymmetry[[0, 2]], [0, 1], atol=1e-12)
    np.testing.assert_allclose(vector_correlation(found.left[:2], left), np.tile(np.eye(6)[:4], (2, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(vector_correlation(found.right[1], right[:, :2]), np.eye(4)[:, :2], atol=1e-12)
    # Spans: within one another, apart, and by chance.
    np.testing.assert_allclose(subspace_overlap(found.left[:1], left[:, :4]), 1)
    np.testing.assert_allclose(subspace_overlap(found.left[0], left[:, 4:]), 0, atol=1e-12)
    random = np.stack([np.linalg.qr(rng.standard_normal((50, 5)))[0] for _ in range(200)])
    np.testing.assert_allclose(subspace_overlap(random, np.eye(50)[:, :10]).mean(), 10 / 50, atol=0.02)
    with pytest.raises(InputError, match="count = 7"):
        map_spectra(maps(skew[None]), 7)
    with pytest.raises(InputError, match=r"basis\.shape"):
        vector_correlation(left, np.eye(5))


def test_orthogonality_holds_for_the_optimum_of_the_same_images_alone(x64):
    """(51): 0 for the best map of the same noisy inputs exactly, for the Gaussian up to the noise's sampling."""
    images, sigmas = scale_mixture(300, 0, np.float64), GRID[[4, 6]]
    points = EmpiricalDenoiser(images)
    clean = distill_exactly(points, images, sigmas, KEY, ridge=0.0, draws=10).denoiser
    gaussian = GaussianDenoiser.fit(images)
    other = GaussianDenoiser.fit(3 * images)
    null, shifted = (orthogonality_residual(one, images, sigmas, KEY, draws=10) for one in (gaussian, other))
    distilled, teacher = (orthogonality_residual(one, images, sigmas, KEY, draws=10) for one in (clean, points))
    # What is left at 3,000 draws falls with their root; another Gaussian's stays.
    assert (distilled < 0.2).all() and (null < 0.2).all() and (shifted > 5 * null).all(), (null, distilled, shifted)
    # The best map's residual is the teacher's own on the same draws: the difference of the two is orthogonal to all
    # inputs.
    np.testing.assert_allclose(distilled, teacher, rtol=1e-6)
    # Against the definition, with the noise written out.
    found = orthogonality_residual(gaussian, images[:20], sigmas, KEY, draws=2, batch_size=8)
    noisy = jax.jit(jax.vmap(noisy_input, in_axes=(None, 0, 0, None, None, 0)))
    answers = jax.jit(jax.vmap(GaussianDenoiser.__call__, in_axes=(None, 0, None)))
    numbers, draws = np.tile(np.arange(20), 2), np.repeat([0, 1], 20)
    x = images[numbers]
    for level, sigma in enumerate(sigmas):
        y = np.asarray(noisy(KEY, x, numbers, sigma, level, draws))
        out = np.asarray(answers(jax.tree.map(jnp.asarray, gaussian), y, sigma))
        off = (out - x) - (out - x).mean(0)
        expected = np.linalg.norm(off.T @ (y - y.mean(0)) / 40) / np.linalg.norm(np.cov(images[:20].T, ddof=0))
        np.testing.assert_allclose(found[level], expected, rtol=1e-8)
    with pytest.raises(InputError, match="images = 'all equal'"):
        orthogonality_residual(gaussian, np.ones((5, D)), sigmas, KEY)
