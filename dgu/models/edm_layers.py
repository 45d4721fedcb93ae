"""The layers of an EDM network as a Flax module, made from the description of its architecture."""

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
from flax import nnx

from dgu.core.errors import InputError
from dgu.core.keys import seeded, threefry
from dgu.core.typing import Key, PyTree
from dgu.models.adm import ADM
from dgu.models.architecture import Architecture
from dgu.models.dit import DiT
from dgu.models.dit_config import DiTConfig
from dgu.models.edm2 import EDM2UNet
from dgu.models.edm2_config import EDM2Config
from dgu.models.songunet import SongUNet
from dgu.models.tutorial_config import TutorialUNetConfig
from dgu.models.tutorial_unet import TutorialUNet
from dgu.models.unet import ADMConfig, SongUNetConfig

#: The module of an architecture.
Layers = ADM | SongUNet | DiT | TutorialUNet | EDM2UNet


def initial_params(unet: Architecture, compute_dtype: str, key: Key) -> PyTree:
    """Parameters as the reference initialises them: a nested dict of float32 arrays."""
    key = threefry(key)
    return nnx.to_pure_dict(nnx.split(_layers(unet, compute_dtype, nnx.Rngs(params=key)))[1])


@lru_cache(maxsize=32)
def abstract_layers(unet: Architecture, compute_dtype: str) -> tuple[nnx.GraphDef[Layers], PyTree]:
    """Graph definition and shapes of the parameters, once per architecture and without computing anything."""
    graph, state = nnx.split(nnx.eval_shape(lambda: _layers(unet, compute_dtype, SameKey(seeded(0)))))
    return graph, nnx.to_pure_dict(state)


def with_params(unet: Architecture, compute_dtype: str, params: PyTree) -> Any:
    """The layers with these parameters: a function of an image, its noise level, class and augmentation."""
    graph, _ = abstract_layers(unet, compute_dtype)
    return nnx.merge(graph, params)


class SameKey(nnx.Rngs):
    """One key for every layer, where only shapes are asked for: counters, traced, take time quadratic in the layers."""

    def __init__(self, key: Key):
        self.params = lambda: key


def _layers(unet: Architecture, compute_dtype: str, rngs: nnx.Rngs) -> Layers:
    dtype = jnp.bfloat16 if compute_dtype == "bfloat16" else None
    if isinstance(unet, SongUNetConfig):
        return SongUNet(unet, dtype, rngs)
    if isinstance(unet, ADMConfig):
        return ADM(unet, dtype, rngs)
    if isinstance(unet, DiTConfig):
        return DiT(unet, dtype, rngs)
    if isinstance(unet, TutorialUNetConfig):
        return TutorialUNet(unet, dtype, rngs)
    if isinstance(unet, EDM2Config):
        return EDM2UNet(unet, dtype, rngs)
    wanted = "an ADMConfig, a SongUNetConfig, a DiTConfig, an EDM2Config or a TutorialUNetConfig"
    raise InputError(f"unet = {type(unet).__name__}: must be {wanted}")
