"""From image to noise and back: the exact latent of a Gaussian, the round trip, and how both improve with steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import GaussianDenoiser
from dgu.samplers import heun, heun_step, invert, karras_sigmas

SHAPE = (4, 4, 3)
MODES = 48
VARIANCES = np.geomspace(1.0, 1e-3, MODES)


@pytest.fixture
def gaussian(x64):
    """A Gaussian of images of unit size, its basis and mean, and three images drawn from it."""
    rng = np.random.default_rng(0)
    basis, mean = np.linalg.qr(rng.standard_normal((MODES, MODES)))[0], 0.3 * rng.standard_normal(MODES)
    images = mean + (np.sqrt(VARIANCES) * rng.standard_normal((3, MODES))) @ basis.T
    denoiser = GaussianDenoiser(jnp.asarray(mean.reshape(SHAPE)), jnp.asarray(basis), jnp.asarray(VARIANCES))
    return denoiser, basis, mean, jnp.asarray(images.reshape(3, *SHAPE))


@partial(jax.jit, static_argnames="refine")
def there_and_back(denoiser, images, sigmas, refine=1):
    latents = jax.vmap(lambda image: invert(denoiser, image, sigmas, refine=refine))(images)
    return latents, jax.vmap(heun, in_axes=(None, 0, None))(denoiser, latents, sigmas)


@pytest.mark.parametrize(("refine", "expected"), [(0, 3), (1, 4), (2, 5)])
def test_sampling_returns_the_image(gaussian, refine, expected):
    """Uncorrected, the leading errors up and down cancel, hence order 3; each correction of the steps gains another."""
    denoiser, _, _, images = gaussian
    counts, errors = (40, 80), []
    for num_steps in counts:
        _, back = there_and_back(denoiser, images, karras_sigmas(num_steps), refine)
        errors.append(np.abs(back - images).max())
    order = np.log2(errors[0] / errors[1])
    assert abs(order - expected) < 0.35, (order, errors)


@pytest.mark.parametrize("std", [0.1, 0.3, 0.5, 1.0])
def test_round_trip_within_a_thousandth_in_forty_steps(x64, std):
    """In pixels and relative to the image, whatever the scale of the data."""
    denoiser = GaussianDenoiser(jnp.zeros(SHAPE), jnp.eye(MODES), jnp.full(MODES, std**2))
    images = std * jnp.asarray(np.random.default_rng(2).standard_normal((3, *SHAPE)))
    _, back = there_and_back(denoiser, images, karras_sigmas(40))
    assert np.abs(back - images).max() < 4e-4
    assert np.linalg.norm(back - images) < 1e-3 * np.linalg.norm(images)


def test_the_latent_is_that_of_the_exact_ode_to_second_order(gaussian):
    """A mode is stretched by sqrt((lam + 80^2) / (lam + sigma_min^2)) above sigma_min, and by 2 - gain below."""
    denoiser, basis, mean, images = gaussian
    gain = VARIANCES / (VARIANCES + 0.002**2)
    stretch = (2 - gain) * np.sqrt((VARIANCES + 80.0**2) / (VARIANCES + 0.002**2))
    rows = np.asarray(images).reshape(3, MODES)
    exact = mean + (stretch * ((rows - mean) @ basis)) @ basis.T
    counts, errors = (40, 80, 160), []  # 40 and 80 as in the first test.
    for num_steps in counts:
        latents, _ = there_and_back(denoiser, images, karras_sigmas(num_steps))
        latents = np.asarray(latents).reshape(3, MODES)
        errors.append(np.linalg.norm(latents - exact) / np.linalg.norm(exact))
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(order - 2) < 0.15, (order, errors)
    assert errors[-1] < 2e-3
    # Latents of the model's own samples are white: each mode about 80 times a standard normal number.
    white = (latents - mean) @ basis / 80
    assert abs(white.std() - 1) < 4 / np.sqrt(2 * white.size)


def test_nonlinear_round_trip(x64, mixtures):
    mixture, sigmas = mixtures[0](6, jnp.float64), karras_sigmas(40)
    images = jnp.asarray(np.asarray(mixture.means) + 0.2 * np.random.default_rng(1).standard_normal((3, 6)))
    latents, back = there_and_back(mixture, images, sigmas)
    assert 1e-5 < np.abs(back - images).max() < 1e-3 * np.abs(images).max()
    assert np.abs(latents - 80 / 5 * images).max() > 1  # the latent is no scaled image


def test_steps_are_those_of_the_grid_reversed(x64, mixtures):
    mixture, sigmas = mixtures[0](6, jnp.float64), karras_sigmas(5)
    image = jnp.asarray(np.random.default_rng(1).standard_normal(6))
    run = jax.jit(lambda m, x, s, refine: invert(m, x, s, refine=refine, observe=lambda state: state), static_argnums=3)
    latent, states = run(mixture, image, sigmas, 0)
    rising = sigmas[::-1]
    np.testing.assert_array_equal(states.step, np.arange(5))
    np.testing.assert_array_equal(states.sigma, rising[:-1])
    np.testing.assert_array_equal(states.sigma_next, rising[1:])
    call, step = jax.jit(lambda m, x, s: m(x, s)), jax.jit(heun_step)
    x = image + (image - call(mixture, image, sigmas[-2]))
    for i in range(5):
        if i > 0:
            x = step(mixture, x, rising[i], rising[i + 1])
        np.testing.assert_allclose(states.x_next[i], x, rtol=1e-12)
    np.testing.assert_array_equal(latent, states.x_next[-1])
    # A correction adds to each step what the sampler's step back misses.
    corrected, states = run(mixture, image, sigmas, 1)
    for i in range(1, 5):
        x, up = states.x[i], step(mixture, states.x[i], rising[i], rising[i + 1])
        np.testing.assert_allclose(states.x_next[i], up + x - step(mixture, up, rising[i + 1], rising[i]), rtol=1e-12)
    np.testing.assert_array_equal(corrected, states.x_next[-1])
    one_step = jax.jit(invert)(mixture, image, np.array([0.5, 0.0]))
    np.testing.assert_allclose(one_step, 2 * image - call(mixture, image, 0.5), rtol=1e-12)


def test_gradient_equals_finite_differences(x64, mixtures):
    mixture, sigmas, rng = (
        mixtures[0](4, jnp.float64),
        jnp.asarray(karras_sigmas(6, 0.02, 5.0)),
        np.random.default_rng(5),
    )
    x, direction, weights = (jnp.asarray(rng.standard_normal(4)) for _ in range(3))
    loss = jax.jit(lambda m, x: jnp.vdot(weights, invert(m, x, sigmas)))
    gradient = jax.jit(jax.grad(loss, argnums=1))(mixture, x)
    h = 1e-5
    central = (loss(mixture, x + h * direction) - loss(mixture, x - h * direction)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(gradient, direction), central, rtol=1e-6)


def test_lowers_for_every_platform_and_names_bad_input(mixtures):
    mixture = mixtures[0](6, jnp.float32)
    exported = jax.export.export(there_and_back, platforms=["cpu", "cuda", "tpu"])(
        mixture, jnp.ones((2, 6)), jnp.asarray(karras_sigmas(5), jnp.float32)
    )
    assert exported.platforms == ("cpu", "cuda", "tpu")
    with pytest.raises(InputError, match=r"sigmas = .* end in 0"):
        invert(mixture, jnp.ones(6), karras_sigmas(5)[::-1])
    with pytest.raises(InputError, match=r"^refine = -1: must be a whole number, 0 or more"):
        invert(mixture, jnp.ones(6), karras_sigmas(5), refine=-1)
    with pytest.raises(InputError, match=r"it returned shape"):
        invert(lambda x, sigma: x[None], jnp.ones(6), karras_sigmas(5))
