"""SongUNet in all its options against a slow NumPy computation and the reference's arrays; counts, starts,
constants.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dgu import training
from dgu.core.errors import InputError
from dgu.models import (
    NCSNPP,
    ADMConfig,
    EDMNetwork,
    IDDPMPreconditioning,
    SongUNetConfig,
    edm_from_arrays,
)
from dgu.models.convolution import Conv
from dgu.models.resampling import resampled_conv
from tests import parity
from tests.models import networks, slow_unet

SONG = networks.SMALL | {"model_type": "SongUNet"}
NCSN = {
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": [1, 3, 3, 1],
}
#: A network with every option away from its default.
SKIPS = SONG | NCSN | {"encoder_type": "skip", "decoder_type": "skip", "channel_mult_emb": 2}
TINY = EDMNetwork(
    SongUNetConfig(4, 1, 1, label_dim=2, model_channels=4, channel_mult=(1, 1), num_blocks=1, dropout=0.3, **NCSNPP)
)
RAW = jax.jit(lambda d, x, c, label, augment: d.network.raw(d.params, x, c, label, augment))
DENOISE = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))


@pytest.mark.parametrize(
    "kwargs",
    [
        SONG,
        pytest.param(SONG | NCSN, marks=pytest.mark.slow),  # Its parts are in the next two.
        SKIPS | {"num_blocks": 2},
        # Three levels: images add up over two doublings, and the residual path goes through two halvings. The filter
        # has no symmetry, so that turning it round is noticed.
        SONG
        | {
            "encoder_type": "residual",
            "decoder_type": "skip",
            "resample_filter": [1, 2, 5, 3],
            "channel_mult": [1, 2, 2],
        },
        pytest.param(
            SONG
            | {"encoder_type": "skip", "attn_resolutions": [8, 4], "num_blocks": 2, "label_dim": 0, "augment_dim": 0},
            marks=pytest.mark.slow,
        ),
        # Multi-head attention: 128 channels are two heads, 64 one.
        networks.SMALL | {"model_type": "DhariwalUNet", "model_channels": 64, "attn_resolutions": [8, 4]},
    ],
    ids=["ddpm++", "ncsn++", "skip-skip", "residual-skip", "skip-standard", "adm"],
)
def test_networks_equal_a_slow_computation(kwargs, x64):
    """The plain network also without labels, which is another program."""
    config = {"precond": "EDMPrecond", "kwargs": kwargs}
    arrays = networks.random_arrays(config)
    denoiser, full = edm_from_arrays(config, arrays), networks.full_kwargs(config)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 8, 8))
    label = np.eye(5)[2] if kwargs["label_dim"] else None
    augment = rng.normal(size=9) if kwargs["augment_dim"] else None
    for given, aug in ((label, augment), (None, None))[: 2 if kwargs is SONG else 1]:
        expected = slow_unet.unet(networks.inner(arrays), full, x, -0.6, given, aug)
        got = RAW(denoiser, jnp.asarray(parity.nhwc(x)), jnp.float64(-0.6), given, aug)
        assert parity.relative(parity.nchw(got), expected) < 1e-12
        assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    "taps", [(1.0, 1.0), (1.0, 3.0, 3.0, 1.0), (1.0, 2.0, 5.0, 3.0), (0.5, 1.0, 2.0, 3.0, 1.0, 1.0)]
)
@pytest.mark.parametrize("size", [1, 3])
def test_resampling_and_convolution_in_both_orders(x64, taps, size):
    rng = np.random.default_rng(0)
    layer = Conv(2, 3, (size, size), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    weights, bias, x = rng.normal(size=(3, 2, size, size)), rng.normal(size=3), rng.normal(size=(2, 6, 6))
    layer.kernel[...], layer.bias[...] = jnp.asarray(weights.transpose(2, 3, 1, 0)), jnp.asarray(bias)
    p = {"layer.weight": weights, "layer.bias": bias}
    half, pad = size // 2, (len(taps) - 1) // 2
    fused = {
        "down": slow_unet.down(slow_unet.conv(p, "layer", x, half + pad, bias=False), taps, 0) + bias[:, None, None],
        "up": slow_unet.conv(p, "layer", slow_unet.up(x, taps, max(pad - half, 0)), max(half - pad, 0)),
    }
    for how, together in fused.items():
        usual = slow_unet.conv(p, "layer", slow_unet.resample(x, how, taps))
        for expected, order in ((usual, False), (together, True)):
            got = jax.jit(lambda x, how=how, order=order: resampled_conv(layer, x, how, taps, fused=order))
            np.testing.assert_allclose(parity.nchw(got(jnp.asarray(parity.nhwc(x)))), expected, atol=1e-12)
    if size == 3 and pad:
        assert np.abs(fused["down"] - slow_unet.conv(p, "layer", slow_unet.down(x, taps))).max() > 1e-2


CIFAR = {"channel_mult": (2, 2, 2), "augment_dim": 9}


@pytest.mark.parametrize(
    ("unet", "count"),
    [
        (SongUNetConfig(32, 3, 3, **CIFAR), 55_733_891),
        (SongUNetConfig(32, 3, 3, label_dim=10, **CIFAR), 55_735_299),
        (SongUNetConfig(32, 3, 3, **CIFAR, **NCSNPP), 56_397_827),
        (SongUNetConfig(32, 3, 3, label_dim=10, **CIFAR, **NCSNPP), 56_400_643),
        (SongUNetConfig(64, 3, 3, augment_dim=9), 61_805_571),
        (SongUNetConfig(64, 3, 3, augment_dim=9, **NCSNPP), 62_761_091),
        (ADMConfig(64, 3, 3, label_dim=1000), 295_899_267),
        (ADMConfig(64, 3, 6, label_dim=1000), 295_904_454),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_published_parameter_counts(unet, count):
    six = unet.out_channels == 6
    assert (EDMNetwork(unet, IDDPMPreconditioning()) if six else EDMNetwork(unet)).parameter_count == count


def test_initialisation_follows_the_reference():
    params = TINY.init(jax.random.key(0))
    wide = replace(TINY, unet=replace(TINY.unet, model_channels=32)).init(jax.random.key(0))

    def near_uniform(values, bound):
        values = np.asarray(values)
        assert np.abs(values).max() <= bound
        assert abs(values.std() - bound / np.sqrt(3)) < 5 * bound / np.sqrt(3) / np.sqrt(values.size)

    block = wide["dec"]["2x2_in0"]
    near_uniform(block["conv0"]["kernel"], np.sqrt(6 / (9 * 64)))
    near_uniform(block["conv1"]["kernel"], 1e-5 * np.sqrt(6 / (9 * 64)))
    near_uniform(block["qkv"]["kernel"], np.sqrt(0.2 * 6 / (32 + 96)))
    near_uniform(block["proj"]["kernel"], 1e-5 * np.sqrt(6 / 64))
    near_uniform(block["affine"]["kernel"], np.sqrt(6 / (128 + 32)))
    near_uniform(wide["dec"]["4x4_aux_conv"]["kernel"], 1e-5 * np.sqrt(6 / (9 * 33)))
    near_uniform(wide["map_label"]["kernel"], np.sqrt(6 / (2 + 64)))
    freqs = np.asarray(wide["map_noise"]["freqs"])
    assert abs(freqs.std() - 16) < 5 * 16 / np.sqrt(2 * freqs.size)
    biases = [leaf for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0] if path[-1].key == "bias"]
    assert biases and not any(np.any(bias) for bias in biases)


def test_constants_are_neither_trained_nor_averaged():
    config = training.TrainingConfig(
        batch_size=2,
        duration_kimg=0.01,
        rampup_kimg=0.0,
        ema_halflife_kimg=0.007,
        ema_rampup_ratio=None,
        learning_rate=0.1,
    )
    network = replace(TINY, unet=replace(TINY.unet, dropout=0.0, channel_mult=(1,)))
    first = state = training.initial_state(network, config)
    images = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))

    @jax.jit
    def step(state, images):
        def objective(params):
            loss = jax.vmap(lambda y: training.edm_loss(network, params, y, 0.3, 0.5 * y, 1))
            return loss(images).sum()

        return training.update(state, jax.grad(objective)(state["params"]), config)

    for _ in range(3):
        state = step(state, images)
    for group in ("params", "ema"):
        np.testing.assert_array_equal(state[group]["map_noise"]["freqs"], first[group]["map_noise"]["freqs"])
        moved = np.abs(state[group]["map_layer0"]["kernel"] - first[group]["map_layer0"]["kernel"])
        assert moved.min() > 1e-4
    assert not np.any(state["optimizer"].nu["map_noise"]["freqs"])


@pytest.fixture(scope="module")
def moved():
    """Parameters of TINY, away from the zeros that they start with."""
    return jax.tree.map(lambda p: p + np.float32(0.02), jax.device_get(TINY.init(jax.random.key(0))))


def test_training_mode_drops_and_evaluation_does_not(moved):
    """Evaluation is, operation by operation, that of a network without dropout."""
    params, x = moved, jax.random.normal(jax.random.key(1), TINY.shape)
    apply = jax.jit(lambda params, x, key: TINY.apply(params, x, 1.0, key=key))
    one, other = apply(params, x, jax.random.key(2)), apply(params, x, jax.random.key(3))
    assert np.abs(one - other).max() > 1e-6
    np.testing.assert_array_equal(apply(params, x, jax.random.key(2)), one)
    plain = replace(TINY, unet=replace(TINY.unet, dropout=0.0))
    with_it, without = (
        str(jax.make_jaxpr(lambda d, x: d(x, 1.0))(network.denoiser(params).given(None), x))
        for network in (TINY, plain)
    )
    assert with_it == without and "random" not in with_it


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lowers_for_accelerators(dtype):
    unet = replace(TINY.unet, encoder_type="skip", decoder_type="skip")
    network = EDMNetwork(unet, compute_dtype=dtype)
    denoiser = network.denoiser(network.abstract_params)
    image, sigma = jax.ShapeDtypeStruct(TINY.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    program = jax.jit(lambda denoiser, x, sigma: denoiser.given(1)(x, sigma))
    for kind in (TINY.denoiser(TINY.abstract_params), denoiser):
        exported = jax.export.export(program, platforms=["cuda", "tpu"])(kind, image, sigma)
        assert exported.platforms == ("cuda", "tpu") and exported.out_avals[0].shape == TINY.shape


@pytest.mark.parametrize("channel_mult", [[1], pytest.param([1, 2], marks=pytest.mark.slow)])
def test_bfloat16_stays_near_float32(channel_mult):
    small = {"img_resolution": 4, "attn_resolutions": [], "channel_mult": channel_mult}
    config = {"precond": "EDMPrecond", "kwargs": SKIPS | small}
    arrays = networks.random_arrays(config)
    denoiser = edm_from_arrays(config, arrays)
    half = replace(denoiser, network=replace(denoiser.network, compute_dtype="bfloat16"))
    x = jax.random.normal(jax.random.key(0), (4, 4, 3))
    whole, got = DENOISE(denoiser, x, 1.0), DENOISE(half, x, 1.0)
    assert got.dtype == jnp.float32 and 1e-6 < parity.relative(got, np.asarray(whole)) < 5e-2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding_type": "none"}, "embedding_type = 'none': must be one of positional, fourier"),
        ({"encoder_type": "up"}, "encoder_type"),
        ({"decoder_type": "residual"}, "decoder_type"),
        ({"resample_filter": (1.0, 2.0, 1.0)}, "resample_filter"),
        ({"channel_mult_noise": 0}, "channel_mult_noise"),
        ({"img_resolution": 5}, "img_resolution = 5: must be a positive multiple of 2"),
        ({"model_channels": 33}, "model_channels"),
        ({"num_blocks": 10**9}, "num_blocks"),
        ({"out_channels": 2}, "out_channels"),
    ],
)
def test_bad_options_are_one_line(change, message):
    with pytest.raises(InputError, match=message) as error:
        EDMNetwork(replace(TINY.unet, **change))
    assert "\n" not in str(error.value)
