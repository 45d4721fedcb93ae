"""Skip-Net: a convolutional encoder and decoder with skip connections, batch normalisation and leaky rectifiers.

A denoising autoencoder for ONE noise level: it is not told which, and predicts the image itself. Batch normalisation
has two faces. In training it uses the mean and variance of the batch, and keeps their running averages. A denoiser must
answer
for one image whatever its company: it uses these averages, which are leaves (``mean``, ``var``) among the parameters,
so that evaluated it is a fixed affine map of each channel. (Normalisation by each image's own statistics would do
without them, but would be another nonlinearity, in a network whose linearity is what is asked.)
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from dgu.core.arrays import as_jax_floats
from dgu.core.errors import require
from dgu.core.keys import seeded, threefry
from dgu.core.typing import Key, PyTree, Scalar
from dgu.models.blocks import ADM_INIT, conv
from dgu.models.convolution import Conv
from dgu.models.resampling import downsample, upsample

#: Slope of the rectifiers for negative inputs.
_SLOPE = 0.2


@dataclass(frozen=True)
class SkipNetwork:
    """A Skip-Net without its parameters: hashable, so it is a static argument of jitted functions.

    Level l works on images of ``img_resolution >> l`` with ``channels[l]`` channels: two convolutions in the encoder, a
    mean of 2 x 2 pixels between levels; in the decoder nearest neighbours, the encoder's output of that level behind
    them, and two convolutions. Each is a 3 x 3 convolution without bias, batch normalisation and a leaky rectifier of
    slope 0.2; a last one with bias gives the image. The convolutions start as PyTorch's do (U(-1, 1) / sqrt(fan_in)).

    Attributes:
        img_resolution: height and width of the images; divisible by ``2^(levels - 1)``.
        img_channels: channels of the images.
        channels: of each level.
        momentum: share of the running averages that a step of training keeps.
    """

    img_resolution: int
    img_channels: int
    channels: tuple[int, ...] = (16, 32, 64)
    momentum: float = 0.9

    def __post_init__(self) -> None:
        usable = 1 <= len(self.channels) <= 16 and min(self.channels) >= 1
        require(usable, "channels", self.channels, "one or more positive integers")
        step = 2 ** (len(self.channels) - 1)
        fits = self.img_resolution >= step and self.img_resolution % step == 0
        allowed = f"a positive multiple of {step} for {len(self.channels)} levels"
        require(fits, "img_resolution", self.img_resolution, allowed)
        require(self.img_channels >= 1, "img_channels", self.img_channels, "1 or more")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, (H, W, C)."""
        return (self.img_resolution, self.img_resolution, self.img_channels)

    def init(self, key: Key) -> PyTree:
        """Parameters at the start: a nested dict of float32 arrays, the running averages (0 and 1) among them."""
        key = threefry(key)
        return nnx.to_pure_dict(nnx.split(SkipNet(self, nnx.Rngs(params=key)))[1])

    def apply(self, params: PyTree, x: Float[Array, "h w c"], sigma: Scalar) -> Float[Array, "h w c"]:
        """The image that the network sees in ``x``, in its dtype, float32 or wider, by the running averages; ``sigma``
        is not looked at.
        """
        x = as_jax_floats("x", x)
        return nnx.merge(_graph(self), params)(x).astype(x.dtype)

    def apply_batch(
        self, params: PyTree, x: Float[Array, "b h w c"], sigma: Scalar
    ) -> tuple[Float[Array, "b h w c"], PyTree]:
        """Training mode: the images by the statistics of this batch, and ``params`` with the running averages moved."""
        # Variables that hold NumPy arrays would be moved in place, the caller's with them.
        params, x = jax.tree.map(jnp.asarray, params), as_jax_floats("x", x)
        module = nnx.merge(_graph(self), params)
        out = module(x, training=True).astype(x.dtype)
        moved = nnx.to_pure_dict(nnx.state(module))
        # An average keeps its own dtype, whatever that of the batch.
        return out, jax.tree.map(lambda old, new: new.astype(old.dtype), params, moved)


@lru_cache(maxsize=32)
def _graph(network: SkipNetwork) -> Any:
    """The graph definition, once per architecture and without computing anything."""
    return nnx.split(nnx.eval_shape(lambda: SkipNet(network, nnx.Rngs(params=seeded(0)))))[0]


class Layer(nnx.Module):
    """``leaky(norm(conv(x)))`` of one image, or in training of a batch."""

    def __init__(self, inp: int, out: int, momentum: float, rngs: nnx.Rngs):
        self.conv = Conv(inp, out, (3, 3), use_bias=False, kernel_init=ADM_INIT.kernel, rngs=rngs)
        # Two passes for the variance: the other way loses digits in float32.
        self.norm = nnx.BatchNorm(out, momentum=momentum, epsilon=1e-5, use_fast_variance=False, rngs=rngs)

    def __call__(self, x: Float[Array, "*b h w c"], training: bool) -> Float[Array, "*b h w c2"]:
        return jax.nn.leaky_relu(self.norm(self.conv(x), use_running_average=not training), _SLOPE)


class SkipNet(nnx.Module):
    """The layers of a ``SkipNetwork``: ``enc.level0_conv0``, ..., ``dec.level0_conv1``, ``out``."""

    def __init__(self, network: SkipNetwork, rngs: nnx.Rngs):
        channels, momentum = network.channels, network.momentum
        self.levels = len(channels)
        enc: dict[str, nnx.Module] = {}
        dec: dict[str, nnx.Module] = {}
        before = network.img_channels
        for level, width in enumerate(channels):
            enc[f"level{level}_conv0"] = Layer(before, width, momentum, rngs)
            enc[f"level{level}_conv1"] = Layer(width, width, momentum, rngs)
            before = width
        for level in reversed(range(len(channels) - 1)):
            width = channels[level]
            dec[f"level{level}_conv0"] = Layer(before + width, width, momentum, rngs)
            dec[f"level{level}_conv1"] = Layer(width, width, momentum, rngs)
            before = width
        self.enc, self.dec = nnx.Dict(enc), nnx.Dict(dec)
        self.out = conv(before, network.img_channels, 3, ADM_INIT, None, rngs)

    def __call__(self, x: Float[Array, "*b h w c"], *, training: bool = False) -> Float[Array, "*b h w c"]:
        """One image, or with ``training`` a batch, whose statistics then move the running averages."""

        def each(function: Any, x: Array) -> Array:
            return jax.vmap(function)(x) if training else function(x)

        skips = []
        for level in range(self.levels):
            x = each(downsample, x) if level else x
            x = self.enc[f"level{level}_conv1"](self.enc[f"level{level}_conv0"](x, training), training)
            skips.append(x)
        x = skips.pop()
        for level in reversed(range(self.levels - 1)):
            x = jnp.concatenate([each(upsample, x), skips.pop()], axis=-1)
            x = self.dec[f"level{level}_conv1"](self.dec[f"level{level}_conv0"](x, training), training)
        return each(self.out, x)
