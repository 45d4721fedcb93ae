"""The Skip-Net against a slow NumPy computation, evaluated and in training; its running averages; what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import NetworkDenoiser, SkipNetwork
from tests import parity

NETWORK = SkipNetwork(4, 2, (3, 5))
DENOISE = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))


def random_params(seed=0):
    rng, params = np.random.default_rng(seed), NETWORK.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.4, params)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0.5 + leaf**2 if path[-1].key == "var" else leaf, params
    )  # fmt: skip


def conv(kernel, x):
    """A 3 x 3 convolution of a batch (B, H, W, C), zeros outside, pixel by pixel."""
    b, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    out = np.zeros((b, h, w, kernel.shape[-1]))
    for i in range(h):
        for j in range(w):
            out[:, i, j] = np.einsum("bxyc,xyco->bo", padded[:, i : i + 3, j : j + 3], kernel)
    return out


def slow(params, x, training):
    """Outputs of a batch, and each layer's statistics under its name."""
    seen = {}

    def layer(side, name, x):
        p = params[side][name]
        h = conv(p["conv"]["kernel"], x)
        seen[name, side] = h.mean((0, 1, 2)), h.var((0, 1, 2))
        mean, var = seen[name, side] if training else (p["norm"]["mean"], p["norm"]["var"])
        h = (h - mean) / np.sqrt(var + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
        return np.where(h > 0, h, 0.2 * h)

    first = layer("enc", "level0_conv1", layer("enc", "level0_conv0", x))
    half = (first[:, ::2, ::2] + first[:, 1::2, ::2] + first[:, ::2, 1::2] + first[:, 1::2, 1::2]) / 4
    second = layer("enc", "level1_conv1", layer("enc", "level1_conv0", half))
    wide = second.repeat(2, axis=1).repeat(2, axis=2)
    last = layer("dec", "level0_conv1", layer("dec", "level0_conv0", np.concatenate([wide, first], axis=-1)))
    return conv(params["out"]["kernel"], last) + params["out"]["bias"], seen


def test_evaluated_and_in_training_it_equals_a_slow_computation(x64):
    params, x = random_params(), np.random.default_rng(1).normal(size=(3, 4, 4, 2))
    expected, _ = slow(params, x, training=False)
    denoiser = NetworkDenoiser(params, NETWORK)
    got = jnp.stack([DENOISE(denoiser, jnp.asarray(image), 1.0) for image in x])
    assert parity.relative(got, expected) < 1e-12 and np.abs(expected).max() > 0.1
    # In training: by the statistics of the batch, towards which the running averages move by a tenth.
    expected, seen = slow(params, x, training=True)
    out, moved = jax.jit(NETWORK.apply_batch)(params, jnp.asarray(x), 1.0)
    assert parity.relative(out, expected) < 1e-12
    for (name, side), (mean, var) in seen.items():
        before, after = params[side][name]["norm"], moved[side][name]["norm"]
        np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * mean, atol=1e-12)
        np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * var, atol=1e-12)
        np.testing.assert_array_equal(after["scale"], before["scale"])


def test_an_image_is_denoised_whatever_its_company():
    params = jax.tree.map(jnp.float32, random_params())
    x = jax.random.normal(jax.random.key(1), (3, 4, 4, 2))
    denoiser = NetworkDenoiser(params, NETWORK)
    together = jax.jit(jax.vmap(lambda d, x: d(x, 0.5), (None, 0)))(denoiser, x)
    alone = jnp.stack([DENOISE(denoiser, image, 0.5) for image in x])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(DENOISE(denoiser, x[0], 0.5), DENOISE(denoiser, x[0], 70.0))


def test_the_start_and_what_is_refused():
    params = NETWORK.init(jax.random.key(0))
    norm = params["enc"]["level1_conv0"]["norm"]
    assert float(norm["mean"].max()) == 0.0 and float(norm["var"].min()) == 1.0
    bound = (9 * 3) ** -0.5
    kernel = params["enc"]["level1_conv0"]["conv"]["kernel"]
    assert kernel.shape == (3, 3, 3, 5) and 0.8 * bound < float(jnp.abs(kernel).max()) <= bound
    for said, arguments in (
        ("img_resolution = 6: must be a positive multiple of 4 for 3 levels", (6, 1)),
        ("channels = (): must be one or more positive integers", (8, 1, ())),
        ("momentum = 1.0: must be in [0, 1)", (8, 1, (4,), 1.0)),
    ):
        with pytest.raises(InputError) as error:
            SkipNetwork(*arguments)
        assert said in str(error.value)
    with pytest.raises(InputError, match=r"x.shape = \(4, 4, 1\)"):
        NetworkDenoiser(params, NETWORK)(jnp.zeros((4, 4, 1)), 1.0)


def test_training_leaves_the_arrays_that_it_is_given_alone():
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), random_params())
    before = jax.tree.map(np.copy, params)
    NETWORK.apply_batch(params, jnp.ones((2, 4, 4, 2)), 1.0)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(before)))
