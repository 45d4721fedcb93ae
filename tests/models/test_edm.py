"""The ADM network and its preconditioning against the reference's arrays."""

from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu import samplers
from dgu.core.errors import InputError
from dgu.models import ADMConfig, DiTConfig, EDMNetwork, SongUNetConfig, edm_from_arrays, load_checkpoint
from dgu.models.preconditioning import edm_coefficients
from dgu.models.weights import network_config, network_from_config, params_from_arrays, params_to_arrays
from tests import parity

ADM = parity.load("adm_edm.npz")
TINY = EDMNetwork(ADMConfig(8, 1, 1, label_dim=3, model_channels=8, channel_mult=(1,), num_blocks=1, dropout=0.3))
#: Evaluation as one program: run op by op, each operation of a network compiles on its own.
DENOISE = jax.jit(lambda denoiser, x, sigma: denoiser(x, sigma))


@pytest.fixture(scope="module")
def denoiser():
    return edm_from_arrays(parity.config(ADM), parity.params(ADM))


@pytest.fixture(scope="module")
def fresh():
    """Parameters of TINY as they start."""
    return TINY.init(jax.random.key(0))


@pytest.fixture(scope="module")
def tiny(fresh):
    """Parameters of TINY, moved: a fresh network ends in zeros, and its last layer has nothing to say."""
    return jax.tree.map(lambda p: p + 0.02, fresh)


@jax.jit
def evaluate(denoiser, x, sigma, labels):
    return jax.vmap(lambda x, s, label: denoiser.given(label)(x, s))(x, sigma, labels)


def inputs(dtype):
    return [jnp.asarray(a, dtype) for a in (parity.nhwc(ADM["x"]), ADM["sigma"], ADM["class_labels"])]


@jax.jit
def both(denoiser, x, sigma, labels):
    """The denoiser and the bare network behind it, for a batch."""

    def one(x, sigma, label):
        c = edm_coefficients(sigma)
        return denoiser.given(label)(x, sigma), denoiser.network.raw(denoiser.params, c.inp * x, c.noise, label)

    return jax.vmap(one)(x, sigma, labels)


def test_float64_matches_the_reference(denoiser, x64):
    x, sigma, labels = inputs(jnp.float64)
    denoised, raw = both(denoiser, x, sigma, labels)
    assert parity.relative(parity.nchw(denoised), ADM["D64"]) < 1e-9
    assert parity.relative(parity.nchw(raw), ADM["F64"]) < 1e-9
    np.testing.assert_allclose(edm_coefficients(sigma).noise, ADM["c_noise"], rtol=1e-12)


def test_float32_matches_the_reference(denoiser):
    got = evaluate(denoiser, *inputs(jnp.float32))
    assert got.dtype == jnp.float32
    assert parity.relative(parity.nchw(got), ADM["D64"]) < 1e-4


def test_no_label_is_the_zero_row(denoiser, x64):
    x, sigma, labels = inputs(jnp.float64)
    denoised, _ = both(denoiser, x, sigma, jnp.zeros_like(labels))
    assert parity.relative(parity.nchw(denoised), ADM["D64_nolabel"]) < 1e-9


def test_given_no_label_is_given_the_zero_row(tiny):
    without, x = TINY.denoiser(tiny).given(None), jax.random.normal(jax.random.key(1), (8, 8, 1))
    np.testing.assert_allclose(DENOISE(without, x, 0.7), DENOISE(without.given(np.zeros(3)), x, 0.7), atol=1e-6)


# Without churn trajectories are replayed by default in test_ablation.py, whose sampler is Heun's.
@pytest.mark.parametrize("tag", [pytest.param("heun8", marks=pytest.mark.slow), "churn18"])
def test_trajectories_replay(denoiser, x64, tag):
    sigmas = samplers.karras_sigmas(int(tag.removeprefix("heun").removeprefix("churn")))
    churned = tag == "churn18"
    churn = samplers.Churn(40, 0.05, 50, 1.003) if churned else samplers.Churn()
    labels = jnp.asarray(ADM["sampler:class_labels"], jnp.float64)
    x = jnp.asarray(parity.nhwc(ADM[f"{tag}:latents"]), jnp.float64) * sigmas[0]
    eps = jnp.asarray(np.swapaxes(parity.nhwc(ADM[f"{tag}:noise"]), 0, 1), jnp.float64) if churned else None

    @jax.jit
    def run(denoiser, x, labels, eps):
        def one(x, label, eps):
            return samplers.heun(denoiser.given(label), x, sigmas, churn=churn, eps=eps, observe=lambda s: s.x_next)

        return jax.vmap(one)(x, labels, eps)

    final, states = run(denoiser, x, labels, eps)
    expected = ADM[f"{tag}:x64"]
    n = len(sigmas) - 1
    for index, at in ((1, 1), (2, (n + 1) // 2), (3, n)):
        assert parity.relative(parity.nchw(states[:, at - 1]), expected[index]) < 1e-8
    assert parity.relative(parity.nchw(final), expected[3]) < 1e-8


def test_integer_labels_equal_one_hot_rows_and_share_a_trace(denoiser):
    x, sigma, _ = inputs(jnp.float32)
    traces = chex.assert_max_traces(n=1)

    @jax.jit
    @traces
    def run(denoiser, x, sigma):
        return denoiser(x, sigma)

    by_int = run(denoiser.given(3), x[0], sigma[0])
    np.testing.assert_array_equal(run(denoiser.given(np.int32(3)), x[0], sigma[0]), by_int)
    np.testing.assert_array_equal(run(denoiser.given(jnp.asarray(3)), x[0], sigma[0]), by_int)
    one_hot = evaluate(denoiser, x, sigma, np.tile(np.eye(10, dtype=np.float32)[3], (len(x), 1)))[0]
    np.testing.assert_allclose(one_hot, by_int, atol=1e-5)


def test_ensemble_of_networks_by_vmap(tiny):
    pair = [TINY.denoiser(tree).given(None) for tree in (tiny, jax.tree.map(lambda p: 0.9 * p, tiny))]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *pair)
    x = jax.random.normal(jax.random.key(2), (8, 8, 1))
    together = jax.jit(jax.vmap(lambda d, x: d(x, 0.7), in_axes=(0, None)))(stacked, x)
    alone = np.stack([DENOISE(d, x, 0.7) for d in pair])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_initialisation_follows_the_reference(fresh):
    network = EDMNetwork(
        ADMConfig(8, 1, 1, label_dim=40, augment_dim=9, model_channels=64, channel_mult=(1,), num_blocks=1)
    )
    params = network.init(jax.random.key(0))
    block = params["enc"]["8x8_block0"]
    for name, fan_in in (("conv0", 64 * 9), ("affine", 256)):
        for leaf in ("kernel", "bias"):
            values = np.asarray(block[name][leaf])
            bound = fan_in**-0.5
            assert np.abs(values).max() <= bound
            assert np.abs(values.std() - bound / np.sqrt(3)) < 5 * bound / np.sqrt(3) / np.sqrt(values.size)
    label = np.asarray(params["map_label"]["kernel"])
    assert abs(label.std() - 1) < 5 / np.sqrt(2 * label.size)
    for zero in (block["conv1"], params["out_conv"], params["map_augment"], params["dec"]["8x8_in0"]["proj"]):
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(zero))
    # The raw output is then zero, so the denoiser is c_skip x.
    x = jax.random.normal(jax.random.key(1), (8, 8, 1))
    expected = edm_coefficients(jnp.float32(2.0)).skip * x
    np.testing.assert_allclose(DENOISE(TINY.denoiser(fresh).given(1), x, 2.0), expected, rtol=1e-6)


def test_published_parameter_count():
    network = EDMNetwork(ADMConfig(64, 3, 3, label_dim=1000))
    assert sum(leaf.size for leaf in jax.tree.leaves(network.abstract_params)) == 295_899_267


@pytest.mark.parametrize("label", [None, 1])
def test_lowers_for_accelerators(label):
    denoiser = TINY.denoiser(TINY.abstract_params)
    image, sigma = jax.ShapeDtypeStruct(TINY.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    program = jax.jit(lambda denoiser, x, sigma: denoiser.given(label)(x, sigma))
    exported = jax.export.export(program, platforms=["cuda", "tpu"])(denoiser, image, sigma)
    assert exported.platforms == ("cuda", "tpu") and exported.out_avals[0].shape == TINY.shape


def test_training_mode_drops_and_evaluation_does_not(tiny):
    x = jax.random.normal(jax.random.key(1), (8, 8, 1))
    apply = jax.jit(lambda params, x, key: TINY.apply(params, x, 1.0, key=key))
    one, other = apply(tiny, x, jax.random.key(2)), apply(tiny, x, jax.random.key(3))
    assert np.abs(one - other).max() > 1e-6
    np.testing.assert_array_equal(apply(tiny, x, jax.random.key(2)), one)
    # No key, no dropout: operation by operation, the evaluation of a network without any.
    plain = replace(TINY, unet=replace(TINY.unet, dropout=0.0))
    with_it, without = (
        str(jax.make_jaxpr(lambda d, x: d(x, 1.0))(network.denoiser(tiny).given(None), x)) for network in (TINY, plain)
    )
    assert with_it == without and "random" not in with_it
    assert np.abs(one - DENOISE(TINY.denoiser(tiny).given(None), x, 1.0)).max() > 1e-6


def test_label_dropout_drops_whole_rows(tiny):
    network = replace(TINY, unet=replace(TINY.unet, dropout=0.0, label_dropout=0.5))
    x = jax.random.normal(jax.random.key(1), (8, 8, 1))
    keys = jax.random.split(jax.random.key(2), 64)
    apply = jax.jit(jax.vmap(lambda params, x, key: network.apply(params, x, 1.0, 1, key=key), in_axes=(None, None, 0)))
    out = np.asarray(apply(tiny, x, keys))
    denoiser = TINY.denoiser(tiny)  # Evaluation drops nothing: the same program.
    kept, dropped = (
        np.abs(out - np.asarray(DENOISE(d, x, 1.0))).max((1, 2, 3)) < 1e-5
        for d in (denoiser.given(1), denoiser.given(None))
    )
    assert (kept ^ dropped).all()
    assert abs(kept.sum() - 32) < 4 * 4  # four standard errors of 64 fair coins


@pytest.mark.parametrize(
    "unet",
    [
        TINY.unet,
        SongUNetConfig(4, 1, 1, label_dim=2, model_channels=4, channel_mult=(1,), num_blocks=1, attn_resolutions=()),
        DiTConfig(4, 1, 1, label_dim=3, width=8, depth=1, heads=2),
    ],
    ids=["adm", "songunet", "dit"],
)
def test_a_network_that_has_only_seen_classes_refuses_to_be_called_without(unet):
    """The zero vector was never trained: at any use, and when it is traced, before anything is compiled."""
    network = EDMNetwork(unet)
    denoiser = network.denoiser(network.abstract_params)
    x, sigma = jax.ShapeDtypeStruct(network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    call = partial(jax.eval_shape, lambda denoiser, x, sigma: denoiser(x, sigma))
    with pytest.raises(InputError, match=r"^label: is missing; .* give labels= or take denoiser.given\(label\)"):
        call(denoiser, x, sigma)
    for allowed in (denoiser.given(1), denoiser.given(None)):
        assert call(allowed, x, sigma).shape == network.shape
    zeros = network.denoiser(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), network.abstract_params))
    with pytest.raises(InputError, match=r"^label: is missing"):
        samplers.sample(zeros, jax.random.key(0), [0], samplers.karras_sigmas(2), shape=network.shape)
    dropped = EDMNetwork(replace(unet, label_dropout=0.1))
    assert call(dropped.denoiser(dropped.abstract_params), x, sigma).shape == network.shape
    # As the reference does where class_labels is None: what its recordings are compared with.
    assert edm_from_arrays(parity.config(ADM), parity.params(ADM)).zero_class


def test_the_bundled_network_needs_a_class():
    denoiser = load_checkpoint("fashion-mnist-14").denoiser
    with pytest.raises(InputError, match=r"^label: is missing; this network has 10 classes") as error:
        samplers.sample(denoiser, jax.random.key(0), [0], samplers.karras_sigmas(2), shape=(14, 14, 1))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"^label: is missing"):
        samplers.log_likelihood(denoiser, jnp.zeros((14, 14, 1)))


def test_bfloat16_stays_near_float32(denoiser):
    x, sigma, labels = inputs(jnp.float32)
    half = replace(denoiser, network=replace(denoiser.network, compute_dtype="bfloat16"))
    got = evaluate(half, x, sigma, labels)
    assert got.dtype == jnp.float32
    difference = parity.relative(parity.nchw(got), ADM["D64"])
    assert 1e-6 < difference < 3e-2
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(half.params))


def test_arrays_round_trip(denoiser):
    arrays = params_to_arrays(denoiser.params)
    expected = {k: v for k, v in parity.params(ADM).items() if not k.endswith("resample_filter")}
    assert arrays.keys() == expected.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], expected[name])
    chex.assert_trees_all_equal(params_from_arrays(denoiser.network, arrays), denoiser.params)
    assert network_from_config(network_config(denoiser.network)) == denoiser.network


@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(4)))
def test_examples_of_a_batch_do_not_touch(denoiser, order):
    x, sigma, labels = inputs(jnp.float32)
    order = np.asarray(order)
    np.testing.assert_array_equal(
        evaluate(denoiser, x[order], sigma[order], labels[order]), evaluate(denoiser, x, sigma, labels)[order]
    )


def test_bad_weights_are_refused(denoiser):
    config, arrays = parity.config(ADM), parity.params(ADM)
    name = "model.out_conv.weight"
    cases = [
        ({k: v for k, v in arrays.items() if k != name}, "missing"),
        (arrays | {name: arrays[name][:1]}, "of shape"),
        (arrays | {"model.extra.weight": np.zeros(3)}, "does not belong"),
        (arrays | {name: np.full_like(arrays[name], np.nan)}, "finite"),
        (arrays | {"model.enc.8x8_down.conv0.resample_filter": np.zeros((1, 1, 2, 2))}, "2 x 2 mean"),
    ]
    for bad, message in cases:
        with pytest.raises(InputError, match=message) as error:
            edm_from_arrays(config, bad)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="precond"):
        edm_from_arrays(config | {"precond": "Other"}, arrays)
    with pytest.raises(InputError, match="unexpected"):
        edm_from_arrays(config | {"kwargs": config["kwargs"] | {"wings": 2}}, arrays)
    with pytest.raises(InputError, match=r"label = 10: must be a class index in 0\.\.9"):
        denoiser.given(10)
    with pytest.raises(InputError, match="10 entries"):
        denoiser.given(np.zeros(9, np.float32))
    with pytest.raises(InputError, match="img_resolution"):
        ADMConfig(7, 1, 1, channel_mult=(1, 2))
