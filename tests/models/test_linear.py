"""The linear denoiser: exact at its levels, interpolated between them, and the Gaussian's maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser, LinearDenoiser
from dgu.samplers import karras_sigmas

EVENT, D = (3, 2, 1), 6
GRID = karras_sigmas(10)[:-1]


def gaussian(rank=4):
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((D, D)))[0][:, :rank]
    return GaussianDenoiser(rng.standard_normal(EVENT), basis, np.array([9.0, 1.0, 0.2, 0.01])[:rank])


@pytest.mark.parametrize("order", [1, -1], ids=["falling", "rising"])
def test_the_gaussians_maps_are_its_posterior_mean_at_every_level(x64, strict_dtypes, order):
    model = gaussian()
    maps = LinearDenoiser.of_gaussian(model, GRID[::order])
    x = jnp.asarray(np.random.default_rng(1).standard_normal(EVENT))
    for sigma in GRID:
        np.testing.assert_allclose(maps(x, sigma), model(x, sigma), atol=1e-13)
        # And against W x + b written out.
        place = int(np.flatnonzero(maps.sigmas == sigma)[0])
        plain = np.asarray(maps.weights)[place] @ np.asarray(x).ravel() + np.asarray(maps.biases)[place].ravel()
        np.testing.assert_allclose(maps(x, sigma), plain.reshape(EVENT), atol=1e-13)


def test_between_levels_outputs_mix_linearly_in_log_sigma_and_outside_the_nearest_holds(x64):
    rng = np.random.default_rng(2)
    levels = np.array([0.1, 10.0, 1.0])
    maps = LinearDenoiser(levels, rng.standard_normal((3, D, D)), rng.standard_normal((3, *EVENT)))
    x = jnp.asarray(rng.standard_normal(EVENT))
    at = {level: np.asarray(maps(x, level)) for level in levels}
    np.testing.assert_allclose(maps(x, 10.0**-0.25), 0.25 * at[0.1] + 0.75 * at[1.0], atol=1e-12)
    np.testing.assert_allclose(maps(x, 10.0**0.6), 0.4 * at[1.0] + 0.6 * at[10.0], atol=1e-12)
    np.testing.assert_array_equal(maps(x, 1e-3), at[0.1])
    np.testing.assert_array_equal(maps(x, 0.0), at[0.1])
    np.testing.assert_array_equal(maps(x, 1e3), at[10.0])
    # Mapped over levels, compiled with the maps as an argument, and in float32: the same numbers.
    sigmas = jnp.asarray([0.05, 0.3, 1.0, 7.0])
    together = jax.jit(jax.vmap(lambda m, s: m(x, s), in_axes=(None, 0)))(maps, sigmas)
    np.testing.assert_allclose(together, np.stack([maps(x, s) for s in sigmas]), atol=1e-12)
    single = maps(x.astype(jnp.float32), 0.3)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, maps(x, 0.3), atol=1e-5)


def test_one_level_serves_all_and_flat_biases_do():
    rng = np.random.default_rng(3)
    weights, bias = rng.standard_normal((1, D, D)).astype(np.float32), rng.standard_normal((1, D)).astype(np.float32)
    x = rng.standard_normal(EVENT).astype(np.float32)
    for sigma in (0.01, 1.0, 50.0):
        found = LinearDenoiser(np.ones(1), weights, bias)(jnp.asarray(x), sigma)
        np.testing.assert_allclose(found, (weights[0] @ x.ravel() + bias[0]).reshape(EVENT), atol=1e-5)


def test_bad_input_is_named():
    rng = np.random.default_rng(4)
    good = LinearDenoiser(np.ones(2), rng.standard_normal((2, D, D)), rng.standard_normal((2, *EVENT)))
    with pytest.raises(InputError, match=r"x\.shape = \(4,\)"):
        good(jnp.zeros(4), 1.0)
    with pytest.raises(InputError, match=r"weights\.shape = \(2, 6, 5\)"):
        LinearDenoiser(np.ones(2), np.zeros((2, D, 5)), good.biases)(jnp.zeros(EVENT), 1.0)
    with pytest.raises(InputError, match=r"sigmas\.shape = \(\)"):
        LinearDenoiser(1.0, good.weights, good.biases)(jnp.zeros(EVENT), 1.0)
    with pytest.raises(InputError, match="positive"):
        LinearDenoiser.of_gaussian(gaussian(), np.array([1.0, 0.0]))
