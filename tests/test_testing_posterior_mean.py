"""Closed forms pass as posterior means; each planted defect is caught and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.testing import check_posterior_mean
from tests.checked_denoisers import EIGENVALUES, KEY, MEAN, SIZE, defects, full_check, gaussian, mixture


def test_gaussian_passes_in_float32():
    truth = gaussian()
    report = full_check(truth, jnp.float32, mean=MEAN)
    assert report.defects == ()
    assert report.denoiser.traces == 1 and report.denoiser.random_draws == ()
    assert report.asymmetry < 1e-5 and report.tweedie < 1e-3 and report.mean_bias < 1e-4
    assert report.wiener < 4 and report.identity < 0.6


def test_gaussian_passes_in_float64(x64):
    truth = gaussian(jnp.float64)
    support = jax.vmap(truth.draw)(jax.random.split(KEY, 100))
    report = full_check(truth, jnp.float64, mean=MEAN, support=support, sample_prior=None)
    assert report.asymmetry < 1e-13 and report.negativity < 1e-13 and report.tweedie < 1e-11
    assert report.mean_bias < 1e-14
    # Two noises at sigma = 80: the ratio is that of |Cov v| to sigma^2 |v|, so between 0 and 2 / 80^2.
    assert 0 < report.spread < EIGENVALUES.max() / 80**2
    assert report.wiener < 4


@pytest.mark.slow
def test_mixture_passes_in_float32():
    report = full_check(mixture(), jnp.float32, mean=0.3 * np.full(SIZE, -0.7) + 0.7 * np.full(SIZE, 0.5))
    assert report.defects == () and report.tweedie < 1e-3


def test_mixture_passes_in_float64(x64):
    report = full_check(mixture(jnp.float64), jnp.float64)
    assert report.asymmetry < 1e-12 and report.negativity < 1e-12 and report.tweedie < 1e-10
    assert report.mean_bias is None and report.wiener is not None


def test_library_closed_form_passes():
    from dgu.models import GaussianDenoiser

    images = jax.random.normal(KEY, (12, 4, 4, 1))
    report = check_posterior_mean(
        GaussianDenoiser.fit(images), (4, 4, 1), KEY, mean=images.mean(axis=0), support=images
    )
    assert report.asymmetry < 1e-5


@pytest.mark.slow
def test_empirical_denoiser_passes_where_its_posterior_is_one_point():
    """At sigma = 0.05 the Jacobian is rounding and nothing else."""
    data = jax.random.normal(KEY, (12, 4, 4, 1))

    def squares(data, x, sigma):
        return -jnp.sum((x[None] - data) ** 2, axis=(1, 2, 3)) / (2 * sigma**2)

    def posterior_mean(data, x, sigma):
        return jnp.tensordot(jax.nn.softmax(squares(data, x, sigma)), data, 1, precision="highest")

    report = check_posterior_mean(
        jax.tree_util.Partial(posterior_mean, data),
        (4, 4, 1),
        KEY,
        mean=data.mean(axis=0),
        support=data,
        sample_prior=lambda key: jax.random.choice(key, data),
        log_density=jax.tree_util.Partial(lambda d, x, s: jax.nn.logsumexp(squares(d, x, s)), data),
    )
    assert report.identity == 0 and report.wiener < 4


def test_krylov_space_finds_one_negative_direction_and_one_skew_plane():
    """48 dimensions, eight at a time: as sure as the whole Jacobian where the defect is large."""
    size = 48
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(size, size)))[0]
    spectrum = np.linspace(0.2, 2, size)

    def linear(matrix):
        return jax.tree_util.Partial(
            lambda m, x, s: jnp.matmul(m, x, precision="highest") / (1 + s**2), jnp.asarray(matrix)
        )

    good = (basis * spectrum) @ basis.T
    negative = good - 2.5 * np.outer(basis[:, 0], basis[:, 0])
    skew = good + np.outer(basis[:, 0], basis[:, 1]) - np.outer(basis[:, 1], basis[:, 0])
    options = {"exact_size": 16, "identity": np.inf, "spread": np.inf}
    # Not the identity on any support, so those bounds are lifted; here only the Jacobian matters.
    assert check_posterior_mean(linear(good), (size,), KEY, **options).negativity < 1e-6
    assert defects(check_posterior_mean, linear(negative), (size,), KEY, **options) == {"negativity"}
    assert defects(check_posterior_mean, linear(skew), (size,), KEY, **options) == {"asymmetry"}


def test_non_symmetric_is_caught():
    truth = gaussian()
    turn = jnp.asarray(np.eye(SIZE) + 0.1 * np.triu(np.ones((SIZE, SIZE)), 1), jnp.float32)
    turned = jax.tree_util.Partial(lambda m, d, x, s: m @ d(x, s), turn, truth)
    assert "asymmetry" in defects(check_posterior_mean, turned, (SIZE,), KEY)


@pytest.mark.parametrize("factor", [1.1, 0.9])
def test_mis_scaled_is_caught(factor):
    truth = gaussian()
    names = defects(full_check, truth, jnp.float32, denoiser=gaussian(factor=factor), mean=MEAN)
    assert {"identity", "mean_bias", "tweedie", "wiener"} <= names
    assert "asymmetry" not in names and "negativity" not in names


def test_mis_scaled_is_caught_with_nothing_given():
    assert defects(check_posterior_mean, gaussian(factor=1.05), (SIZE,), KEY) == {"identity"}


def test_wrong_noise_level_is_caught():
    """Takes sigma for twice what it is: a smooth, symmetric, wrong posterior mean."""
    truth = gaussian()
    blind = jax.tree_util.Partial(lambda d, x, s: d(x, 2 * s), truth)
    assert {"tweedie", "wiener"} <= defects(full_check, truth, jnp.float32, denoiser=blind)


def test_identity_map_is_caught():
    """It forgets nothing at large sigma, and is symmetric and the identity on everything."""
    assert "spread" in defects(check_posterior_mean, lambda x, s: x, (SIZE,), KEY)


def test_constant_bias_is_caught():
    truth = gaussian()
    shifted = jax.tree_util.Partial(lambda d, b, x, s: d(x, s) + b, truth, jnp.full(SIZE, 0.05))
    assert {"mean_bias", "tweedie", "identity"} <= defects(full_check, truth, jnp.float32, denoiser=shifted, mean=MEAN)


def test_bad_support():
    with pytest.raises(InputError, match="support = "):
        check_posterior_mean(lambda x, s: x, (3,), KEY, support=np.zeros((1, 3), np.float32))
    with pytest.raises(InputError, match="mean = "):
        check_posterior_mean(lambda x, s: x, (3,), KEY, mean=np.zeros(2, np.float32))
