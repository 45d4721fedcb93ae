"""EDM2 networks against recorded outputs of the reference implementation, and their magnitude-preserving parts."""

import lzma
import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import CheckpointError, InputError
from dgu.models import EDM2Config, EDMNetwork, edm2_from_arrays, load_checkpoint, load_edm_pickle, save_network
from dgu.models.edm2 import mp_concatenate, mp_silu, mp_sum, normalize, normalized_weight
from dgu.models.snapshot import read_snapshot
from dgu.models.weights import params_to_arrays
from tests import parity

FILES = ("edm2_cond.npz", "edm2_uncond.npz")


def recorded(name):
    arrays = parity.load(name)
    return arrays, edm2_from_arrays(parity.config(arrays), parity.params(arrays))


@jax.jit
def outputs(denoiser, x, sigma, labels):
    """D, the bare network and u of a batch; of an unconditional network labels have no entries."""

    def one(x, sigma, label):
        given = denoiser.given(label) if label.size else denoiser
        network, c = denoiser.network, denoiser.network.preconditioning.coefficients(sigma)
        bare = network.raw(denoiser.params, c.inp * x, c.noise, label if label.size else None)
        return given(x, sigma), bare, denoiser.log_variance(sigma), denoiser(x, sigma)

    return jax.vmap(one)(x, sigma, labels)


@pytest.mark.parametrize("name", FILES)
def test_outputs_are_those_of_the_reference(name, x64):
    arrays, denoiser = recorded(name)
    x, labels = parity.nhwc(arrays["x"]), arrays.get("class_labels", np.zeros((4, 0)))
    double = [np.asarray(given, np.float64) for given in (x, arrays["sigma"], labels)]
    denoised, bare, u, unlabelled = outputs(denoiser, *double)
    assert parity.relative(parity.nchw(bare), arrays["F64"]) < 1e-13
    for level in range(4):  # At the lowest level D is nearly x, so each is looked at by itself.
        assert parity.relative(parity.nchw(denoised[level]), arrays["D64"][level]) < 1e-13
    assert parity.relative(u, arrays["logvar64"]) < 1e-13
    if labels.size:
        assert parity.relative(parity.nchw(unlabelled), arrays["D64_nolabel"]) < 1e-13
        assert parity.relative(parity.nchw(unlabelled), arrays["D64"]) > 1e-3
    single, *_ = outputs(denoiser, *(np.asarray(given, np.float32) for given in (x, arrays["sigma"], labels)))
    assert single.dtype == np.float32 and parity.relative(parity.nchw(single), arrays["D64"]) < 2e-6
    assert denoiser.network.parameter_count == parity.config(arrays)["num_params"]


def test_a_gradient_step_starts_from_weights_of_unit_magnitude(x64):
    arrays, denoiser = recorded(FILES[0])
    forced = replace(denoiser, params=denoiser.network.constrained(parity.double(denoiser.params)))
    x, sigma, labels = parity.nhwc(arrays["x"]), arrays["sigma"], arrays["class_labels"]
    denoised, *_ = outputs(forced, *(np.asarray(given, np.float64) for given in (x, sigma, labels)))
    assert parity.relative(parity.nchw(denoised), arrays["D64_forced"]) < 1e-13
    assert parity.relative(arrays["D64"], arrays["D64_forced"]) > 1e-6  # The norm's epsilon acts twice.


#: Parameters without the Fourier constants, by the published table (arXiv 2312.02696, Table 6), in millions.
PUBLISHED = {128: 124.71, 192: 280.21, 256: 497.81, 320: 777.50, 384: 1119.28, 448: 1523.16}


@pytest.mark.parametrize("channels", PUBLISHED)
def test_published_sizes(channels):
    network = EDMNetwork(EDM2Config(64, 4, 4, label_dim=1000, model_channels=channels))
    assert network.parameter_count / 1e6 == pytest.approx(PUBLISHED[channels], abs=0.005)
    assert len(jax.tree.leaves(network.abstract_params)) == 203


def test_parts_keep_the_mean_square():
    a, b = jax.random.normal(jax.random.key(0), (2, 64, 64, 48))
    for got in (mp_silu(a), mp_sum(a, b, 0.3), mp_concatenate(a, b[..., :16], 0.5), normalize(3 * a, (-1,))):
        assert float(jnp.mean(got**2)) == pytest.approx(1, abs=0.01)
    weight = normalized_weight(
        jax.random.normal(jax.random.key(1), (3, 3, 48, 8)) * jnp.arange(1.0, 9.0)[None, None, None]
    )
    np.testing.assert_allclose(jnp.mean(weight**2, (0, 1, 2)), 1, rtol=1e-3)


SMALL = EDMNetwork(EDM2Config(8, 2, 2, label_dim=3, model_channels=8, channel_mult=(1, 2), num_blocks=1))


def test_a_fresh_network_is_the_bare_skip(x64):
    denoiser = SMALL.denoiser(SMALL.init(jax.random.key(0))).given(1)
    x = jax.random.normal(jax.random.key(1), (8, 8, 2), jnp.float64)
    np.testing.assert_array_equal(
        jax.jit(type(denoiser).__call__)(denoiser, x, 0.5), 0.5 * x
    )  # c_skip = 1/2 where sigma = sigma_data; out_gain is 0.
    assert float(jnp.std(denoiser.params["emb_noise"]["kernel"])) == pytest.approx(1, abs=0.1)


def test_derivatives_forwards_and_backwards_agree(x64):
    denoiser = SMALL.denoiser(parity.double(SMALL.init(jax.random.key(0)) | {"out_gain": jnp.ones(())}))
    x, v, w = jax.random.normal(jax.random.key(1), (3, 8, 8, 2), jnp.float64)

    @jax.jit
    def derivatives(denoiser, x, v, w):
        one, step = partial(denoiser, sigma=jnp.float64(0.7)), 1e-6
        _, forwards = jax.jvp(one, (x,), (v,))
        return forwards, jax.vjp(one, x)[1](w)[0], (one(x + step * v) - one(x - step * v)) / (2 * step)

    forwards, backwards, difference = derivatives(denoiser.given(2), x, v, w)
    assert float(jnp.vdot(w, forwards)) == pytest.approx(float(jnp.vdot(backwards, v)), rel=1e-12)
    assert parity.relative(forwards, difference) < 1e-7


def test_a_network_file_holds_it(tmp_path):
    denoiser = SMALL.denoiser(SMALL.init(jax.random.key(0)))
    save_network(tmp_path / "network.npz", SMALL, denoiser.params, {"class_names": ["a", "b", "c"]})
    again = load_checkpoint(tmp_path / "network.npz")
    assert again.network == SMALL
    jax.tree.map(np.testing.assert_array_equal, again.denoiser.params, denoiser.params)
    assert {"unet.out_gain", "unet.enc.8x8_conv.weight", "logvar_linear.weight"} < set(
        params_to_arrays(denoiser.params)
    )


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"channel_mult": [1, 2, 4, 8, 16, 32]}, "img_resolution"),
        ({"clip_act": -1}, "clip_act"),
        ({"resample_filter": [1, 2, 1]}, "resample_filter"),
        ({"channel_mult_noise": "many"}, "channel_mult_noise"),
        ({"res_balance": 1.5}, "res_balance"),
        ({"label_dim": 2**30}, "label_dim"),
        ({"depth": 3}, "depth"),
    ],
)
def test_unusable_configurations_are_refused_in_a_line(change, names):
    arrays = parity.load(FILES[0])
    config = parity.config(arrays)
    with pytest.raises(InputError, match=names):
        edm2_from_arrays({**config, "kwargs": {**config["kwargs"], **change}}, parity.params(arrays))


def test_unusable_arrays_are_refused_in_a_line():
    arrays = parity.load(FILES[0])
    config, params = parity.config(arrays), parity.params(arrays)
    with pytest.raises(InputError, match=r"logvar_linear.weight is missing"):
        edm2_from_arrays(config, {k: v for k, v in params.items() if k != "logvar_linear.weight"})
    with pytest.raises(InputError, match=r"model.out_gain does not belong"):
        edm2_from_arrays(config, params | {"model.out_gain": np.zeros(())})
    with pytest.raises(InputError, match=r"unet.out_gain = .* of shape \(\)"):
        edm2_from_arrays(config, params | {"unet.out_gain": np.zeros(2)})
    with pytest.raises(InputError, match="precond"):
        edm2_from_arrays({**config, "precond": "EDMPrecond"}, params)
    with pytest.raises(InputError, match="EDM2Config"):
        load_checkpoint("fashion-mnist-14").denoiser.log_variance(1.0)


def test_classes_and_noise_levels_outside_the_range_are_refused():
    denoiser = SMALL.denoiser(SMALL.init(jax.random.key(0)))
    x = jnp.zeros((8, 8, 2))
    with pytest.raises(InputError, match="label"):
        denoiser.given(3)
    with pytest.raises(InputError, match="label: is missing"):
        denoiser(x, 1.0)
    with pytest.raises(InputError, match="sigma"):
        denoiser.given(0)(x, -1.0)
    assert math.isfinite(float(denoiser.log_variance(80.0)))


SNAPSHOT = lzma.decompress((parity.FIXTURES / "edm2_snapshot.pkl.xz").read_bytes())


def test_a_snapshot_is_read_without_running_anything_in_it(tmp_path, x64):
    """The source that the file carries raises, and it holds an encoder with NumPy arrays."""
    path = tmp_path / "edm2-small.pkl"
    path.write_bytes(SNAPSHOT)
    expected = parity.load("edm2_snapshot_expected.npz")
    found = read_snapshot(path)
    checks = [name for name in expected if name.startswith("check:")]
    assert found.arrays.keys() == {name.removeprefix("check:") for name in checks}
    for name in checks:
        values = np.asarray(found.arrays[name.removeprefix("check:")], np.float64)
        statistics = [values.sum(), np.abs(values).sum(), values.ravel()[0], values.ravel()[-1]]
        np.testing.assert_allclose(expected[name][-4:], statistics, rtol=1e-9, atol=1e-9, err_msg=name)
    denoiser = load_edm_pickle(path)
    assert denoiser.network.unet.dropout == 0.1 and denoiser.label_dim == 6
    given = [
        np.asarray(a, np.float64) for a in (parity.nhwc(expected["x"]), expected["sigma"], expected["class_labels"])
    ]
    denoised, _, u, unlabelled = outputs(denoiser.given(None), *given)
    assert parity.relative(parity.nchw(denoised), expected["D64"]) < 1e-13
    assert parity.relative(parity.nchw(unlabelled), expected["D64_nolabel"]) < 1e-13
    assert parity.relative(u, expected["logvar64"]) < 1e-13
    assert load_checkpoint(path).sha256


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"ndarray", b"memmap_", "is not allowed"),
        (b"_reconstruct\x94", b"_rebuild_it_\x94", "is not allowed"),
        (b"\x8c\x04unet", b"\x8c\x04inet", "no UNet 'unet'"),
        (b"Precond", b"Precind", "is not known"),
    ],
)
def test_a_snapshot_that_asks_for_something_else_is_refused(tmp_path, old, new, message):
    path = tmp_path / "hostile.pkl"
    assert old in SNAPSHOT and len(old) == len(new)
    path.write_bytes(SNAPSHOT.replace(old, new))
    with pytest.raises(CheckpointError, match=message):
        load_edm_pickle(path)
