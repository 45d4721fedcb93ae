"""``plots.image_grid`` takes what a user has: lists of images without labels, bytes, arrays of NumPy and JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu import plots
from dgu.core.errors import InputError


def canvas(*arguments, **more):
    return np.asarray(plots.image_grid(*arguments, **more).axes[0].images[0].get_array())


def test_images_in_a_row_are_placed_as_those_in_places():
    images = np.asarray(jax.random.uniform(jax.random.key(0), (7, 5, 4, 3), minval=-1, maxval=1))
    full = np.concatenate([images, np.ones((2, 5, 4, 3), np.float32)]).reshape(3, 3, 5, 4, 3)
    expected = canvas(full, ["", "", ""], [""])
    for given in (images, jnp.asarray(images), images.astype(np.float64)):
        np.testing.assert_allclose(canvas(given), expected, atol=1e-7)
    two = np.concatenate([images, np.ones((1, 5, 4, 3), np.float32)]).reshape(4, 2, 5, 4, 3)
    np.testing.assert_array_equal(canvas(images, columns=2), canvas(two))
    np.testing.assert_array_equal(canvas(images[:3], columns=10), canvas(images[None, :3], [""], [""]))


def test_bytes_and_gray_images_without_channels_are_shown_as_they_are():
    levels = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
    floats = levels.astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(canvas(levels), canvas(floats), atol=1e-6)
    np.testing.assert_allclose(canvas(levels)[:6, :5], levels[0] / 255, atol=1e-6)
    np.testing.assert_allclose(canvas(levels[..., None], ["a", "b"], ["c"]), canvas(levels), atol=1e-6)
    np.testing.assert_allclose(canvas(floats, pixel_range=(-1, 0))[:6, :5], np.clip(floats[0] + 1, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "more", "words"),
    [
        ((np.zeros((4, 4)),), {}, r"images\.shape = \(4, 4\): must be \(n, h, w\)"),
        ((np.zeros((0, 4, 4)),), {}, "without an axis of length 0"),
        ((np.zeros((3, 4, 4, 2)),), {}, "channels = 2"),
        ((np.zeros((3, 4, 4)),), {"columns": 0}, "columns = 0: must be 1 or more"),
        ((np.zeros((2, 3, 4, 4, 1)),), {"columns": 2}, "columns = 2: must be left out"),
        ((np.zeros((3, 4, 4)), ["a"]), {}, "number of row_labels = 1: must be the number of rows, 2"),
        ((np.zeros((3, 4, 4), bool),), {}, "bool"),
    ],
)
def test_what_is_no_list_of_images_is_refused(arguments, more, words):
    with pytest.raises(InputError, match=words):
        plots.image_grid(*arguments, **more)
