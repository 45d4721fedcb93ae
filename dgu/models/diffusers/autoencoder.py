"""diffusers' AutoencoderKL: images to latents, and back."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dgu.core.arrays import at_least_single
from dgu.core.errors import CheckpointError, require
from dgu.core.keys import seeded
from dgu.core.reading import guarded
from dgu.core.typing import PyTree
from dgu.models.diffusers.autoencoder_config import AutoencoderConfig, autoencoder_from_config
from dgu.models.diffusers.folder import CONFIG, in_file, named_params, read_config, read_weights, resnet_names

if TYPE_CHECKING:  # Flax is loaded with the layers.
    from dgu.models.diffusers.autoencoder_layers import AutoencoderLayers

#: Between which the logarithm of the latents' variance is kept.
_LOG_VARIANCES = (-30.0, 20.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class AutoencoderKL:
    """An autoencoder with its parameters: a pytree. Latents are of 1 / ``config.step`` of an image's sides.

    Diffusion models of latents see ``config.scaling_factor * (z - (config.shift_factor or 0))`` of a sample z.
    """

    params: PyTree
    config: AutoencoderConfig = field(metadata={"static": True})

    @at_least_single
    def encode(self, x: Float[Array, "h w c"]) -> tuple[Float[Array, "hz wz z"], Float[Array, "hz wz z"]]:
        """Mean and standard deviation of the latents of one NHWC image; their log variance is kept in [-30, 20].

        Raises:
            InputError: ``x`` is no image (H, W, C) whose sides are divisible by ``config.step``.
        """
        wanted, step = self.config.in_channels, self.config.step
        fits = x.ndim == 3 and x.shape[-1] == wanted and all(side > 0 and side % step == 0 for side in x.shape[:2])
        require(fits, "x.shape", x.shape, f"(H, W, {wanted}), one image with sides divisible by {step}")
        mean, log_variance = jnp.split(self._layers().encode(x), 2, axis=-1)
        return mean, jnp.exp(0.5 * jnp.clip(log_variance, *_LOG_VARIANCES))

    @at_least_single
    def decode(self, z: Float[Array, "hz wz z"]) -> Float[Array, "h w c"]:
        """The image of one NHWC latent, as ``encode`` gives it: not scaled by ``scaling_factor``.

        Raises:
            InputError: ``z`` is no latent (H, W, ``latent_channels``).
        """
        wanted = self.config.latent_channels
        require(z.ndim == 3 and z.shape[-1] == wanted and min(z.shape) > 0, "z.shape", z.shape, f"(H, W, {wanted})")
        return self._layers().decode(z)

    def _layers(self) -> "AutoencoderLayers":
        from flax import nnx

        return nnx.merge(_abstract(self.config)[0], self.params)


@lru_cache(maxsize=8)
def _abstract(config: AutoencoderConfig) -> tuple[Any, PyTree]:
    """Graph definition and shapes of the parameters."""
    from flax import nnx

    from dgu.models.diffusers.autoencoder_layers import AutoencoderLayers
    from dgu.models.edm_layers import SameKey

    graph, state = nnx.split(nnx.eval_shape(lambda: AutoencoderLayers(config, SameKey(seeded(0)))))
    return graph, nnx.to_pure_dict(state)


def autoencoder_from_arrays(config: Mapping[str, Any], arrays: Mapping[str, Any]) -> AutoencoderKL:
    """An AutoencoderKL from its ``config.json`` and its tensors under the names of the state dictionary.

    Raises:
        InputError: another class, an unknown block or option, or tensors that are missing, superfluous, misshapen or
            not finite.
    """
    made = autoencoder_from_config(config)
    resnets = resnet_names("encoder.down_blocks", made.block_out_channels, made.layers_per_block)
    return AutoencoderKL(named_params(resnets, lambda: _abstract(made)[1], arrays), made)


def load_autoencoder_kl(folder: str | os.PathLike[str]) -> AutoencoderKL:
    """The autoencoder of a diffusers folder: the network's own, or a pipeline's with ``vae/`` in it.

    Raises:
        CheckpointError: no such folder, a file that is missing or damaged, or what ``autoencoder_from_arrays`` refuses.
    """
    root = Path(folder)
    with guarded(folder, "a folder of diffusers with an AutoencoderKL", error=CheckpointError):
        home = root / "vae" if (root / "vae").is_dir() else root
        config = read_config(home / CONFIG)
        return in_file(folder, lambda: autoencoder_from_arrays(config, read_weights(home)))
