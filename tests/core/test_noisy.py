"""Addressed noise of given images, and the blocks they are worked through in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.core.noisy import in_blocks, noisy_batch, noisy_input, over_levels

KEY = jax.random.key(0)


def test_noise_is_standard_normal_and_another_at_every_address():
    image = jnp.full((50, 40), 3.0)
    drawn = {}
    for address in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)):
        index, level, draw = address
        drawn[address] = (np.asarray(noisy_input(KEY, image, index, 2.0, level, draw)) - 3.0) / 2.0
    noise = np.stack([one.ravel() for one in drawn.values()])
    # 2,000 numbers each: means within 5 and correlations within 5 standard errors of 0.
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=5 / 2000**0.5)
    np.testing.assert_allclose(np.corrcoef(noise), np.eye(len(noise)), atol=5 / 2000**0.5)
    np.testing.assert_allclose(noise.var(axis=1), 1, atol=5 * (2 / 2000) ** 0.5)
    again = (noisy_input(KEY, image, 1, 8.0, 1) - 3.0) / 8.0
    np.testing.assert_allclose(again, drawn[1, 1, 0], atol=1e-5)


def test_a_batch_has_the_noise_of_its_images_numbers():
    images = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    found = noisy_batch(KEY, images, 2.0, 5)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(found[number], noisy_input(KEY, jnp.asarray(image), number, 2.0, 5))


@pytest.mark.parametrize(("number", "size"), [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_blocks_hold_every_row_once_before_the_filling(number, size):
    rows = np.arange(number)[:, None] * np.ones((1, 2))
    blocks, numbers = in_blocks(rows, size)
    assert blocks.shape[:2] == numbers.shape and numbers.shape[1] <= size
    np.testing.assert_array_equal(numbers.ravel()[:number], np.arange(number))
    assert (numbers.ravel()[number:] == number - 1).all() and numbers.size - number < len(numbers)
    np.testing.assert_array_equal(blocks[..., 0], numbers)
    with pytest.raises(InputError, match="batch_size = 0"):
        in_blocks(rows, 0)


def test_over_levels_pairs_every_row_with_every_level():
    blocks, numbers = in_blocks(np.arange(5.0, dtype=np.float32) * 10, 2)
    found = over_levels(
        lambda row, number, sigma, level: jnp.stack([row, number.astype(jnp.float32), sigma, level.astype(jnp.float32)]),
        jnp.asarray(blocks), jnp.asarray(numbers), jnp.asarray([7.0, 8.0]),
    )  # fmt: skip
    flat = np.asarray(found).reshape(2, -1, 4)[:, :5]
    for level, sigma in enumerate((7.0, 8.0)):
        expected = np.stack([np.arange(5) * 10, np.arange(5), np.full(5, sigma), np.full(5, level)], axis=1)
        np.testing.assert_array_equal(flat[level], expected)
