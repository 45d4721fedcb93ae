"""The Gaussian denoiser against dense linear algebra in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser

EVENT = (4, 3, 2)
D = 24


def planted(seed=0, rank=D):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((D, D)))[0][:, :rank]
    variances = np.geomspace(3.0, 1e-3, rank)
    return rng.standard_normal(EVENT), (basis * variances) @ basis.T


def dense(mean, covariance, x, sigma):
    """mean + C (C + sigma^2 I)^-1 (x - mean)."""
    shrunk = covariance @ np.linalg.solve(covariance + sigma**2 * np.eye(D), (x - mean).ravel())
    return mean + shrunk.reshape(EVENT)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 80.0])
def test_equals_the_conditional_mean(x64, strict_dtypes, sigma):
    mean, covariance = planted()
    x = mean + np.random.default_rng(1).standard_normal(EVENT) * np.hypot(1, sigma)
    denoiser = GaussianDenoiser.from_moments(mean, covariance)
    out = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))(denoiser, jnp.asarray(x), sigma)
    np.testing.assert_allclose(out, dense(mean, covariance, x, sigma), rtol=0, atol=1e-11 * np.abs(x).max())


def test_float32_keeps_its_digits_at_small_noise():
    mean, covariance = planted()
    x = mean + np.random.default_rng(1).standard_normal(EVENT)
    denoiser = GaussianDenoiser.from_moments(mean.astype(np.float32), covariance.astype(np.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(denoiser)} == {np.dtype(np.float32)}
    out = np.asarray(denoiser(jnp.asarray(x, jnp.float32), 0.002))
    assert np.abs(out - dense(mean, covariance, x, 0.002)).max() < 3e-6 * np.abs(x).max()


@pytest.mark.parametrize(("n", "ddof"), [(200, 0), (200, 1), (24, 0), (9, 1), (2, 1)])
def test_fit_is_the_gaussian_of_the_data(x64, n, ddof):
    images = np.random.default_rng(n).standard_normal((n, *EVENT)) * np.linspace(0.5, 2, 2) + 3
    denoiser = GaussianDenoiser.fit(images, ddof=ddof)
    flat = images.reshape(n, D)
    covariance = np.cov(flat, rowvar=False, ddof=ddof)
    rebuilt = denoiser.basis @ np.diag(denoiser.variances) @ denoiser.basis.T
    np.testing.assert_allclose(rebuilt, covariance, atol=1e-12 * np.abs(covariance).max(), rtol=0)
    np.testing.assert_allclose(denoiser.mean, images.mean(0), rtol=1e-13)
    x = images[0] + 0.5
    expected = dense(images.mean(0), covariance, x, 0.1)
    np.testing.assert_allclose(denoiser(jnp.asarray(x), 0.1), expected, atol=1e-10, rtol=0)


def test_padding_adds_directions_without_variance():
    rows = np.random.default_rng(5).standard_normal((7, *EVENT)).astype(np.float32)
    plain = GaussianDenoiser.fit(rows)
    padded = plain.padded(10)
    assert padded.basis.shape == (D, 10) and padded.variances.shape == (10,) and plain.basis.shape == (D, 6)
    for sigma in (0.0, 0.4, 50.0):
        np.testing.assert_allclose(padded(rows[0], sigma), plain(rows[0], sigma), atol=1e-6)
    np.testing.assert_array_equal(plain.padded(2).basis, plain.basis)
    with pytest.raises(InputError, match="rank = -1"):
        plain.padded(-1)


def test_few_rows_never_make_a_square_matrix():
    images = np.random.default_rng(0).standard_normal((6, 40, 50, 1)).astype(np.float32)
    denoiser = GaussianDenoiser.fit(images)
    assert denoiser.basis.shape == (2000, 5) and denoiser.variances.shape == (5,)


def test_limits_are_projection_and_mean(x64):
    images = np.random.default_rng(3).standard_normal((7, *EVENT))
    denoiser = GaussianDenoiser.fit(images)
    on_support = jnp.asarray(images[2])
    off_support = on_support + np.random.default_rng(4).standard_normal(EVENT)
    np.testing.assert_allclose(denoiser(on_support, 0.0), images[2], atol=1e-12)
    once = denoiser(off_support, 0.0)
    np.testing.assert_allclose(denoiser(once, 0.0), once, atol=1e-12)
    np.testing.assert_allclose(denoiser(off_support, 1e9), images.mean(0), atol=1e-12)
    singular = GaussianDenoiser.from_moments(np.zeros(3), np.diag([1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(singular(jnp.ones(3), 0.0), [1.0, 0.0, 0.0])
    gradient = jax.grad(lambda d: d(jnp.ones(3), 0.0).sum())(singular)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_an_ensemble_is_a_mapped_denoiser(x64):
    members = [GaussianDenoiser.from_moments(*planted(seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    x, sigma = jnp.asarray(planted(9)[0]), jnp.array([0.1, 1.0, 10.0])
    together = jax.vmap(lambda member, s: member(x, s))(stacked, sigma)
    for row, member in enumerate(members):
        np.testing.assert_allclose(together[row], member(x, sigma[row]), atol=1e-13)


def test_accepts_a_covariance_in_event_form(x64):
    mean, covariance = planted()
    folded = GaussianDenoiser.from_moments(mean, covariance.reshape(*EVENT, *EVENT))
    flat = GaussianDenoiser.from_moments(mean, covariance)
    np.testing.assert_array_equal(folded(jnp.ones(EVENT), 0.5), flat(jnp.ones(EVENT), 0.5))


def test_bad_input_is_named():
    mean, covariance = planted()
    lopsided, negative, broken = covariance.copy(), covariance - 0.1 * np.eye(D), covariance.copy()
    lopsided[0, 1] += 0.01
    broken[2, 2] = np.nan
    for matrix, said in [
        (lopsided, "covariance = .* symmetric"),
        (negative, "covariance = 'smallest eigenvalue .* positive semi-definite"),
        (broken, "covariance = .* finite"),
        (covariance[:5, :5], r"covariance.shape = \(5, 5\)"),
    ]:
        with pytest.raises(InputError, match=said):
            GaussianDenoiser.from_moments(mean, matrix)
    with pytest.raises(InputError, match="images = '1 examples'"):
        GaussianDenoiser.fit(np.ones((1, *EVENT)))
    with pytest.raises(InputError, match=r"images = .* finite"):
        GaussianDenoiser.fit(np.full((5, *EVENT), np.inf))
    with pytest.raises(InputError, match="ddof"):
        GaussianDenoiser.fit(np.ones((5, *EVENT)), ddof=-1)
    with pytest.raises(InputError, match=r"x.shape"):
        GaussianDenoiser.from_moments(mean, covariance)(jnp.ones(D), 1.0)
