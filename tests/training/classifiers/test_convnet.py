"""The classifier learns a planted task, depends on its arguments alone, and equals a NumPy forward pass."""

import jax
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.training.classifiers.convnet import train_convnet

KEY = jax.random.key(2)


def stripes(seed, n, size=8):
    """Class 0: horizontal stripes, 1: vertical, 2: a checkerboard; random sign, noise of 0.8. All have mean zero."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    patterns = np.stack([(-1.0) ** (rows // 2), (-1.0) ** (columns // 2), (-1.0) ** (rows // 2 + columns // 2)])
    sign = rng.choice([-1.0, 1.0], (n, 1, 1))
    images = sign * patterns[labels] * 0.6 + 0.8 * rng.normal(size=(n, size, size))
    return images[..., None].astype(np.float32), labels


@pytest.fixture(scope="module")
def net():
    return train_convnet(*stripes(0, 1500), KEY, epochs=6, batch_size=50, width=4, learning_rate=1e-2)


def test_learns_a_task_that_no_linear_classifier_can(net):
    """The sign is random, so every class has mean zero: linear classifiers stay at one third."""
    images, labels = stripes(1, 1001)
    assert net.accuracy(images, labels) > 0.95
    rows, train_labels = stripes(0, 1500)
    weights = np.linalg.lstsq(rows.reshape(1500, -1), np.eye(3)[train_labels], rcond=None)[0]
    assert np.mean((images.reshape(1001, -1) @ weights).argmax(axis=1) == labels) < 0.42


def test_same_key_same_network_bit_for_bit(net):
    arguments = {"epochs": 1, "batch_size": 50, "width": 4}
    first, again = (train_convnet(*stripes(0, 1500), KEY, **arguments) for _ in range(2))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first.params, again.params)))
    # At next to no learning rate: the order does not matter, the initial parameters do.
    arguments |= {"learning_rate": 1e-12}
    one, other = (train_convnet(*stripes(0, 1500), jax.random.key(seed), **arguments) for seed in (2, 3))
    assert np.abs(one.params["readout"]["kernel"] - other.params["readout"]["kernel"]).max() > 0.1


def slow_forward(params, images):
    """Convolution by loops over shifts, means over 2x2 blocks, in float64."""

    def convolve(x, kernel, bias):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        out = np.zeros((*x.shape[:3], kernel.shape[3])) + bias
        for i in range(3):
            for j in range(3):
                out += padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
        return np.maximum(out, 0)

    def pool(x):
        n, h, w, c = x.shape
        return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))

    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = pool(convolve(images.astype(np.float64), p["first"]["kernel"], p["first"]["bias"]))
    x = pool(convolve(x, p["second"]["kernel"], p["second"]["bias"]))
    features = np.maximum(x.reshape(len(x), -1) @ p["dense"]["kernel"] + p["dense"]["bias"], 0)
    return features, features @ p["readout"]["kernel"] + p["readout"]["bias"]


def test_forward_pass_equals_numpy(net):
    images, _ = stripes(4, 7)
    features, logits = slow_forward(net.params, images)
    np.testing.assert_allclose(net.features(images), features, atol=1e-4 * np.abs(features).max())
    np.testing.assert_allclose(net.logits(images), logits, atol=1e-4 * np.abs(logits).max())
    np.testing.assert_array_equal(net.predict(images, block_size=3), logits.argmax(axis=1))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": np.array([0, 1])}, "images, labels = "),
        ({"labels": np.array([0, 1, -1])}, "labels = "),
        ({"classes": 2}, "labels = "),
        ({"batch_size": 4}, "batch_size = 4"),
        ({"epochs": 0}, "epochs"),
        ({"images": np.zeros((3, 2, 2, 1), np.float32)}, "image size = "),
    ],
)
def test_bad_input(change, text):
    arguments = {"images": np.zeros((3, 8, 8, 1), np.float32), "labels": np.array([0, 1, 2]), "batch_size": 2, **change}
    with pytest.raises(InputError, match=text):
        train_convnet(arguments.pop("images"), arguments.pop("labels"), KEY, **arguments)


def test_images_of_another_shape_are_refused(net):
    with pytest.raises(InputError, match=r"images.shape = "):
        net.logits(np.zeros((2, 9, 8, 1), np.float32))
