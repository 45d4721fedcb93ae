"""The tutorial's U-Net against a slow NumPy computation by the definitions; counts, starts, constants, the loss it is
trained on.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu import training
from dgu.core.checkpoint import load_arrays
from dgu.core.errors import InputError
from dgu.models import EDMNetwork, TutorialUNetConfig, VESDEPreconditioning, load_checkpoint
from dgu.models.pretrained import save_network
from dgu.samplers import VESDE, as_score
from tests import parity

#: Three levels of 12, 5 and 2 pixels: even and odd sizes, with and without a row of zeros on the way up; two channels.
SMALL = EDMNetwork(TutorialUNetConfig(14, 2, 2, channels=(4, 8, 64), embedding=8), VESDEPreconditioning())
#: One level has no way down, and nothing to join on the way up.
FLAT = EDMNetwork(TutorialUNetConfig(5, 1, 1, channels=(4,), embedding=4), VESDEPreconditioning())
#: A way down, a way up and what joins them.
TWO = EDMNetwork(TutorialUNetConfig(7, 1, 1, channels=(4, 8), embedding=4), VESDEPreconditioning())
DENOISE = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))
RAW = jax.jit(FLAT.raw)


def silu(x):
    return x / (1 + np.exp(-x))


def norm(p, x, groups):
    """Group normalisation of (H, W, C)."""
    channels = x.shape[-1]
    out = np.zeros_like(x)
    size = channels // groups
    for g in range(groups):
        part = x[..., g * size : (g + 1) * size]
        out[..., g * size : (g + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    return out * p["scale"] + p["bias"]


def strided(x, w, stride):
    """``out[i, j] = sum x[stride i + a, stride j + b] w[a, b]``, wherever the window fits."""
    n = (x.shape[0] - 3) // stride + 1
    out = np.zeros((n, n, w.shape[-1]))
    for i in range(n):
        for j in range(n):
            out[i, j] = np.tensordot(x[stride * i : stride * i + 3, stride * j : stride * j + 3], w, 3)
    return out


def transposed(x, w, stride, padding):
    """Every pixel lays down a copy of the kernel, ``stride`` pixels from the next; ``padding`` rows of zeros at the
    end.
    """
    n = stride * (x.shape[0] - 1) + 3 + padding
    out = np.zeros((n, n, w.shape[-1]))
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[stride * i : stride * i + 3, stride * j : stride * j + 3] += np.einsum("c,abco->abo", x[i, j], w)
    return out


def forward(params, x, sigma, channels, base=25.0):
    """``x + sigma F(x; t(sigma))``, the denoiser, by the definitions of the tutorial's layers."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    t = math.log(1 + 2 * math.log(base) * sigma**2) / (2 * math.log(base))
    phase = 2 * np.pi * p["freqs"] * t
    e = silu(np.concatenate([np.sin(phase), np.cos(phase)]) @ p["embed"]["kernel"] + p["embed"]["bias"])

    def finish(q, h, groups):
        return silu(norm(q["norm"], h + e @ q["dense"]["kernel"] + q["dense"]["bias"], groups))

    h, kept = x, []
    for level, width in enumerate(channels):
        q = p["down"][f"level{level}"]
        h = finish(q, strided(h, q["kernel"], 2 if level else 1), min(32, width) if level else 4)
        kept.append(h)
    for level in range(len(channels) - 1, 0, -1):
        q = p["up"][f"level{level}"]
        joined = h if level == len(channels) - 1 else np.concatenate([h, kept[level]], -1)
        padding = kept[level - 1].shape[0] - (2 * joined.shape[0] + 1)
        h = finish(q, transposed(joined, q["kernel"], 2, padding), min(32, channels[level - 1]))
    joined = h if len(channels) == 1 else np.concatenate([h, kept[0]], -1)
    # The last kernel is stored as that of an ordinary convolution: turned round.
    out = transposed(joined, p["last"]["kernel"][::-1, ::-1], 1, 0) + p["last"]["bias"]
    return x + sigma * out


def random_params(network, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.4), network.abstract_params)


@pytest.mark.parametrize("network", [SMALL, FLAT], ids=["three levels", "one level"])
def test_equals_a_slow_computation(network, x64):
    params = random_params(network)
    x = np.random.default_rng(1).normal(size=network.shape)
    for sigma in (0.05, 3.0):
        expected = forward(params, x, sigma, network.unet.channels)
        got = DENOISE(network.denoiser(params), jnp.asarray(x), sigma)
        assert parity.relative(np.asarray(got), expected) < 1e-12
        assert np.abs(expected - x).max() > 0.1 * sigma


def test_sizes_and_parameters_are_the_tutorials():
    config = TutorialUNetConfig()
    assert config.sizes == (26, 12, 5, 2) and TutorialUNetConfig(14, channels=(32, 64, 128)).sizes == (12, 5, 2)
    # 256 x 256 + 256 of the embedding; kernels, dense layers and norms of seven levels; the last kernel and its bias.
    levels = [(1, 32), (32, 64), (64, 128), (128, 256), (256, 128), (256, 64), (128, 32)]
    count = 256 * 257 + sum(9 * inp * out + 257 * out + 2 * out for inp, out in levels) + 9 * 64 + 1
    network = EDMNetwork(config, VESDEPreconditioning())
    assert network.parameter_count == count == 1_115_297


def test_starts_are_pytorchs():
    network = EDMNetwork(TutorialUNetConfig(14, channels=(32, 64, 128)), VESDEPreconditioning())
    params = network.init(jax.random.key(0))
    assert 25 < float(params["freqs"].std()) < 35
    for name, kernel, fan_in in (
        ("down", params["down"]["level1"]["kernel"], 9 * 32),
        ("up", params["up"]["level2"]["kernel"], 9 * 64),
        ("dense", params["up"]["level1"]["dense"]["kernel"], 256),
    ):
        bound = fan_in**-0.5
        assert 0.99 * bound < float(jnp.abs(kernel).max()) <= bound, name
        assert abs(float(kernel.std()) * math.sqrt(3) / bound - 1) < 0.05, name


def test_the_preconditioning_is_the_process(x64):
    """Noise levels and times are VESDE's, and the score of the denoiser is the output over the standard deviation."""
    sde, own = VESDE(), VESDEPreconditioning()
    assert own.sigma_max == pytest.approx(float(sde.std(1.0)), rel=1e-12) == pytest.approx(9.845, abs=1e-3)
    assert own.sigma_min == pytest.approx(float(sde.std(1e-5)), rel=1e-9)
    sigma = jnp.asarray([0.01, 0.3, 9.0])
    np.testing.assert_allclose(own.coefficients(sigma).noise, sde.time(sigma), rtol=1e-12)
    params = random_params(FLAT)
    x, t = jnp.asarray(np.random.default_rng(2).normal(size=FLAT.shape)), jnp.float64(0.4)
    score = jax.jit(lambda params, x: as_score(FLAT.denoiser(params), sde)(x, t))(params, x)
    np.testing.assert_allclose(score, RAW(params, x, t) / sde.std(t), rtol=1e-9, atol=1e-12)


def test_the_loss_is_that_of_the_notebook(x64):
    """``(std score + z)^2`` at ``x + std z`` with uniform times, and its law of noise levels."""
    sde, params = VESDE(), random_params(FLAT)
    rng = np.random.default_rng(3)
    image, noise, u = jnp.asarray(rng.normal(size=FLAT.shape)), jnp.asarray(rng.normal(size=FLAT.shape)), 0.37
    t = 1e-5 + u * (1 - 1e-5)
    std = sde.std(jnp.float64(t))
    np.testing.assert_allclose(training.vesde_sigma(jnp.float64(u)), std, rtol=1e-12)
    score = RAW(params, image + std * noise, jnp.float64(t)) / std
    expected = jnp.square(std * score + noise)
    got = jax.jit(training.vesde_loss, static_argnums=0)(FLAT, params, image, jnp.float64(u), noise)
    np.testing.assert_allclose(got, expected, rtol=1e-8)
    # Float32 keeps the smallest levels: expm1 does, where a difference of powers would not.
    low = np.float32(training.vesde_sigma(np.float32(0.0)))
    assert abs(low / math.sqrt(math.expm1(2 * math.log(25) * 1e-5) / (2 * math.log(25))) - 1) < 1e-5


def test_the_training_loop_takes_it_and_leaves_the_frequencies_alone(tmp_path):
    config = training.TrainingConfig(
        duration_kimg=0.048, batch_size=8, learning_rate=2e-2, rampup_kimg=0.0, loss="vesde", ema_rampup_ratio=None,
        ema_halflife_kimg=0.0,
    )  # fmt: skip
    images = np.random.default_rng(0).normal(size=(8, 5, 5, 1)).astype(np.float32)
    state = training.initial_state(FLAT, config)
    before = np.asarray(state["params"]["freqs"])
    kernel = np.asarray(state["params"]["last"]["kernel"])
    *_, (state, _) = training.train_steps(FLAT, state, images, None, config)
    assert int(state["step"]) == 6 and int(state["nonfinite"]) == 0
    np.testing.assert_array_equal(state["params"]["freqs"], before)
    assert np.abs(np.asarray(state["params"]["last"]["kernel"]) - kernel).max() > 1e-3
    # A half-life of 0 is no average.
    np.testing.assert_array_equal(state["ema"]["last"]["kernel"], state["params"]["last"]["kernel"])
    save_network(tmp_path / "network.npz", FLAT, state["ema"], {})
    again = load_checkpoint(tmp_path)
    assert again.network == FLAT and "model.down.level0.weight" in load_arrays(tmp_path / "network.npz")[0]
    x = jnp.asarray(images[0])
    np.testing.assert_array_equal(DENOISE(again.denoiser, x, 0.5), DENOISE(FLAT.denoiser(state["ema"]), x, 0.5))


def test_recomputation_changes_no_gradient(x64):
    params, x = random_params(TWO), jnp.asarray(np.random.default_rng(4).normal(size=TWO.shape))
    kept, again = (
        jax.jit(jax.grad(lambda p, network=network: jnp.sum(network.apply(p, x, 0.5) ** 2)))(params)
        for network in (TWO, replace(TWO, remat=True))
    )
    assert parity.relative(again["down"]["level1"]["kernel"], np.asarray(kept["down"]["level1"]["kernel"])) < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_resolution": 13, "channels": (4, 8, 8, 8)}, "img_resolution = 13: must be at least 17 for 4 levels"),
        ({"channels": ()}, "channels"),
        ({"channels": (6, 8)}, "channels"),
        ({"channels": (4, 40)}, "channels"),
        ({"embedding": 5}, "embedding = 5: must be even"),
        ({"out_channels": 2}, "out_channels = 2: must be 1 here"),
        ({"frequency_scale": 0.0}, "frequency_scale"),
    ],
)
def test_bad_options_are_one_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        replace(FLAT.unet, **change)
    assert "\n" not in str(error.value)


def test_the_process_refuses_a_base_of_one():
    with pytest.raises(InputError, match=r"base = 1\.0: must be above 1"):
        VESDEPreconditioning(base=1.0)
