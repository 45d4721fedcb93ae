"""Gradient descent on the denoising loss: step by step, to the Gaussian's map, and away from it with large steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.training import linear_gradient_descent

SIZE = 5


def moments(seed=0, size=SIZE):
    """A mean and a covariance of full rank."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(size, size))
    return rng.normal(size=size), factor @ factor.T / size


def expected(mean, covariance, sigma):
    """The Gaussian's posterior mean as an affine map."""
    weight = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(len(mean)))
    return weight, mean - weight @ mean


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_its_entries_are_those_of_a_loop_over_an_automatic_gradient(sigma):
    """The loss in moments, differentiated by JAX, with 16 steps taken one by one."""
    mean, covariance = moments()
    weights, biases = linear_gradient_descent(mean, covariance, sigma, rate=0.7, doublings=4)

    def loss(params):
        weight, bias = params
        # E |W y + b - x|^2 with x = mean + u, y = x + sigma eps, written out by its parts.
        left = weight - jnp.eye(SIZE)
        still = left @ mean + bias
        return jnp.trace(left @ covariance @ left.T) + sigma**2 * jnp.sum(weight**2) + still @ still

    second = covariance + np.outer(mean, mean) + sigma**2 * np.eye(SIZE)
    whole = np.block([[second, mean[:, None]], [mean[None], np.ones((1, 1))]])
    eta = 0.7 / np.linalg.eigvalsh(whole)[-1] / 2
    with jax.enable_x64(True):
        params, slope, seen = (jnp.zeros((SIZE, SIZE)), jnp.zeros(SIZE)), jax.jit(jax.grad(loss)), {}
        for number in range(1, 17):
            params = jax.tree.map(lambda p, g: p - eta * g, params, slope(params))
            seen[number] = jax.tree.map(np.asarray, params)
    for place, steps in enumerate((1, 2, 4, 8, 16)):
        np.testing.assert_allclose(weights[place], seen[steps][0], atol=1e-12)
        np.testing.assert_allclose(biases[place], seen[steps][1], atol=1e-12)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 30.0])
def test_it_ends_at_the_posterior_mean_of_the_gaussian(sigma):
    mean, covariance = moments(1)
    weights, biases = linear_gradient_descent(mean, covariance, sigma)
    weight, bias = expected(mean, covariance, sigma)
    np.testing.assert_allclose(weights[-1], weight, atol=1e-9)
    np.testing.assert_allclose(biases[-1], bias, atol=1e-9)
    off = np.square(weights - weight).sum(axis=(1, 2)) + np.square(biases - bias).sum(axis=1)
    assert (np.diff(off) <= 1e-12).all(), "below a rate of 1 every step comes nearer"


def test_a_covariance_without_full_rank_has_its_projection_at_low_noise():
    mean, covariance = moments(2)
    basis = np.linalg.qr(covariance)[0][:, :3]
    weights, _ = linear_gradient_descent(mean, basis @ basis.T, 1e-2, doublings=34)
    np.testing.assert_allclose(weights[-1], basis @ basis.T / (1 + 1e-4), atol=1e-8)


def test_steps_above_the_bound_lead_away():
    mean, covariance = moments(3)
    near, far = (linear_gradient_descent(mean, covariance, 1.0, rate=rate, doublings=8)[0] for rate in (1.9, 2.1))
    off = [np.square(found - expected(mean, covariance, 1.0)[0]).sum(axis=(1, 2)) for found in (near, far)]
    assert off[0][-1] < 1e-3 < 1e3 < off[1][-1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sigma": 0.0}, "sigma = 0.0: must be positive"),
        ({"rate": 0}, "rate = 0: must be positive"),
        ({"rate": 4.0, "doublings": 14}, "rate = 4.0: must be small enough for a finite map after 2"),
        ({"covariance": np.eye(3)}, r"covariance\.shape = \(3, 3\): must be \(5, 5\)"),
        ({"doublings": -1}, "doublings = -1"),
    ],
)
def test_what_cannot_be_used_is_refused(change, complaint):
    mean, covariance = moments()
    given = {"mean": mean, "covariance": covariance, "sigma": 1.0} | change
    with pytest.raises(InputError, match=complaint):
        linear_gradient_descent(given.pop("mean"), given.pop("covariance"), given.pop("sigma"), **given)
