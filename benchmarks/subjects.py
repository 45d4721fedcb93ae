"""The networks that are timed, with weights that are nowhere zero."""

import json
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from dgu.core.typing import PyTree
from dgu.models import NCSNPP, ADMConfig, EDMNetwork, SongUNetConfig
from dgu.models.weights import network_from_config, params_from_arrays

FIXTURE = Path(__file__).parent.parent / "tests" / "fixtures" / "adm_edm.npz"
Name = Literal["small-adm", "ddpmpp", "ncsnpp", "imagenet64"]


def load(name: Name, *, quick: bool = False) -> tuple[EDMNetwork, PyTree]:
    """A network and its parameters.

    ``small-adm`` is that of the fixture (16 x 16 x 3, 32 channels, 10 classes, 828,771 parameters), ``ddpmpp`` and
    ``ncsnpp`` the published ones for CIFAR-10 with 10 classes, ``imagenet64`` the published ADM. With ``quick`` the
    same kind, far smaller.
    """
    if name == "small-adm":
        with np.load(FIXTURE) as file:
            config = json.loads(str(file["config"]))
            arrays = {key.removeprefix("param:"): file[key] for key in file.files if key.startswith("param:")}
        network = network_from_config(config)
        return network, params_from_arrays(network, arrays)
    if name == "imagenet64":
        small = {"img_resolution": 8, "model_channels": 64, "channel_mult": (1, 1), "num_blocks": 1}
        options = small | {"attn_resolutions": (4,)} if quick else {"img_resolution": 64}
        unet = ADMConfig(in_channels=3, out_channels=3, label_dim=1000, **options)  # type: ignore[arg-type]
    else:
        small = {"img_resolution": 8, "model_channels": 8, "channel_mult": (1, 1), "num_blocks": 1}
        options = small if quick else {"img_resolution": 32, "channel_mult": (2, 2, 2)}
        style = NCSNPP if name == "ncsnpp" else {}
        unet = SongUNetConfig(in_channels=3, out_channels=3, label_dim=10, dropout=0.13, **options, **style)  # type: ignore[arg-type]
    network = EDMNetwork(unet)
    return network, random_params(network)


def random_params(network: EDMNetwork) -> PyTree:
    """Parameters of unit gain, so that the output depends on every layer (the usual start has zeros)."""
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        values, kind = rng.standard_normal(leaf.shape, np.float32), path[-1].key
        if kind == "kernel":
            return values * np.float32(np.prod(leaf.shape[:-1]) ** -0.5)
        return values * 16 if kind == "freqs" else 0.2 * values + np.float32(kind == "scale")

    return jax.tree_util.tree_map_with_path(draw, network.abstract_params)
