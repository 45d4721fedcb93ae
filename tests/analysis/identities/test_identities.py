"""Identities of posterior means, exact on Gaussians and mixtures, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import moment_gaps, mutual_information, noisy_entropy, posterior_moments
from dgu.core.errors import InputError
from dgu.models import EmpiricalDenoiser, GaussianDenoiser, MoLRGDenoiser, RandomHierarchy

KEY = jax.random.key(0)
LAM = np.array([4.0, 1.0, 0.1])
GAUSSIAN = GaussianDenoiser(np.zeros(3), np.eye(3), LAM)
MOMENTS = jax.jit(posterior_moments)


def points(n=6, d=4):
    return np.random.default_rng(0).normal(size=(n, d))


@pytest.mark.parametrize("sigma", [0.1, 1.0, 5.0])
def test_moments_of_a_gaussian(sigma, x64):
    v = np.array([1.0, -2.0, 3.0])
    mean, variance, third = MOMENTS(GAUSSIAN, jnp.array([0.3, 1.0, -2.0]), sigma, v)
    gain = LAM / (LAM + sigma**2)
    assert float(mean) == pytest.approx(v @ (gain * [0.3, 1.0, -2.0]), rel=1e-12)
    assert float(variance) == pytest.approx(v**2 @ (sigma**2 * gain), rel=1e-12)
    assert abs(float(third)) < 1e-12


@pytest.mark.parametrize("sigma", [0.4, 1.0, 3.0])
def test_moments_of_training_points(sigma, x64):
    data, x, v = points(), jnp.asarray(points(1)[0] + 0.3), np.array([1.0, 0.5, -1.0, 2.0])
    weights = np.exp(-np.square(np.asarray(x) - data).sum(1) / (2 * sigma**2))
    weights /= weights.sum()
    along = data @ v - weights @ data @ v
    found = MOMENTS(EmpiricalDenoiser(data), x, sigma, v)
    exact = [weights @ data @ v, weights @ along**2, weights @ along**3]
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)


def test_moments_of_a_mixture_by_quadrature(x64):
    """One coordinate, components of different variances: the posterior integrated on a grid."""
    law = MoLRGDenoiser(np.array([0.3, 0.7]), np.array([[-2.0], [1.0]]), np.ones((2, 1, 1)), np.array([[0.5], [2.0]]))
    grid = np.linspace(-14, 14, 40_001)
    prior = 0.3 * np.exp(-((grid + 2) ** 2)) / np.sqrt(np.pi) + 0.7 * np.exp(-((grid - 1) ** 2) / 4) / np.sqrt(
        4 * np.pi
    )
    for x, sigma in ((0.3, 0.8), (-3.0, 1.5)):
        weights = prior * np.exp(-((x - grid) ** 2) / (2 * sigma**2))
        weights /= weights.sum()
        mean = weights @ grid
        exact = [mean, weights @ (grid - mean) ** 2, weights @ (grid - mean) ** 3]
        np.testing.assert_allclose(MOMENTS(law, jnp.array([x]), sigma, np.ones(1)), exact, rtol=1e-6)


def drawn(law, n=3000):
    return np.asarray(jax.jit(jax.vmap(law.draw))(jax.random.split(KEY, n)), np.float64)


LAWS = {
    "mixture": lambda: MoLRGDenoiser(
        np.array([0.3, 0.7]),
        np.array([[-1.0, 0, 0], [1, 1, 0]]),
        np.stack([np.eye(3)[:, :2]] * 2),
        np.array([[1.0, 0.2], [0.5, 2]]),
        0.3,
    ),
    "hierarchy": lambda: RandomHierarchy.random(KEY, depth=2, symbols=3),
    "points": lambda: EmpiricalDenoiser(points()),
}


@pytest.mark.parametrize("name", LAWS)
def test_posterior_means_have_no_gaps(name, x64):
    law = LAWS[name]()
    found = moment_gaps(law, drawn(law), np.array([0.6, 1.0, 4.0]), KEY, batch_size=256)
    for gap in (found.second, found.third):
        assert (np.abs(gap.value) < 4.5 * gap.standard_error + 1e-12).all()


def scaled(x, sigma):
    return 0.7 * GAUSSIAN(x, sigma)


def wavy(x, sigma):
    return GAUSSIAN(x, sigma) + 0.5 * jnp.sin(x)


def test_other_denoisers_have_gaps(x64):
    clean = np.random.default_rng(1).normal(size=(3000, 3)) * np.sqrt(LAM)
    right, wrong, skewed = (
        moment_gaps(each, clean, np.array([1.0]), KEY, batch_size=256) for each in (GAUSSIAN, scaled, wavy)
    )
    assert abs(right.second.value[0]) < 4 * right.second.standard_error[0]
    gain = LAM / (LAM + 1)
    assert right.squared_error[0] == pytest.approx(gain.mean(), rel=0.1)
    # The error alone is random here: signs leave the trace of a diagonal matrix as it is.
    assert (3 * right.seconds[0]).var() == pytest.approx(2 * np.square(gain).sum(), rel=0.15)
    assert right.errors.shape == right.seconds.shape == right.thirds.shape == (1, 3000)
    # E |x0 - 0.7 D|^2 = sum of posterior variances + 0.09 E |D|^2, and 0.7 of the first is what J says.
    exact = (0.09 * gain * LAM + 0.3 * gain).mean()
    assert wrong.second.value[0] == pytest.approx(exact, abs=4 * wrong.second.standard_error[0])
    assert abs(wrong.second.value[0]) > 4 * wrong.second.standard_error[0]
    assert abs(skewed.third.value[0]) > 5 * skewed.third.standard_error[0]


def test_information_and_entropy_of_a_gaussian():
    sigmas = np.geomspace(0.01, 100, 60)
    losses = (LAM / (LAM + sigmas[:, None] ** 2)).sum(axis=1)
    exact = np.log1p(LAM / sigmas[:, None] ** 2).sum(axis=1) / 2
    np.testing.assert_allclose(mutual_information(sigmas, losses), exact, atol=1e-3)
    entropy = np.log(2 * np.pi * np.e * (LAM + sigmas[:, None] ** 2)).sum(axis=1) / 2
    np.testing.assert_allclose(noisy_entropy(sigmas, losses, 3), entropy, atol=1e-3)
    # Losses above the least give more.
    assert (mutual_information(sigmas, 1.1 * losses) > exact).all()


def test_information_of_two_points_is_one_bit():
    """And the entropy of the mixture at each level, both by quadrature."""
    sigmas = np.geomspace(0.05, 60, 80)
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    weights = weights / weights.sum()
    x = 1 + sigmas[:, None] * nodes
    losses = (weights * (1 - np.tanh(x / sigmas[:, None] ** 2)) ** 2).sum(axis=1) / sigmas**2
    found = mutual_information(sigmas, losses)
    assert found[0] == pytest.approx(np.log(2), abs=1e-3)
    logs = np.logaddexp(-(nodes**2) / 2, -((x + 1) ** 2) / (2 * sigmas[:, None] ** 2)) - np.log(2)
    entropy = np.log(2 * np.pi * sigmas**2) / 2 - (weights * logs).sum(axis=1)
    np.testing.assert_allclose(noisy_entropy(sigmas, losses, 1), entropy, atol=1e-3)


ONES = np.ones(4)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: mutual_information(ONES, ONES), "sigmas"),
        (lambda: mutual_information(np.arange(1.0, 5), -ONES), "losses"),
        (lambda: noisy_entropy(np.arange(1.0, 5), ONES, 0), "dimension"),
        (lambda: moment_gaps(GAUSSIAN, np.ones((2, 3)) * [[1], [2]], np.zeros(1), KEY), "sigmas"),
        (lambda: posterior_moments(GAUSSIAN, np.ones(3), 1.0, np.ones(2)), "direction.shape"),
    ],
)
def test_bad_input_is_one_line(call, name):
    with pytest.raises(InputError, match=rf"^{name} = ") as error:
        call()
    assert "\n" not in str(error.value)
