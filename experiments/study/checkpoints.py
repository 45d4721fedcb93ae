"""The networks that ``--checkpoint`` names: loaded, or for a dry run known by name alone; and what sampling one
costs.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgu.core.errors import InputError
from dgu.models import ADMConfig, EDMNetwork, load_checkpoint
from dgu.models.pretrained import Pretrained, network_file
from experiments.study.costs import Cost
from experiments.study.flop import matmul_flop
from experiments.study.inputs import reading

#: NVIDIA's ImageNet-64 network, which the paper on universality samples: not in the package, but its costs are known.
IMAGENET_64 = "edm-imagenet-64x64-cond-adm.pkl"
#: A network for trying things out: it compiles in a moment, and what it makes means nothing.
UNTRAINED = "untrained"


def load(name: str, untrained_size: int | None = None) -> Any:
    """``dgu.models.load_checkpoint``, its complaints under the option ``--checkpoint``; or the untrained network by its
    name.

    The untrained network takes images of any size, 8 x 8 unless one is given.
    """
    if name == UNTRAINED:
        return _untrained(untrained_size or 8)
    try:
        with reading("checkpoint", name, network_file(name)):
            return load_checkpoint(name)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith("checkpoint = ") else f"checkpoint = {name!r}: {text}") from error


def _untrained(size: int) -> Pretrained:
    """A tiny ADM of three classes of square images with random weights, those that start at zero too."""
    unet = ADMConfig(size, 1, 1, 3, model_channels=8, channel_mult=(1,), num_blocks=1, attn_resolutions=())
    network = EDMNetwork(unet)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: 0.2 * rng.standard_normal(leaf.shape, np.float32), network.abstract_params)
    return Pretrained(network.denoiser(params), {"class_names": ["a", "b", "c"]})


def planned(name: str) -> EDMNetwork:
    """The network of a dry run: that of the checkpoint, or NVIDIA's ImageNet-64 network where its file is not at
    hand.
    """
    if name != IMAGENET_64 or Path(name).exists():
        return load(name).network
    return EDMNetwork(ADMConfig(64, 3, 3, label_dim=1000), compute_dtype="bfloat16")


def sampling_cost(network: EDMNetwork, images: int, evaluations: int, batch_size: int) -> Cost:
    """The cost of ``images`` samples of ``evaluations`` each, from the real shapes (``jax.eval_shape``)."""
    params = network.abstract_params
    image = jax.ShapeDtypeStruct(network.shape, jnp.float32)
    level = jax.ShapeDtypeStruct((), jnp.float32)
    label = jax.ShapeDtypeStruct((), jnp.int32) if network.unet.label_dim else None
    shape = jax.eval_shape(network.apply, params, image, level, label).shape
    forward = matmul_flop(network.apply, params, image, level, label)
    analysis = jax.jit(network.apply).lower(params, image, level, label).cost_analysis() or {}
    activations = analysis.get("bytes accessed", 0.0) / 8
    weights = sum(leaf.size for leaf in jax.tree.leaves(params)) * 4
    pixels = shape[0] * shape[1] * shape[2] * 4
    memory = weights + batch_size * (pixels + activations)
    return Cost("sampling", images * evaluations, images * evaluations * forward, memory, images * pixels)
