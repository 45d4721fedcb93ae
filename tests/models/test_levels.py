"""One denoiser a level as one denoiser; the linear network; the coefficients of an autoencoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import DAEPreconditioning, LevelDenoisers, LinearDenoiser, LinearNetwork, NetworkDenoiser

NETWORK = LinearNetwork((2, 2, 1))


def stacked(levels):
    rng = np.random.default_rng(0)
    shape = {"weight": (levels, 4, 4), "bias": (levels, 4)}
    return {name: rng.normal(size=of).astype(np.float32) for name, of in shape.items()}


def test_the_nearest_level_answers():
    sigmas, params = np.array([10.0, 1.0, 0.1]), stacked(3)
    denoiser = LevelDenoisers(sigmas, NetworkDenoiser(params, NETWORK))
    x = jax.random.normal(jax.random.key(0), (2, 2, 1))
    ask = jax.jit(lambda d, x, sigma: d(x, sigma))
    # 3.0 is nearer to 1 than to 10, and to 10 by its distance: levels are compared in log sigma.
    for sigma, level in ((10.0, 0), (3.3, 0), (3.0, 1), (1.0, 1), (0.1, 2), (1e-3, 2), (1e3, 0)):
        own = NetworkDenoiser({name: leaf[level] for name, leaf in params.items()}, NETWORK)
        np.testing.assert_allclose(ask(denoiser, x, sigma), own(x, sigma), rtol=1e-6)
        np.testing.assert_allclose(denoiser.at(level)(x, sigma), own(x, sigma), rtol=1e-6)
    assert denoiser.sigma_min == 0.1 and denoiser.sigma_max == 10.0
    with pytest.raises(InputError, match="leading axes of the leaves"):
        LevelDenoisers(sigmas[:2], NetworkDenoiser(params, NETWORK))(x, 1.0)


def test_the_linear_network_is_the_map_that_it_says(x64):
    sigmas, params = np.array([10.0, 0.1]), stacked(2)
    weights, biases = NETWORK.maps(params, sigmas)
    maps = LinearDenoiser(sigmas, weights, biases.reshape(2, 2, 2, 1))
    denoiser = LevelDenoisers(sigmas, NetworkDenoiser(params, NETWORK))
    x = jax.random.normal(jax.random.key(1), (2, 2, 1))
    for sigma in sigmas:
        np.testing.assert_allclose(denoiser(x, sigma), maps(x, sigma), rtol=1e-12)
    np.testing.assert_array_equal(NETWORK.apply(NETWORK.init(jax.random.key(0)), x, 1.0), np.zeros((2, 2, 1)))


def test_an_autoencoder_predicts_the_image_itself():
    sigma = jnp.array([0.002, 1.5, 80.0])
    plain = DAEPreconditioning().coefficients(sigma)
    np.testing.assert_array_equal(np.stack([plain.skip, plain.out, plain.inp]), [[0] * 3, [1] * 3, [1] * 3])
    np.testing.assert_array_equal(plain.noise, sigma)
    scaled = DAEPreconditioning(input_std=0.5).coefficients(sigma)
    np.testing.assert_allclose(scaled.inp, 1 / np.sqrt(np.asarray(sigma) ** 2 + 0.25), rtol=1e-6)
    with pytest.raises(InputError, match=r"input_std = 0.0: must be positive and finite, or None"):
        DAEPreconditioning(input_std=0.0)
    with pytest.raises(InputError, match="shape = "):
        LinearNetwork(())
