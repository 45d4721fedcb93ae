"""Denoisers of single levels, level by level: triplets and outputs against those of each level's own denoiser."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis import level_outputs, level_paths, level_triplets, state_triplets
from dgu.core.errors import InputError
from dgu.core.keys import stream
from dgu.core.noisy import noisy_input
from dgu.models import GaussianDenoiser, LevelDenoisers, LinearDenoiser

KEY = jax.random.key(4)
SIGMAS = np.array([3.0, 0.5])
IMAGES = np.random.default_rng(0).standard_normal((3, 2, 2, 1))


@pytest.fixture
def two():
    """Another linear map at each level, and the denoiser made of them."""
    rng = np.random.default_rng(1)
    maps = [LinearDenoiser(np.ones(1), rng.standard_normal((1, 4, 4)), np.zeros((1, 2, 2, 1))) for _ in SIGMAS]
    return maps, LevelDenoisers(SIGMAS, jax.tree.map(lambda *leaves: jnp.stack(leaves), *maps))


def noisy(key):
    return np.array(
        [
            [noisy_input(key, jnp.asarray(x), i, sigma, level) for i, x in enumerate(IMAGES)]
            for level, sigma in enumerate(SIGMAS)
        ]
    )


def test_triplets_are_those_of_each_levels_map(x64, two):
    maps, model = two
    done = []
    found = level_triplets(model, IMAGES, SIGMAS, 2, KEY, tolerance=1e-9, progress=lambda *at: done.append(at))
    assert done == [(1, 2), (2, 2)] and found.left.shape == (2, 3, 2, 2, 2, 1)
    for level, one in enumerate(maps):
        left, values, _ = np.linalg.svd(np.asarray(one.weights)[0])
        for point in range(3):
            np.testing.assert_allclose(found.values[level, point], values[:2], rtol=1e-6)
            overlap = np.abs(found.left[level, point].reshape(2, 4) @ left[:, :2])
            np.testing.assert_allclose(overlap, np.eye(2), atol=1e-4)


def test_the_jacobian_is_taken_at_the_noisy_images(x64):
    # Of a denoiser that is not linear the triplets depend on where they are taken.
    model = jax.tree_util.Partial(lambda x, sigma: x**2 / sigma)
    found = level_triplets(model, IMAGES, SIGMAS, 1, KEY, tolerance=1e-9)
    points = noisy(stream(KEY, "points"))
    largest = 2 * np.abs(points).reshape(2, 3, 4).max(axis=2) / SIGMAS[:, None]
    np.testing.assert_allclose(found.values[:, :, 0], largest, rtol=1e-6)


def test_outputs_are_those_of_each_denoiser_on_the_same_noisy_images(x64, two):
    maps, model = two
    gaussian = GaussianDenoiser.fit(np.random.default_rng(2).standard_normal((9, 2, 2, 1)))
    inputs, outputs = level_outputs({"maps": model, "Gaussian": gaussian}, IMAGES, SIGMAS, KEY)
    np.testing.assert_allclose(inputs, noisy(KEY), rtol=1e-12)
    assert list(outputs) == ["maps", "Gaussian"]
    for level, sigma in enumerate(SIGMAS):
        for x, mapped, filtered in zip(inputs[level], outputs["maps"][level], outputs["Gaussian"][level]):
            np.testing.assert_allclose(mapped.ravel(), np.asarray(maps[level].weights)[0] @ x.ravel(), rtol=1e-9)
            np.testing.assert_allclose(filtered, gaussian(jnp.asarray(x), sigma), rtol=1e-9)


def test_paths_are_eulers_steps_along_the_levels_each_by_its_own_denoiser(x64, two):
    maps, model = two
    starts = SIGMAS[0] * IMAGES
    gaussian = GaussianDenoiser.fit(np.random.default_rng(2).standard_normal((9, 2, 2, 1)))
    found = level_paths({"maps": model, "Gaussian": gaussian}, starts, SIGMAS)
    assert list(found) == ["maps", "Gaussian"]
    states, outputs = (part.reshape(2, 3, 4) for part in found["maps"])
    first = starts.reshape(3, 4)
    denoised = first @ np.asarray(maps[0].weights)[0].T
    second = first + (SIGMAS[1] - SIGMAS[0]) * (first - denoised) / SIGMAS[0]
    np.testing.assert_allclose(states, [first, second], rtol=1e-9)
    np.testing.assert_allclose(outputs, [denoised, second @ np.asarray(maps[1].weights)[0].T], rtol=1e-9)
    # Of one denoiser of all levels: Euler's sampler, whose last output is the sample.
    grid = np.append(SIGMAS, 0.0)
    for start, sample in zip(starts, found["Gaussian"][1][-1]):
        x = start
        for now, then in pairwise(grid):
            x = x + (then - now) * (x - np.asarray(gaussian(jnp.asarray(x), now))) / now
        np.testing.assert_allclose(sample, x, rtol=1e-9)


def test_triplets_at_given_states_are_taken_there(x64):
    model = jax.tree_util.Partial(lambda x, sigma: x**2 / sigma)
    states = np.stack([IMAGES, 3 * IMAGES])
    found = state_triplets(model, states, SIGMAS, 1, KEY, tolerance=1e-9)
    largest = 2 * np.abs(states).reshape(2, 3, 4).max(axis=2) / SIGMAS[:, None]
    np.testing.assert_allclose(found.values[:, :, 0], largest, rtol=1e-6)


def test_bad_input_is_named(two):
    with pytest.raises(InputError, match="sigmas"):
        level_triplets(two[1], IMAGES, np.array([-1.0]), 1, KEY)
    with pytest.raises(InputError, match=r"states\.shape = \(3, 2, 2, 1\): must be \(2, n"):
        state_triplets(two[1], IMAGES, SIGMAS, 1, KEY)
    with pytest.raises(InputError, match="sigmas"):
        level_paths({"maps": two[1]}, IMAGES, SIGMAS[::-1])
    broken = jax.tree_util.Partial(lambda x, sigma: jnp.where(sigma < 1, jnp.nan, x))
    with pytest.raises(InputError, match=r"denoiser 'broken': non-finite output at sigma = 0.5, example 0"):
        level_outputs({"broken": broken}, IMAGES, SIGMAS, KEY)
    with pytest.raises(InputError, match=r"denoiser 'broken': non-finite output at sigma = 0.5, example 0"):
        level_paths({"broken": broken}, IMAGES, SIGMAS)
