"""The exact flow of a Gaussian against integrators: first-order Euler, second-order Heun, and the sampler itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import gaussian_flow
from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser
from dgu.samplers import heun, heun_step, karras_sigmas
from tests.scale_mixtures import GRID, TEN, D, scale_mixture


def test_the_ten_levels():
    np.testing.assert_allclose(karras_sigmas(10)[:-1], TEN, rtol=1e-12, atol=0)


def rank_deficient():
    """A Gaussian of 40 examples in 64 dimensions, with a mean."""
    return GaussianDenoiser.fit(scale_mixture(40, 0, np.float64) + 0.3)


@jax.jit
def euler(denoiser, x, sigmas):
    """Euler's states at all levels."""
    move = lambda x, pair: (heun_step(denoiser, x, *pair, second_order=False),) * 2  # noqa: E731
    return jax.lax.scan(move, x, (sigmas[:-1], sigmas[1:]))[1]


@jax.jit
def second_order(denoiser, x, sigmas):
    move = lambda x, pair: (heun_step(denoiser, x, *pair),) * 2  # noqa: E731
    return jax.lax.scan(move, x, (sigmas[:-1], sigmas[1:]))[1]


def test_integrators_converge_to_it_at_their_order(x64):
    model = rank_deficient()
    x = 80 * jax.random.normal(jax.random.key(0), (D,), jnp.float64)
    errors = {}
    for solver in (euler, second_order):
        for steps in (100, 1000):
            grid = jnp.asarray(karras_sigmas(steps)[:-1])
            exact, _ = gaussian_flow(model, x, grid[0], grid[1:])
            states = solver(model, x, grid)
            errors[solver, steps] = float(jnp.linalg.norm(states[-1] - exact[-1]) / jnp.linalg.norm(exact[-1]))
    assert 0.08 < errors[euler, 1000] / errors[euler, 100] < 0.12, errors
    assert 0.005 < errors[second_order, 1000] / errors[second_order, 100] < 0.02, errors
    assert errors[second_order, 100] < errors[euler, 1000] < errors[euler, 100]


def test_it_solves_the_equation_and_the_denoiser_says_so(x64, strict_dtypes):
    model, levels = rank_deficient(), jnp.asarray(np.append(GRID, 0.0))
    x = 10 * jax.random.normal(jax.random.key(1), (D,), jnp.float64)
    states, denoised = gaussian_flow(model, x, jnp.asarray(9.0), levels)
    call = jax.jit(model)
    for state, clean, sigma in zip(states, denoised, levels):
        np.testing.assert_allclose(call(state, sigma), clean, atol=1e-11)
    # d x / d sigma = (x - D) / sigma, by differentiation of the closed form.
    slope_at = jax.jit(jax.jacfwd(lambda s: gaussian_flow(model, x, jnp.asarray(9.0), s[None])[0][0]))
    for state, clean, sigma in zip(states[:-1], denoised, levels[:-1]):
        slope = slope_at(sigma)
        np.testing.assert_allclose(slope, (state - clean) / sigma, atol=1e-9)
    # From the first state on, or back to the start: one flow.
    np.testing.assert_allclose(gaussian_flow(model, states[0], levels[0], levels)[0], states, atol=1e-11)
    np.testing.assert_allclose(gaussian_flow(model, states[3], levels[3], jnp.asarray([9.0]))[0][0], x, atol=1e-11)
    # At level 0 it is on the support, and is its own denoised image.
    np.testing.assert_allclose(states[-1], denoised[-1], atol=1e-12)


def test_the_sampler_ends_where_the_flow_does(x64):
    model = rank_deficient()
    x = 80 * jax.random.normal(jax.random.key(2), (D,), jnp.float64)
    end = gaussian_flow(model, x, 80.0, np.zeros(1))[0][0]
    found = jax.jit(heun)(model, x, karras_sigmas(400))
    assert float(jnp.linalg.norm(found - end) / jnp.linalg.norm(end)) < 1e-3


def test_as_the_noise_vanishes_the_distance_to_the_input_is_the_rank_gap(x64):
    """Both sides of Appendix F.1: ``E sqrt(|D_G(x) - x|^2 / d)`` is the norm of what the support does not hold."""
    held = jnp.asarray(scale_mixture(2000, 1, np.float64))
    for n in (40, 200):
        model = GaussianDenoiser.fit(scale_mixture(n, 0, np.float64))
        moved = jax.vmap(lambda x: gaussian_flow(model, x, 1e-5, np.zeros(1))[1][0])(held) - held  # noqa: B023
        rmse = float(jnp.mean(jnp.linalg.norm(moved, axis=1)) / np.sqrt(D))
        rows = scale_mixture(n, 0, np.float64)
        projector = np.linalg.pinv(rows - rows.mean(0)) @ (rows - rows.mean(0))
        centred = np.asarray(held) - rows.mean(0)
        gap = np.linalg.norm(centred - centred @ projector, axis=1)
        np.testing.assert_allclose(rmse, gap.mean() / np.sqrt(D), rtol=1e-2, atol=1e-8)
        assert (rmse > 0.05) == (n < D)


def test_bad_input_is_named():
    model = rank_deficient()
    with pytest.raises(InputError, match=r"x\.shape"):
        gaussian_flow(model, jnp.zeros(3), 1.0, np.ones(1))
    with pytest.raises(InputError, match=r"sigma = 0\.0"):
        gaussian_flow(model, jnp.zeros(D), 0.0, np.ones(1))
    with pytest.raises(InputError, match=r"sigmas = -1"):
        gaussian_flow(model, jnp.zeros(D), 1.0, -np.ones(1))
