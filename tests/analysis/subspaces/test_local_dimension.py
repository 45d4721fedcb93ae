"""Local dimension against the closed forms of low-rank Gaussians and mixtures, in float64."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from dgu.analysis import local_dimension
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser, MoLRG

KEY = jax.random.key(0)
SIZE = 50


def low_rank(rank, dtype=np.float64):
    """A Gaussian of a rank in 50 dimensions, its mean away from 0, with unequal variances."""
    rng = np.random.default_rng(rank)
    basis = np.linalg.qr(rng.normal(size=(SIZE, rank)))[0]
    leaves = (rng.normal(size=SIZE), basis, rng.uniform(0.5, 2, rank))
    return GaussianDenoiser(*(jnp.asarray(leaf, dtype) for leaf in leaves))


def clean(gaussian, count):
    """Draws and their coordinates c."""
    c = np.random.default_rng(9).normal(size=(count, len(gaussian.variances))) * np.sqrt(gaussian.variances)
    return np.asarray(gaussian.mean) + c @ np.asarray(gaussian.basis).T, c


@pytest.mark.parametrize("rank", [3, 8])
def test_ranks_of_gaussians_come_out(rank, x64):
    gaussian = low_rank(rank)
    points, c = clean(gaussian, 64)
    found = local_dimension(gaussian, points, 0.002)
    assert found.exact and np.abs(found.value - rank).max() < 5e-4  # 3.000 and 8.000
    for sigma in (0.002, 0.1, 1.0):
        lam = np.asarray(gaussian.variances)
        exact = rank + sigma**2 * ((c**2 - lam - sigma**2) / (lam + sigma**2) ** 2).sum(axis=1)
        np.testing.assert_allclose(local_dimension(gaussian, points, sigma).value, exact, atol=1e-9)


def test_it_is_the_slope_of_the_log_density(x64):
    """``d + d log p / d log sigma`` at any point, clean or not, of a mixture of ranks 3 and 8."""
    law = MoLRG.random(KEY, (SIZE,), (3, 8), overlap=None, noise_std=0.1)
    x = np.asarray(law.sample(KEY, np.arange(5))) + 0.5 * np.random.default_rng(0).normal(size=(5, SIZE))
    slope = jax.grad(lambda log_sigma, x: law.log_density(x, jnp.exp(log_sigma)))
    for sigma in (0.5, 1.0, 3.0):
        exact = SIZE + jax.vmap(slope, (None, 0))(jnp.log(sigma), jnp.asarray(x))
        np.testing.assert_allclose(local_dimension(law.denoiser, x, sigma).value, exact, rtol=1e-9)


def test_each_component_of_a_mixture_has_its_own_rank(x64):
    law = MoLRG.random(KEY, (SIZE,), (3, 8))
    labels = np.arange(40) % 2
    points = np.asarray(law.sample(KEY, np.arange(40), labels))
    found = local_dimension(law.denoiser, points, 0.002)
    assert np.abs(found.value - np.where(labels == 0, 3, 8)).max() < 5e-4
    # With noise as large as the data the components are not told apart.
    assert np.abs(local_dimension(law.denoiser, points, 1.0).value - np.where(labels == 0, 3, 8)).mean() > 0.5


def test_noisy_examples_have_the_dimension_of_the_space(x64):
    gaussian = low_rank(3)
    points, _ = clean(gaussian, 2000)
    noisy = points + 0.3 * np.random.default_rng(1).normal(size=points.shape)
    values = local_dimension(gaussian, noisy, 0.3, batch_size=500).value
    assert abs(values.mean() - SIZE) < 4 * values.std() / np.sqrt(2000)


def test_probes_agree_with_the_trace(x64):
    gaussian = low_rank(8)
    points, _ = clean(gaussian, 40)
    sigmas = np.linspace(0.1, 1.0, 40)
    exact = local_dimension(gaussian, points, sigmas).value
    rough = local_dimension(gaussian, points, sigmas, key=KEY, probes=32, batch_size=7)
    scores = (rough.value - exact) / rough.standard_error
    assert abs(scores.mean()) < 4 / np.sqrt(40) and 0.5 < scores.std() < 2
    assert 0.8 <= ((rough.low <= exact) & (exact <= rough.high)).mean()
    # An example's probes are its own, whatever its batch.
    alone = local_dimension(gaussian, points[:3], sigmas[:3], key=KEY, probes=32)
    np.testing.assert_allclose(alone.value, rough.value[:3], rtol=1e-12)


def test_single_precision_and_images():
    images = np.asarray(jax.random.normal(KEY, (200, 4, 4, 1)))
    found = local_dimension(GaussianDenoiser.fit(images), images[:9], 0.01)
    np.testing.assert_allclose(found.value, 16, atol=0.02)


@pytest.fixture
def unchecked():
    """Without the type checks that only tests have: the function's own refusals are what users meet."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("sigma = 0.0: must be positive and finite", {"sigma": 0.0}),
        (r"sigma.shape = \(2,\): must be \(\) or \(3,\)", {"sigma": np.ones(2)}),
        ("x = 'non-finite': must be finite", {"x": np.full((3, SIZE), np.nan)}),
        ("x = '0 images': must be at least 1", {"x": np.zeros((0, SIZE))}),
        ("probes = 1: must be a whole number, 2 or more", {"probes": 1}),
        (r"x.shape = \(4,\): must be that of the mean", {"x": np.zeros((3, 4))}),
    ],
)
def test_refusals(line, options, unchecked):
    with pytest.raises(InputError, match=line):
        local_dimension(low_rank(3, np.float32), **{"x": np.zeros((3, SIZE)), "sigma": 0.1, **options})
