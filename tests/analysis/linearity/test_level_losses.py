"""The loss at each noise level against what Gaussian data must give; standardised pixels and their bits per
dimension.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dgu.analysis import level_losses, linear_level_loss
from dgu.core.errors import InputError
from dgu.data import PixelScale
from dgu.models import GaussianDenoiser
from dgu.samplers import log_likelihood, pixel_bits

RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
VARIANCES = np.array([4.0, 1.0, 0.5, 0.1, 0.01, 1e-4])
COVARIANCE = (BASIS * VARIANCES) @ BASIS.T
MEAN = RNG.normal(size=6)
LEVELS = (0.05, 0.5, 3.0)


def test_the_exact_denoiser_of_a_gaussian_has_the_loss_in_closed_form():
    """Within four standard errors at every level; an estimate that does without the covariance does worse by what it
    should.
    """
    images = (MEAN + RNG.normal(size=(4000, 6)) * np.sqrt(VARIANCES) @ BASIS.T).astype(np.float32)
    denoiser = GaussianDenoiser.from_moments(*(jnp.asarray(a, jnp.float32) for a in (MEAN, COVARIANCE)))
    found = level_losses(denoiser, images, jax.random.key(1), sigmas=LEVELS, draws=1, batch_size=1000)
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    expected = linear_level_loss(COVARIANCE, LEVELS)
    by_hand = [sum(lam / (lam + sigma**2) for lam in VARIANCES) for sigma in LEVELS]
    np.testing.assert_allclose(expected, by_hand, rtol=1e-9)
    assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all() and (error < 0.05 * expected).all()
    # D(x) = x keeps all of the noise: |eps|^2, d of it.
    kept = level_losses(lambda x, sigma: x, images, jax.random.key(1), sigmas=LEVELS, draws=1, batch_size=1000)
    assert (np.abs(kept.mean(axis=0) - 6) < 4 * math.sqrt(12 / 4000)).all()


def test_means_over_draws():
    """One image, many draws: the mean of its loss is that of the noise alone, at each level."""
    image = np.zeros((1, 6), np.float32)
    found = level_losses(lambda x, sigma: x / 2, image, jax.random.key(0), sigmas=(1.0,), draws=64)
    assert found.shape == (1, 1) and abs(found[0, 0] - 1.5) < 4 * 1.5 * math.sqrt(2 / 6 / 64)


def test_standardised_pixels_and_back():
    images = RNG.normal(size=(50, 3, 3, 1)).astype(np.float32) * 0.2
    images[:, 0, 0] = 0.1  # 0.1 in float32: a mean of fifty of it is not it.
    scale = PixelScale.fit(images)
    scaled = scale.apply(images)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    expected = np.ones((3, 3, 1))
    expected[0, 0] = 0
    np.testing.assert_allclose(scaled.std(0), expected, atol=1e-5)
    np.testing.assert_allclose(scale.invert(scaled), images, atol=1e-6)
    assert scale.std[0, 0] == 1 and scale.log_volume == pytest.approx(
        np.log(images.std(0)[expected > 0]).sum(), rel=1e-4
    )
    for bad in (images[:0], np.full_like(images, np.nan)):
        with pytest.raises(InputError):
            PixelScale.fit(bad)


def test_bits_per_dimension_of_a_gaussian_are_those_of_its_pixels(x64):
    """Pixels N(m, C), seen standardised by a denoiser of that scale: the density of pixels times the cells' volume."""
    mean, covariance = 0.1 * MEAN, 0.04 * COVARIANCE + 0.001 * np.eye(6)
    scale = PixelScale(mean.astype(np.float32), np.sqrt(np.diag(covariance)).astype(np.float32))
    std = scale.std.astype(np.float64)
    denoiser = GaussianDenoiser.from_moments(jnp.zeros(6), jnp.asarray(covariance / np.outer(std, std)))
    pixels = np.random.default_rng(2).multivariate_normal(mean, covariance)
    z = jnp.asarray((pixels - scale.mean.astype(np.float64)) / std)
    nats, _ = log_likelihood(denoiser, z, sigma_min=1e-5, sigma_max=1e4, rtol=1e-8, atol=1e-8)
    density = stats.multivariate_normal(scale.mean.astype(np.float64), covariance).logpdf(pixels)
    expected = -(density + 6 * math.log(2 / 255)) / (6 * math.log(2))
    assert pixel_bits(float(nats), scale) == pytest.approx(expected, abs=1e-5)
    assert abs(scale.log_volume) > 1  # So that the change of variables counts.


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: linear_level_loss(COVARIANCE, (1.0, 0.0)), "sigmas"),
        (lambda: linear_level_loss(COVARIANCE - np.eye(6), (1.0,)), "covariance = 'smallest eigenvalue"),
        (lambda: level_losses(lambda x, s: x, np.zeros((2, 3), np.float32), jax.random.key(0), sigmas=(-1.0,)), "sigmas"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(call, words):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
