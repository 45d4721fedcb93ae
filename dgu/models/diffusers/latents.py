"""Images of latents, in the scale that diffusion models of latents have."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_examples
from dgu.core.errors import require
from dgu.models.diffusers.autoencoder import AutoencoderKL

#: How a diffusion model scales the latents z of an autoencoder: as they are; ``scaling_factor (z - shift_factor)`` of
#: the autoencoder's configuration (diffusers); or to mean 0 and standard deviation 1/2 in each of four channels (EDM2).
Scale = Literal["none", "diffusers", "edm2"]
#: Mean and standard deviation of the four channels of Stable Diffusion's latents of ImageNet (arXiv 2312.02696).
_EDM2_MEAN, _EDM2_STD = (5.81, 3.25, 0.12, -2.15), (4.17, 4.62, 3.71, 3.28)


def unscaled(autoencoder: AutoencoderKL, latents: Num[ArrayLike, "n h w z"], scale: Scale) -> Float[Array, "n h w z"]:
    """Latents as the autoencoder takes them, of those that a diffusion model makes.

    Raises:
        InputError: another name of a scale, other channels than the autoencoder's, or EDM2's scale for other than four.
    """
    require(scale in get_args(Scale), "scale", scale, f"one of {', '.join(get_args(Scale))}")
    z = jnp.asarray(as_examples("latents", latents))
    channels = autoencoder.config.latent_channels
    require(z.shape[-1] == channels, "latents.shape", z.shape, f"(n, h, w, {channels}), as the autoencoder has them")
    if scale == "none":
        return z
    if scale == "diffusers":
        return z / autoencoder.config.scaling_factor + (autoencoder.config.shift_factor or 0.0)
    require(channels == 4, "scale", scale, "none or diffusers for an autoencoder without four channels of latents")
    mean, std = (jnp.asarray(values, z.dtype)[None, None, None] for values in (_EDM2_MEAN, _EDM2_STD))
    return z * (std / 0.5) + mean


def decoded(autoencoder: AutoencoderKL, latents: Num[ArrayLike, "n h w z"], scale: Scale) -> np.ndarray:
    """The images (n, H, W, C) of latents that a diffusion model makes, one after another.

    Raises:
        InputError: as ``unscaled``.
    """
    return np.asarray(_decode(autoencoder, unscaled(autoencoder, latents, scale)))


@jax.jit
def _decode(autoencoder: AutoencoderKL, z: Float[Array, "n h w z"]) -> Float[Array, "n h2 w2 c"]:
    # In turn: the activations of one image of 512 x 512 pixels take a gigabyte.
    return jax.lax.map(autoencoder.decode, z)
