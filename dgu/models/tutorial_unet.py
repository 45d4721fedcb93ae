"""The time-conditioned U-Net of Song's tutorial on score-based models, for one image of shape (H, W, C).

    e = swish(W [sin(2 pi f t), cos(2 pi f t)] + b),   f ~ scale N(0, 1), frozen
    h_1 = swish(norm(conv x + dense e)), h_2 ... h_L the same with stride 2: 28 -> 26 -> 12 -> 5 -> 2 pixels
    u_L = h_L, u_l = swish(norm(transposed conv [u_(l+1), h_(l+1)] + dense e)), and a last transposed conv of [u_1, h_1]

Convolutions are 3 x 3, unpadded, without bias (the last one has one). The score is the output over the kernel's
standard
deviation: with ``VESDEPreconditioning`` an ``EDMNetwork`` of this architecture estimates it, and trains and samples
like any other. Used by Li et al., arXiv 2311.01797, section 4.2, on images of 28 x 28 pixels.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from dgu.core.keys import threefry
from dgu.core.typing import Key
from dgu.models.blocks import ADM_INIT, GroupNorm, conv, linear
from dgu.models.blocks import _uniform as uniform
from dgu.models.convolution import convolve
from dgu.models.songunet import Constant
from dgu.models.tutorial_config import TutorialUNetConfig

_EPSILON = 1e-5


class TutorialUNet(nnx.Module):
    """``F(x; t)`` of the architecture in ``TutorialUNetConfig``: the score times the kernel's standard deviation."""

    def __init__(self, config: TutorialUNetConfig, dtype: DTypeLike | None, rngs: nnx.Rngs):
        channels, inputs = config.channels, config.embedding
        self.config = config
        frequencies = jax.random.normal(rngs.params(), (inputs // 2,), jnp.float32)
        self.freqs = Constant(config.frequency_scale * frequencies)
        self.embed = linear(inputs, inputs, ADM_INIT, None, rngs)
        down: dict[str, nnx.Module] = {}
        up: dict[str, nnx.Module] = {}
        for level, out in enumerate(channels):
            stride, groups = (2, 32) if level else (1, 4)
            inp = channels[level - 1] if level else config.in_channels
            down[f"level{level}"] = _Level(inp, out, stride, groups, inputs, dtype, rngs, transposed=False)
        for level in range(len(channels) - 1, 0, -1):
            skips = 1 if level == len(channels) - 1 else 2
            inp, out = skips * channels[level], channels[level - 1]
            up[f"level{level}"] = _Level(inp, out, 2, 32, inputs, dtype, rngs, transposed=True)
        self.down, self.up = nnx.Dict(down), nnx.Dict(up)
        skips = 1 if len(channels) == 1 else 2
        self.last = conv(skips * channels[0], config.out_channels, 3, ADM_INIT, dtype, rngs)

    def __call__(
        self,
        x: Float[Array, "h w c"],
        t: Float[Array, ""],
        label: None = None,
        augment_label: None = None,
        key: Key | None = None,
        *,
        remat: bool = False,
    ) -> Float[Array, "h w c"]:
        """The raw output, in the dtype of ``x``; ``key`` is of no use to it: training and evaluation are the same.

        With ``remat`` the gradient computes the inside of each level again instead of keeping it.
        """
        key = None if key is None else threefry(key)

        def run(layer: Callable[..., Any], x: Array, e: Array, size: int) -> Array:
            return (jax.checkpoint(layer, static_argnums=2) if remat else layer)(x, e, size)

        sizes, levels = self.config.sizes, len(self.config.channels)
        phase = 2 * math.pi * jax.lax.stop_gradient(self.freqs[...]).astype(t.dtype) * t
        e = jax.nn.silu(self.embed(jnp.concatenate([jnp.sin(phase), jnp.cos(phase)]))).astype(x.dtype)
        kept: list[Array] = []
        for level in range(levels):
            x = run(self.down[f"level{level}"], x, e, sizes[level])
            kept.append(x)
        for level in range(levels - 1, 0, -1):
            inputs = x if level == levels - 1 else jnp.concatenate([x, kept[level]], axis=-1)
            x = run(self.up[f"level{level}"], inputs, e, sizes[level - 1])
        inputs = x if levels == 1 else jnp.concatenate([x, kept[0]], axis=-1)
        # A transposed convolution of stride 1 is an ordinary one with two rows of zeros around: one here, one of its
        # own.
        return self.last(jnp.pad(inputs, ((1, 1), (1, 1), (0, 0))))


class _Level(nnx.Module):
    """``swish(norm(conv x + dense e))`` with an unpadded 3 x 3 convolution of stride 1 or 2, or a transposed one of
    stride 2.

    Strides are taken apart: blocks of 2 x 2 pixels become channels, and a 2 x 2 convolution of stride 1 does the same,
    by sixteen multiplications for nine. XLA's CPU kernels for gradients of strided convolutions take several times as
    long.
    """

    def __init__(
        self,
        inp: int,
        out: int,
        stride: int,
        groups: int,
        embedding: int,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
        *,
        transposed: bool,
    ):
        self.stride, self.transposed = stride, transposed
        # PyTorch counts the fan-in of a transposed convolution over its outputs.
        bound = (9 * (out if transposed else inp)) ** -0.5
        self.kernel = nnx.Param(uniform(rngs.params(), (3, 3, inp, out), jnp.float32, bound))
        self.dense = linear(embedding, out, ADM_INIT, dtype, rngs)
        self.norm = GroupNorm(out, num_groups=min(groups, out), epsilon=_EPSILON, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "h w c"], e: Float[Array, " e"], size: int) -> Float[Array, "{size} {size} o"]:
        kernel = self.kernel[...].astype(x.dtype)
        if self.transposed:
            x = _transposed(x, kernel, size)
        elif self.stride == 2:
            x = _strided(x, kernel, size)
        else:
            x = _plain(x, kernel)
        return jax.nn.silu(self.norm(x + self.dense(e)[None, None]))


def _plain(x: Float[Array, "h w c"], kernel: Float[Array, "k k c o"]) -> Float[Array, "h2 w2 o"]:
    """The unpadded convolution of stride 1."""
    return convolve(x, kernel, ((0, 0), (0, 0)))


def _strided(x: Float[Array, "h h c"], kernel: Float[Array, "3 3 c o"], size: int) -> Float[Array, "{size} {size} o"]:
    """``out[i, j] = sum_ab x[2 i + a, 2 j + b] kernel[a, b]``, ``size`` rows of it."""
    side, channels = 2 * size + 2, x.shape[-1]
    x = jnp.pad(x, ((0, side - x.shape[0]), (0, side - x.shape[1]), (0, 0)))
    blocks = x.reshape(size + 1, 2, size + 1, 2, channels).transpose(0, 2, 1, 3, 4).reshape(size + 1, size + 1, -1)
    wide = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    wide = wide.reshape(2, 2, 2, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * channels, -1)
    return _plain(blocks, wide)


#: Which tap of three (last axis) the row before and the row itself (first) take for even and odd rows of the output
#: (second).
_TAPS = np.array([[[0, 0, 1], [0, 0, 0]], [[1, 0, 0], [0, 1, 0]]])


def _transposed(
    x: Float[Array, "h h c"], kernel: Float[Array, "3 3 c o"], size: int
) -> Float[Array, "{size} {size} o"]:
    """``out[2 i + a, 2 j + b] = sum_ij x[i, j] kernel[a, b]``, ``2 h + 1`` rows of it, or one more, of zeros."""
    rows, out = x.shape[0] + 1, kernel.shape[-1]
    taps = jnp.asarray(_TAPS, kernel.dtype)
    wide = jnp.einsum("xpa,yqb,abio->xyipqo", taps, taps, kernel, precision=jax.lax.Precision.HIGHEST)
    found = _plain(jnp.pad(x, ((1, 1), (1, 1), (0, 0))), wide.reshape(2, 2, x.shape[-1], 4 * out))
    found = found.reshape(rows, rows, 2, 2, out).transpose(0, 2, 1, 3, 4).reshape(2 * rows, 2 * rows, out)
    return found[:size, :size]
