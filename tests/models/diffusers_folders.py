"""The recorded diffusers folders, unpacked, and small ones made up by a test."""

import json
import math
import tarfile
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np

from dgu.core.safetensors_files import write_safetensors
from dgu.models.diffusers.config import unet_from_config
from dgu.models.diffusers.network import DiffusersNetwork
from dgu.models.diffusers.schedulers import process_from_config
from dgu.models.layouts import tree_to_arrays
from tests.parity import FIXTURES

NAMES = (
    "ddpm_flat_old",
    "consistency",
    "ncsnpp_fp16",
    "v_cosine_sharded",
    "sample_bin",
    "learned_range",
    "learned_time",
    "flow",
)
UNET = {
    "_class_name": "UNet2DModel",
    "sample_size": 4,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [4, 4],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "attention_head_dim": 2,
}
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}


def unpacked(folder: Path) -> Path:
    """All recordings, in a folder of their own."""
    with tarfile.open(FIXTURES / "diffusers.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "diffusers"


@lru_cache
def network(changes: tuple = ()) -> DiffusersNetwork:
    """The network of ``UNET`` with some keys changed."""
    return DiffusersNetwork(unet_from_config(UNET | dict(changes)), process_from_config(SCHEDULER).preconditioning)


def random_weights(made: DiffusersNetwork, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under the reference's names, nowhere zero."""
    rng = np.random.default_rng(seed)
    shapes = tree_to_arrays_of_zeros(made)
    return {
        name: (rng.standard_normal(a.shape) / math.sqrt(max(1, a[0].size)) + (a.ndim == 1)).astype(np.float32)
        for name, a in shapes.items()
    }


def tree_to_arrays_of_zeros(made: DiffusersNetwork) -> dict[str, np.ndarray]:
    """Zeros under the reference's names, in its layouts."""
    return tree_to_arrays(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), made.abstract_params))


def write(folder: Path, changes: dict | None = None, scheduler: dict | None = None, seed: int = 0) -> Path:
    """A small pipeline in ``folder``: network and scheduler."""
    config = UNET | (changes or {})
    made = DiffusersNetwork(unet_from_config(config), process_from_config(SCHEDULER).preconditioning)
    (folder / "unet").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER | (scheduler or {})))
    write_safetensors(folder / "unet" / "diffusion_pytorch_model.safetensors", random_weights(made, seed), {})
    return folder
