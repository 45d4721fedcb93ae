"""Configurations and weights under the reference's names: defaults, round trips, what is refused."""

import json
import math

import chex
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.models import ADMConfig, IDDPMPreconditioning, SongUNetConfig, VPPreconditioning, edm_from_arrays
from dgu.models.weights import network_config, network_from_config, params_to_arrays
from tests.models import networks

SONG = {"precond": "EDMPrecond", "kwargs": networks.SMALL | {"model_type": "SongUNet"}}
FILTERED = {
    "precond": "VEPrecond",
    "kwargs": networks.SMALL | {"resample_filter": [1, 3, 3, 1], "encoder_type": "skip", "decoder_type": "skip"},
}
LEAST = {"img_resolution": 64, "img_channels": 3}


def test_defaults_are_those_of_the_reference():
    adm = network_from_config({"precond": "EDMPrecond", "kwargs": LEAST})
    assert (
        adm.unet == ADMConfig(64, 3, 3) and adm.unet.model_channels == 192 and adm.unet.attn_resolutions == (32, 16, 8)
    )
    assert (adm.preconditioning.sigma_min, adm.preconditioning.sigma_max, adm.sigma_data) == (0.0, math.inf, 0.5)
    song = network_from_config({"precond": "VPPrecond", "kwargs": LEAST})
    assert song.unet == SongUNetConfig(64, 3, 3) and song.preconditioning == VPPreconditioning(19.9, 0.1, 1000, 1e-5)
    assert (song.unet.model_channels, song.unet.channel_mult, song.unet.num_blocks) == (128, (1, 2, 2, 2), 4)
    assert network_from_config({"precond": "VEPrecond", "kwargs": LEAST}).preconditioning.sigma_max == 100.0
    iddpm = network_from_config({"precond": "iDDPMPrecond", "kwargs": LEAST})
    assert iddpm.unet == ADMConfig(64, 3, 6) and iddpm.preconditioning == IDDPMPreconditioning(0.001, 0.008, 1000)
    # How the reference computes on GPUs is not how these weights are computed with.
    assert network_from_config({"precond": "EDMPrecond", "kwargs": LEAST | {"use_fp16": True}}) == adm
    assert network_from_config({"precond": "EDMPrecond", "kwargs": LEAST | {"sigma_max": "inf"}}) == adm


@pytest.mark.parametrize("precond", ["EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond"])
@pytest.mark.parametrize("model", ["SongUNet", "DhariwalUNet"])
def test_weights_and_configurations_go_round(precond, model):
    extra = {"embedding_type": "fourier", "channel_mult_noise": 2} if model == "SongUNet" else {}
    config = {"precond": precond, "kwargs": networks.SMALL | {"model_type": model} | extra}
    arrays = networks.random_arrays(config)
    denoiser = edm_from_arrays(config, arrays)
    back = params_to_arrays(denoiser.params)
    chex.assert_trees_all_equal(back, arrays)
    described = json.loads(json.dumps(network_config(denoiser.network), allow_nan=False))
    assert network_from_config(described) == denoiser.network
    assert ("u" in arrays) == (precond == "iDDPMPrecond") and ("model.map_noise.freqs" in arrays) == bool(extra)


def test_filters_are_compared_with_the_networks_own():
    arrays = networks.random_arrays(FILTERED)
    taps = np.asarray([1, 3, 3, 1], np.float32)
    filter_ = (np.outer(taps, taps) / 64)[None, None]
    names = [
        f"model.{layer}.resample_filter"
        for layer in (
            "enc.4x4_down.conv0",
            "enc.4x4_down.skip",
            "dec.8x8_up.conv0",
            "enc.4x4_aux_down",
            "dec.8x8_aux_up",
        )
    ]
    edm_from_arrays(FILTERED, arrays | dict.fromkeys(names, filter_))
    for name in names:
        for bad in (filter_ * 1.01, filter_[0, 0], np.full((1, 1, 2, 2), 0.25), np.full_like(filter_, np.nan)):
            with pytest.raises(InputError, match=r"filter of taps \[1.0, 3.0, 3.0, 1.0\]"):
                edm_from_arrays(FILTERED, arrays | {name: bad})
    for stray in (
        "model.enc.8x8_conv.resample_filter",
        "model.dec.8x8_block0.conv0.resample_filter",
        "resample_filter",
    ):
        with pytest.raises(InputError, match="does not belong"):
            edm_from_arrays(FILTERED, arrays | {stray: filter_})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_blocks": 1.5}, "num_blocks = 1.5: must be an integer"),
        ({"num_blocks": True}, "num_blocks"),
        ({"num_blocks": 2}, "enc.8x8_block1 is missing"),
        ({"num_blocks": 10**30}, "num_blocks"),
        ({"channel_mult": [1] * 1000}, "channel_mult"),
        ({"channel_mult": 2}, "channel_mult = 2: must be a list"),
        ({"channel_mult": [1, "x"]}, "channel_mult = 'x'"),
        ({"channel_mult": []}, "channel_mult"),
        ({"img_resolution": 2**40}, "img_resolution"),
        ({"img_resolution": 7}, "img_resolution = 7: must be a positive multiple of 2"),
        ({"img_resolution": None}, "img_resolution"),
        ({"dropout": "much"}, "dropout = 'much': must be a number"),
        ({"dropout": float("nan")}, "dropout"),
        ({"embedding_type": 3}, "embedding_type = 3: must be a name"),
        ({"model_type": "UNet"}, "model_type = 'UNet': must be one of DhariwalUNet, SongUNet"),
        ({"model_type": ["SongUNet"]}, "model_type"),
        ({"use_fp16": "yes"}, "use_fp16"),
        ({"sigma_data": -1}, "sigma_data"),
        ({"beta_d": 1.0}, "unexpected option 'beta_d' of EDMPrecond with SongUNet"),
        ({"in_channels": 3}, "unexpected option 'in_channels'"),
        ({"label_dim": 6}, "map_label.* the weights are of another architecture"),
        ({"model_channels": 16}, "of another architecture"),
    ],
)
def test_bad_configurations_are_one_line(change, message):
    arrays = ARRAYS
    with pytest.raises(InputError, match=message) as error:
        edm_from_arrays({"precond": "EDMPrecond", "kwargs": SONG["kwargs"] | change}, arrays)
    assert "\n" not in str(error.value)


ARRAYS = networks.random_arrays(SONG)


def test_bad_tensors_and_wrappers_are_one_line():
    name = "model.dec.8x8_aux_conv.weight"
    value = ARRAYS[name]
    cases = [
        (SONG, {k: v for k, v in ARRAYS.items() if k != name}, "aux_conv.weight is missing"),
        (SONG, ARRAYS | {name: value[:1]}, "of shape"),
        (SONG, ARRAYS | {name: np.where(value == value[0, 0, 0, 0], np.inf, value)}, "finite"),
        (SONG, ARRAYS | {name: value.astype(np.complex64)}, "real numbers"),
        (SONG, ARRAYS | {"u": np.zeros(1001, np.float32)}, "u does not belong"),
        (SONG, ARRAYS | {"model.map_noise.freqs": np.zeros(4)}, "freqs does not belong"),
        ({"precond": "iDDPMPrecond", "kwargs": SONG["kwargs"]}, ARRAYS, "missing|of shape"),
        ({"precond": None, "kwargs": SONG["kwargs"]}, ARRAYS, "precond = None: must be one of EDMPrecond"),
        ({"precond": "EDMPrecond", "kwargs": [1]}, ARRAYS, "kwargs"),
        ({"precond": "EDMPrecond", "kwargs": {}}, ARRAYS, "with img_resolution and img_channels"),
        (SONG | {"compute_dtype": "float16"}, ARRAYS, "compute_dtype"),
    ]
    for config, arrays, message in cases:
        with pytest.raises(InputError, match=message) as error:
            edm_from_arrays(config, arrays)
        assert "\n" not in str(error.value), message
