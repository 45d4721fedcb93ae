"""Networks of diffusers against what diffusers computed with the same files."""

import json
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.models import diffusers_from_arrays, load_autoencoder_kl, load_diffusers
from dgu.models.diffusers.config import unet_from_config
from dgu.models.diffusers.network import DiffusersNetwork
from dgu.models.diffusers.schedulers import process_from_config
from tests.models import diffusers_folders as folders
from tests.parity import nhwc, relative

#: Every folder takes many seconds to compile: the smallest by default, all as slow tests.
QUICK = ("learned_time",)
PARITY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in folders.NAMES]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return folders.unpacked(tmp_path_factory.mktemp("diffusers"))


def arrays_of(folder):
    with np.load(folder / "expected.npz") as file:
        return {name: file[name] for name in file.files}


@jax.jit
def everything(network, x, t, labels, cotangents, tangents):
    """Raw outputs, their pullbacks, and derivatives along a tangent and in time."""

    def one(x, t, label, cotangent, tangent):
        out, pull = jax.vjp(lambda x: network(x, t, label), x)
        along = jax.jvp(lambda x: network(x, t, label), (x,), (tangent,))[1]
        in_time = jax.jvp(lambda t: network(x, t, label), (t,), (jnp.ones_like(t),))[1]
        return out, pull(cotangent)[0], along, in_time

    return jax.vmap(one)(x, t, labels, cotangents, tangents)


@jax.jit
def denoised(denoiser, x, sigma, labels):
    def one(x, sigma, label):
        return (denoiser if label is None else denoiser.given(label))(x, sigma)

    return jax.vmap(one)(x, sigma, labels)


@pytest.mark.slow
@pytest.mark.parametrize("name", folders.NAMES)
def test_raw_outputs_and_derivatives_are_those_of_diffusers(recorded, name, x64):
    e = arrays_of(recorded / name)
    denoiser = load_diffusers(recorded / name).denoiser
    assert denoiser.description.parameter_count == json.loads(str(e["info"]))["parameters"]
    double = [jnp.asarray(nhwc(e[key]), jnp.float64) for key in ("x", "vjp:cotangent", "jvp:tangent")]
    labels = e.get("class_labels")
    found = everything(denoiser.network, double[0], jnp.asarray(e["t"]), labels, *double[1:])
    keys, bounds = ("F64", "vjp:x64", "jvp:out64", "jvp_t:out64"), (1e-9, 1e-8, 1e-8, 1e-8)
    for key, bound, got in zip(keys, bounds, found):
        if key in e:
            assert relative(got, nhwc(e[key])) < bound, key
    single = jax.jit(jax.vmap(lambda x, t, label: denoiser.network(x, t, label)))
    got = single(jnp.asarray(nhwc(e["x"])), jnp.asarray(e["t"], jnp.float32), labels)
    assert got.dtype == jnp.float32 and relative(got, nhwc(e["F32"])) < 1e-4


@pytest.mark.parametrize("name", PARITY)
def test_denoisers_are_those_of_diffusers(recorded, name, x64):
    e = arrays_of(recorded / name)
    x, sigma = jnp.asarray(nhwc(e["D:x"]), jnp.float64), jnp.asarray(e["D:sigma"])
    for time, key in (("interpolate", "D64"), ("nearest", "D64_nearest")):
        if key not in e:
            continue
        loaded = load_diffusers(recorded / name, time=time)
        np.testing.assert_allclose(loaded.sigma_range, e["sigma_range"], rtol=1e-6)
        assert loaded.denoiser.is_posterior_mean == (name != "consistency")
        got = denoised(loaded.denoiser, x, sigma, e.get("D:class_labels"))
        for ours, theirs in zip(got, nhwc(e[key])):
            assert relative(ours, theirs) < 1e-9, key


@pytest.mark.slow
def test_ten_steps_of_ddim_are_eulers_in_sigma(recorded, x64):
    """With y = x / sqrt(abar), DDIM's step without noise is y + (sigma' - sigma) eps(y)."""
    e = arrays_of(recorded / "v_cosine_sharded")
    denoiser = load_diffusers(recorded / "v_cosine_sharded").denoiser
    states, abar = nhwc(e["ddim10:x64"]), np.append(e["ddim10:alphas_cumprod64"], 1.0)
    sigmas, labels = np.sqrt((1 - abar) / abar), e["steps:class_labels"]
    y = jnp.asarray(states[0] / np.sqrt(abar[0]))
    for sigma, after in pairwise(sigmas):
        clean = denoised(denoiser, y, jnp.full(len(y), sigma), labels)
        y = y + (after - sigma) * (y - clean) / sigma
    assert relative(y, states[-1]) < 1e-9


@pytest.mark.slow
def test_the_autoencoder_is_that_of_diffusers(recorded, x64):
    e = arrays_of(recorded / "vae")
    autoencoder = load_autoencoder_kl(recorded / "vae")
    assert autoencoder.config.scaling_factor == 0.18215

    @jax.jit
    def both(autoencoder, x, z, cotangent, pulled):
        mean, pull = jax.vjp(lambda x: autoencoder.encode(x)[0], x)
        image, back = jax.vjp(autoencoder.decode, z)
        return mean, autoencoder.encode(x)[1], image, pull(pulled)[0], back(cotangent)[0]

    keys = ("x", "z", "decode:vjp:cotangent", "encode:vjp:cotangent")
    for place in range(2):
        found = both(autoencoder, *(jnp.asarray(nhwc(e[key][place]), jnp.float64) for key in keys))
        for key, got in zip(("mean64", "std64", "decoded64", "encode:vjp64", "decode:vjp64"), found):
            assert relative(got, nhwc(e[key][place])) < 1e-8, key


TABLES = (
    "linear",
    "scaled_linear",
    "squaredcos_cap_v2",
    "sigmoid",
    "laplace",
    "linear:T250",
    "trained",
    "linear:zero_snr",
    "scaled_linear:zero_snr",
    "squaredcos_cap_v2:zero_snr",
    "sigmoid:zero_snr",
)


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_noise_levels(recorded, name):
    with np.load(recorded / "schedulers.npz") as file:
        config, abar = json.loads(str(file[f"table:{name}:config"])), file[f"table:{name}:alphas_cumprod64"]
    schedule = process_from_config(config).preconditioning.schedule
    finite = abar[:-1] if config["rescale_betas_zero_snr"] else abar
    np.testing.assert_allclose(schedule.sigmas, np.sqrt((1 - finite) / finite), rtol=1e-9)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_times_of_noise_levels(recorded, name, x64):
    with np.load(recorded / "schedulers.npz") as file:
        config = json.loads(str(file[f"table:{name}:config"]))
        sigma, t = file[f"t_of_sigma:{name}:sigma"], file[f"t_of_sigma:{name}:t64"]
    found = process_from_config(config).preconditioning.coefficients(jnp.asarray(sigma, jnp.float64)).noise
    np.testing.assert_allclose(found, t, atol=1e-7 * len(t))


def ddpm(widths, attended, **more):
    down = ["AttnDownBlock2D" if place in attended else "DownBlock2D" for place in range(len(widths))]
    up = [kind.replace("Down", "Up") for kind in reversed(down)]
    return {"block_out_channels": widths, "down_block_types": down, "up_block_types": up} | more


PUBLISHED = {
    "CIFAR-10 DDPM": (ddpm([128, 256, 256, 256], {1}), 35_746_307),
    "256-pixel DDPM": (ddpm([128, 128, 256, 256, 512, 512], {4}), 113_673_219),
    "ImageNet-64 consistency model": (
        ddpm(
            [192, 384, 576, 768],
            {1, 2, 3},
            layers_per_block=3,
            num_class_embeds=1000,
            resnet_time_scale_shift="scale_shift",
            attn_norm_num_groups=32,
            downsample_type="resnet",
            upsample_type="resnet",
            attention_head_dim=64,
        ),
        295_899_267,
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if "CIFAR" in name else pytest.mark.slow) for name in PUBLISHED]
)
def test_published_networks_have_their_numbers_of_parameters(name):
    config, count = PUBLISHED[name]
    if "consistency" in name:
        config |= {
            "down_block_types": ["ResnetDownsampleBlock2D", *config["down_block_types"][1:]],
            "up_block_types": [*config["up_block_types"][:-1], "ResnetUpsampleBlock2D"],
        }
    made = DiffusersNetwork(unet_from_config(config), process_from_config(folders.SCHEDULER).preconditioning)
    assert made.parameter_count == count


def test_labels_that_are_numbers_have_the_features_of_times():
    """With the same layers behind both, time and label of a network of Fourier features may change places, but for the
    division by the time.
    """
    changes = (("time_embedding_type", "fourier"), ("class_embed_type", "timestep"))
    weights = folders.random_weights(folders.network(changes))
    assert weights["class_embedding.linear_1.weight"].shape == (16, 8)
    weights |= {name.replace("time_", "class_"): a for name, a in weights.items() if name.startswith("time_emb")}
    made = diffusers_from_arrays(folders.UNET | dict(changes), folders.SCHEDULER, weights).network
    run = jax.jit(lambda network, x, t, label: network(x, t, label))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 4, 1)), jnp.float32)
    one, other = 3.0 * run(made, x, 3.0, 7.0), 7.0 * run(made, x, 7.0, 3.0)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert float(jnp.abs(one - 3.0 * run(made, x, 3.0, 8.0)).max()) > 1e-3
