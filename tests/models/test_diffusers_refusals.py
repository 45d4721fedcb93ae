"""Folders of diffusers that cannot be used are refused in one line; their forms and old names are read."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.core.safetensors_files import read_safetensors, write_safetensors
from dgu.models import diffusers_from_arrays, load_autoencoder_kl, load_checkpoint, load_diffusers
from tests.models import diffusers_folders as folders
from tests.models.torch_zips import torch_zip

WEIGHTS = "unet/diffusion_pytorch_model"


def line_of(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


UNET_CHANGES = {
    "_class_name": ("UNet2DConditionModel", "must be 'UNet2DModel'"),
    "down_block_types": (["DownBlock2D", "CrossAttnDownBlock2D"], "'CrossAttnDownBlock2D': must be one of DownBlock2D"),
    "up_block_types": (["UpBlock2D"], "must be 2 blocks"),
    "act_fn": ("tanh", "must be one of silu"),
    "encoder_hid_dim": (7, "unexpected option 'encoder_hid_dim'"),
    "norm_num_groups": (3, "a divisor of a block's 4 channels"),
    "layers_per_block": (10**6, "from 1 to 256"),
    "block_out_channels": ([4, "x"], "must be a whole number"),
    "sample_size": (5, "multiples of 2"),
    "time_embedding_type": ("learned", "num_train_timesteps = None"),
    "out_channels": (3, "or twice as many"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "must be one of UNetMidBlock2D, null"),
    "freq_shift": (2, "below 2"),
    "dropout": (True, "must be a number"),
}
SCHEDULER_CHANGES = {
    "_class_name": ("LCMScheduler", "must be one of DDPMScheduler"),
    "beta_schedule": ("exp", "one of linear"),
    "prediction_type": ("flow_prediction", "one of epsilon"),
    "beta_start": (0.5, "below beta_end"),
    "trained_betas": ([0.1, 2.0], "two or more numbers between 0 and 1"),
    "num_train_timesteps": (1, "2 or more"),
    "rescale_betas_zero_snr": ("yes", "true or false"),
}


@pytest.fixture(scope="module")
def weights():
    return folders.random_weights(folders.network())


@pytest.mark.parametrize("key", UNET_CHANGES)
def test_configurations_of_other_networks(key, weights):
    value, expected = UNET_CHANGES[key]
    assert expected in line_of(diffusers_from_arrays, folders.UNET | {key: value}, folders.SCHEDULER, weights)


@pytest.mark.parametrize("key", SCHEDULER_CHANGES)
def test_configurations_of_other_schedulers(key, weights):
    value, expected = SCHEDULER_CHANGES[key]
    assert expected in line_of(diffusers_from_arrays, folders.UNET, folders.SCHEDULER | {key: value}, weights)


def test_tensors_that_do_not_fit(weights):
    def refused(arrays):
        return line_of(diffusers_from_arrays, folders.UNET, folders.SCHEDULER, arrays)

    name = "mid_block.resnets.0.conv1.weight"
    assert f"{name} is missing" in refused({key: value for key, value in weights.items() if key != name})
    assert "conv_extra.weight does not belong" in refused(weights | {"conv_extra.weight": np.ones(3)})
    assert "of shape (4, 4, 3, 3)" in refused(weights | {name: np.ones((4, 4, 1, 3))})
    assert "non-finite" in refused(weights | {name: np.full((4, 4, 3, 3), np.nan)})
    assert "real numbers" in refused(weights | {name: np.ones((4, 4, 3, 3), np.complex64)})


def test_labels_levels_and_images_that_do_not_fit():
    plain = folders.network().denoiser({})
    x = jnp.zeros((4, 4, 1))
    assert "the network is unconditional" in line_of(plain.given, 1)
    assert "must be from 0.01" in line_of(plain, x, 0.002) and "157.407" in line_of(plain, x, 200.0)
    assert "sides divisible by 2" in line_of(plain, jnp.zeros((5, 4, 1)), 1.0)
    assert "(H, W, 1)" in line_of(plain, jnp.zeros((2, 4, 4, 1)), 1.0)
    classes = folders.network((("num_class_embeds", 3),)).denoiser({})
    assert "label: is missing" in line_of(classes, x, 1.0) and "label: is missing" in line_of(classes.given, None)
    assert "0..2" in line_of(classes.given, 3) and classes.needs_class and classes.label_dim == 3
    vectors = folders.network((("class_embed_type", "identity"),)).denoiser({})
    assert "a vector of 16 entries" in line_of(vectors.given, np.ones(3)) and vectors.label_dim is None
    learned = (("time_embedding_type", "learned"), ("num_train_timesteps", 1000))
    assert "a whole number from 0 to 999" in line_of(folders.network(learned).denoiser({}).network, x, 2.5)


# Forms of the weights
# ---------------------------------------------------------------------------------------------------------------------


def same(found, folder):
    expected = load_diffusers(folder).params
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)


def test_shards_zips_half_precision_old_names_and_the_flat_form(tmp_path):
    changes = {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"]}
    plain = folders.write(tmp_path / "plain", changes)
    arrays, _ = read_safetensors(plain / f"{WEIGHTS}.safetensors")
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    write_safetensors(plain / f"{WEIGHTS}.safetensors", halves, {})  # Exact from here on.
    names = sorted(halves)

    def variant(name, write):
        folder = folders.write(tmp_path / name, changes)
        (folder / f"{WEIGHTS}.safetensors").unlink()
        write(folder)
        same(load_diffusers(folder), plain)
        return folder

    def old(name):
        name = name.replace(".to_out.0.", ".proj_attn.")
        for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
            name = name.replace(f".{new}.", f".{before}.")
        return name

    def shards(folder):
        parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
        for file, chosen in parts.items():
            write_safetensors(folder / "unet" / file, {name: halves[name] for name in chosen}, {})
        index = {"weight_map": {name: file for file, chosen in parts.items() for name in chosen}}
        (folder / f"{WEIGHTS}.safetensors.index.json").write_text(json.dumps(index))

    def flat(folder):
        for file in ("unet/config.json", "scheduler/scheduler_config.json"):
            (folder / file).rename(folder / file.split("/")[1])
        (folder / "unet").rmdir()
        write_safetensors(folder / "diffusion_pytorch_model.safetensors", {old(n): a for n, a in halves.items()}, {})

    def very_old(name, array):
        attends = "attentions" in name and array.ndim == 2
        return array[..., None, None] if attends else array

    sharded = variant("shards", shards)
    variant("variant", lambda f: write_safetensors(f / f"{WEIGHTS}.fp16.safetensors", halves, {}))
    variant("zip", lambda f: (f / f"{WEIGHTS}.bin").write_bytes(torch_zip(halves)))
    variant("flat", flat)
    kernels = {old(name): very_old(name, array) for name, array in halves.items()}
    variant("kernels", lambda f: write_safetensors(f / f"{WEIGHTS}.safetensors", kernels, {}))
    assert load_checkpoint(plain).sha256 != load_checkpoint(folders.write(tmp_path / "other", changes, seed=1)).sha256

    index = json.loads((sharded / f"{WEIGHTS}.safetensors.index.json").read_text())
    for places, expected in (
        ({name: "../plain/unet/a.safetensors" for name in names}, "no usable weight_map"),
        (index["weight_map"] | {"conv_in.bias": "b.safetensors"}, "conv_in.bias is in it or in"),
        ({}, "no usable weight_map"),
    ):
        (sharded / f"{WEIGHTS}.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        assert expected in line_of(load_diffusers, sharded)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path):
    values = np.asarray([1.5, -2.0, 0.0078125], np.float32)
    data = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    found, _ = read_safetensors(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found["a"], values)


def header_of(text, data=bytes(8)):
    return struct.pack("<Q", len(text)) + text + data


ENTRY = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
HOSTILE = {
    "a name twice": (header_of(b"{" + ENTRY + b"," + ENTRY + b"}"), "a name is there twice"),
    "longer than the file": (struct.pack("<Q", 2**40) + b"{}" + bytes(20), "must be"),
    "a long header": (struct.pack("<Q", 2**25) + b"{" + b" " * 2**25, "must be at most 16,777,216"),
    "offsets outside": (header_of(ENTRY.replace(b"0,8", b"0,80").join([b"{", b"}"])), "cannot be read"),
    "offsets that overlap": (header_of(b"{" + ENTRY + b"," + ENTRY.replace(b'"a"', b'"b"') + b"}"), "cannot be read"),
    "a gap": (header_of(b"{" + ENTRY + b"}", bytes(16)), "cannot be read"),
    "a huge shape": (header_of(ENTRY.replace(b"[2]", b"[4611686018427387904,8]").join([b"{", b"}"])), "cannot be read"),
    "another type": (header_of(b'{"a":{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}}'), "F8_E4M3"),
    "nesting": (header_of(b'{"a":' + b"[" * 4000), "cannot be read"),
    "empty": (b"", "an empty file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_safetensors(tmp_path, case):
    content, expected = HOSTILE[case]
    (tmp_path / "x.safetensors").write_bytes(content)
    line = line_of(read_safetensors, tmp_path / "x.safetensors")
    assert expected in line and str(tmp_path) in line


def test_folders_that_hold_something_else(tmp_path):
    folder = folders.write(tmp_path / "a")
    assert "config.json" in line_of(load_autoencoder_kl, folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    assert "scheduler_config.json" in line_of(load_diffusers, folder)
    (folder / f"{WEIGHTS}.safetensors").unlink()
    (folder / "scheduler_config.json").write_text(json.dumps(folders.SCHEDULER))
    assert "has 0 networks" in line_of(load_diffusers, folder)
    (folder / "unet" / "config.json").write_text("[1]")
    assert "holds a list" in line_of(load_diffusers, folder)
    assert "there is nothing of this name" in line_of(load_checkpoint, tmp_path / "b")
