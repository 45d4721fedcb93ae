"""Random convolutional features equal a slow NumPy computation; arrays and callables that cannot be used are
refused.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis.quality.representations import checked_features, random_convolutions, represent
from dgu.core.errors import InputError
from dgu.training.classifiers.convnet import train_convnet

KEY = jax.random.key(0)
SHAPE = (9, 8, 2)
IMAGES = np.random.default_rng(0).normal(size=(2, 5, *SHAPE)).astype(np.float32)


def slow(kernels, grid, images):
    def pool(x, rows, columns):
        tall, wide = x.shape[1] // rows, x.shape[2] // columns
        cells = [
            [x[:, i * tall : (i + 1) * tall, j * wide : (j + 1) * wide].mean(axis=(1, 2)) for j in range(columns)]
            for i in range(rows)
        ]
        return np.moveaxis(np.array(cells), 2, 0)

    x = images.astype(np.float64)
    for number, kernel in enumerate(np.asarray(k, np.float64) for k in kernels):
        x = pool(x, x.shape[1] // 2, x.shape[2] // 2) if number else x
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = sum(
            padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j] for i in range(3) for j in range(3)
        ).clip(0)
    return pool(x, grid, grid).reshape(len(images), -1)


def test_random_convolutions_equal_numpy():
    features = random_convolutions(KEY, SHAPE, channels=(4, 6), grid=2)
    found = represent(IMAGES, features)
    assert found.shape == (2, 5, 24) and found.dtype == np.float32
    expected = slow(features.kernels, 2, IMAGES.reshape(-1, *SHAPE))
    np.testing.assert_allclose(found.reshape(10, -1), expected, rtol=1e-4, atol=1e-5)


def test_random_convolutions_keep_second_moments():
    """He's variance: with white images of variance 1 the mean square of a layer before pooling is 1, within 5 %."""
    white = jax.random.normal(KEY, (40, 16, 16, 3))
    kernels = random_convolutions(KEY, (16, 16, 3), channels=(256,), grid=16)
    inner = kernels(white).reshape(40, 16, 16, 256)[:, 1:-1, 1:-1]
    assert float(jnp.mean(inner**2)) == pytest.approx(1, abs=0.05)


def test_keys_and_sizes():
    one, again, other = (random_convolutions(jax.random.key(seed), SHAPE) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one.kernels, again.kernels))
    assert not any(np.array_equal(a, b) for a, b in zip(one.kernels, other.kernels))
    assert represent(IMAGES, one).shape == (2, 5, 128)
    assert jax.eval_shape(one, jax.ShapeDtypeStruct((3, 64, 64, 2), jnp.float32)).shape == (3, 128)


def test_penultimate_layer_is_a_representation():
    labels = np.repeat([0, 1], 5)
    net = train_convnet(IMAGES.reshape(-1, *SHAPE), labels, KEY, epochs=1, batch_size=5, width=2)
    found = represent(IMAGES, net.features)
    np.testing.assert_allclose(found[1, 3], np.asarray(net.features(IMAGES[1, 3:4]))[0], rtol=1e-5)
    assert found.shape == (2, 5, 16)


def test_given_arrays():
    values = np.random.default_rng(1).normal(size=(6, 2, 2))
    found = checked_features(values, 6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values.reshape(6, 4), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: checked_features(np.zeros((5, 2)), 6, "features = 'a.npy'"),
         r"features = 'a.npy': shape = \(5, 2\): must be \(6, d\), a row an image"),
        (lambda: checked_features(np.where(np.arange(6)[:, None] == 4, np.nan, 1.0) * np.arange(2.0), 6),
         r"features: row = \[4\]: must be finite"),
        (lambda: checked_features(np.ones((6, 2)), 6), "features = 'constant'"),
        (lambda: checked_features(np.ones(6), 6), r"features: shape = \(6,\)"),
        (lambda: represent(IMAGES, lambda x: jnp.full((x.shape[0], 2), jnp.nan)), "features: features = 'non-finite'"),
        (lambda: represent(IMAGES, lambda x: x[:1].reshape(1, -1)), "features: features = .* rows"),
        (lambda: random_convolutions(KEY, (3, 8, 1)), r"shape = \(3, 8, 1\): must be at least 4 pixels a side"),
        (lambda: random_convolutions(KEY, SHAPE, channels=()), r"channels = \(\)"),
        (lambda: random_convolutions(KEY, SHAPE, grid=0), "grid = 0"),
    ],
)  # fmt: skip
def test_bad_input(call, text):
    with pytest.raises(InputError, match=text):
        call()
