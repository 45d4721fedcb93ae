"""Layers of diffusers' networks for ONE image of shape (H, W, C); attribute names follow the reference's parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from dgu.models.blocks import ADM_INIT, GroupNorm
from dgu.models.blocks import conv as make_conv
from dgu.models.blocks import linear as make_linear
from dgu.models.convolution import Conv, convolve
from dgu.models.resampling import Taps, downsample, resampled_conv, upsample

#: Taps of the filters: the mean of neighbours, and the smoother one of NCSN++.
BOX: Taps = (1.0, 1.0)
FIR: Taps = (1.0, 3.0, 3.0, 1.0)

_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
}


def activation(name: str) -> Callable[[Any], Any]:
    """The function of ``act_fn``; GELU is the exact one."""
    return _ACTIVATIONS[name]


def conv(inp: int, out: int, size: int, rngs: nnx.Rngs) -> Conv:
    """A convolution with zeros around the image, at stride 1."""
    return make_conv(inp, out, size, ADM_INIT, None, rngs)


def linear(inp: int, out: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer with a bias."""
    return make_linear(inp, out, ADM_INIT, None, rngs)


def group_norm(channels: int, groups: int | None, epsilon: float, rngs: nnx.Rngs) -> GroupNorm:
    """Group normalisation; without a number of groups there are ``min(32, channels // 4)``."""
    return GroupNorm(channels, num_groups=groups or min(32, channels // 4), epsilon=epsilon, rngs=rngs)


def numbered(modules: Sequence[nnx.Module]) -> Any:  # An nnx.Dict, whose own hints are deprecated.
    """Modules under the names "0", "1", ... as in the reference's lists."""
    return nnx.Dict({str(place): module for place, module in enumerate(modules)})


class Resnet(nnx.Module):
    """A residual block, of which the embedding is added to or scales the second normalisation, or is not there.

    ``(shortcut(x) + conv2(act(norm2(conv1(act(norm1(x))), e)))) / divisor``; a block that resamples does so to ``x``
    and to what ``conv1`` takes.

    Args:
        inp, out: channels.
        rngs: of the parameters at the start.
        embedding: width of the embedding; 0 for none.
        groups: of both normalisations, or a pair of numbers; None as ``group_norm`` says.
        epsilon: of the normalisations.
        act: name of the activation.
        scales: the embedding scales and shifts; else it is added.
        divisor: of the sum.
        resample: ``"up"``, ``"down"`` or None.
        taps: the filter of the resampling.
        shortcut: a 1 x 1 convolution of ``x`` even where the channels do not change.
    """

    def __init__(
        self,
        inp: int,
        out: int,
        rngs: nnx.Rngs,
        *,
        embedding: int,
        groups: int | tuple[int | None, int | None] | None,
        epsilon: float,
        act: str,
        scales: bool = False,
        divisor: float = 1.0,
        resample: str | None = None,
        taps: Taps = BOX,
        shortcut: bool = False,
    ):
        first, second = groups if isinstance(groups, tuple) else (groups, groups)
        self.act, self.scales, self.divisor, self.resample, self.taps = act, scales, divisor, resample, taps
        self.norm1 = group_norm(inp, first, epsilon, rngs)
        self.conv1 = conv(inp, out, 3, rngs)
        self.norm2 = group_norm(out, second, epsilon, rngs)
        self.conv2 = conv(out, out, 3, rngs)
        self.embeds = embedding > 0
        if self.embeds:
            self.time_emb_proj = linear(embedding, 2 * out if scales else out, rngs)
        self.projects = shortcut or inp != out
        if self.projects:
            self.conv_shortcut = conv(inp, out, 1, rngs)

    def __call__(self, x: Float[Array, "h w c"], embedding: Float[Array, " e"] | None) -> Float[Array, "h2 w2 o"]:
        act = activation(self.act)
        h = resampled_conv(self.conv1, act(self.norm1(x)), self.resample, self.taps)
        if self.resample is not None:
            x = (upsample if self.resample == "up" else downsample)(x, self.taps)
        if not self.embeds:
            h = self.norm2(h)
        else:
            e = self.time_emb_proj(act(embedding))
            h = self.norm2(h, *jnp.split(e, 2)) if self.scales else self.norm2(h + e[None, None])
        h = self.conv2(act(h))
        return ((self.conv_shortcut(x) if self.projects else x) + h) / self.divisor


class Attention(nnx.Module):
    """Self-attention over all pixels, added to what it is given; heads are slices of channels that lie together.

    Args:
        channels: of the image.
        head_dim: channels of a head; None is one head of all channels. Those that no whole head has are left out.
        norms: whether a normalisation is in front.
        rngs, groups, epsilon, divisor: see ``Resnet``.
    """

    def __init__(
        self,
        channels: int,
        head_dim: int | None,
        rngs: nnx.Rngs,
        *,
        groups: int | None,
        epsilon: float,
        divisor: float = 1.0,
        norms: bool = True,
    ):
        self.heads = channels // (head_dim or channels)
        inner = self.heads * (head_dim or channels)
        self.norms, self.divisor = norms, divisor
        if norms:
            self.group_norm = group_norm(channels, groups, epsilon, rngs)
        self.to_q, self.to_k, self.to_v = (linear(channels, inner, rngs) for _ in range(3))
        self.to_out = nnx.Dict({"0": linear(inner, channels, rngs)})

    def __call__(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        flat = (self.group_norm(x) if self.norms else x).reshape(-1, x.shape[-1])
        q, k, v = (layer(flat).reshape(len(flat), self.heads, -1) for layer in (self.to_q, self.to_k, self.to_v))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        logits = jnp.einsum("qhd,khd->hqk", q, k / jnp.sqrt(k.shape[-1]).astype(k.dtype), preferred_element_type=wide)
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        mixed = jnp.einsum("hqk,khd->qhd", weights, v).reshape(len(flat), -1)
        return (x + self.to_out["0"](mixed).reshape(x.shape)) / self.divisor


class Downsample(nnx.Module):
    """A 3 x 3 convolution at stride 2 with one row and column of zeros: on all sides (``padding`` 1), or at the bottom
    and at the right (0).
    """

    def __init__(self, channels: int, padding: int, rngs: nnx.Rngs):
        self.padding = padding
        self.conv = conv(channels, channels, 3, rngs)

    def __call__(self, x: Float[Array, "h w c"], embedding: Array | None = None) -> Float[Array, "h//2 w//2 c"]:
        # Pixels are put in blocks of 2 x 2, which a kernel of 2 x 2 blocks sees at stride 1.
        h, w, c = x.shape
        blocks = x.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 1, 3, 4).reshape(h // 2, w // 2, 4 * c)
        kernel, p = self.conv.kernel[...].astype(x.dtype), self.padding
        kernel = jnp.pad(kernel, ((p, 1 - p), (p, 1 - p), (0, 0), (0, 0))).reshape(2, 2, 2, 2, c, -1)
        kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * c, -1)
        bias = self.conv.bias[...].astype(x.dtype)  # type: ignore[index]
        return convolve(blocks, kernel, ((p, 1 - p), (p, 1 - p))) + bias[None, None]


class Upsample(nnx.Module):
    """Doubling by the nearest neighbour, and a 3 x 3 convolution."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.conv = conv(channels, channels, 3, rngs)

    def __call__(self, x: Float[Array, "h w c"], embedding: Array | None = None) -> Float[Array, "2*h 2*w c"]:
        return resampled_conv(self.conv, x, "up")


class TwoLinear(nnx.Module):
    """``linear_2(silu(linear_1(features)))``: the embedding of times, and of classes that are numbers."""

    def __init__(self, features: int, width: int, rngs: nnx.Rngs):
        self.linear_1 = linear(features, width, rngs)
        self.linear_2 = linear(width, width, rngs)

    def __call__(self, features: Float[Array, " f"]) -> Float[Array, " e"]:
        return self.linear_2(jax.nn.silu(self.linear_1(features)))


class Table(nnx.Module):
    """Rows of numbers by index, or the frequencies of Fourier features, under the name ``weight``."""

    def __init__(self, shape: tuple[int, ...], rngs: nnx.Rngs):
        self.weight = nnx.Param(jax.random.normal(rngs.params(), shape, jnp.float32))


def positional_features(
    t: Float[Array, ""], channels: int, freq_shift: float, flip_sin_to_cos: bool
) -> Float[Array, " {channels}"]:
    """``[sin(t f), cos(t f)]`` with ``f_i = exp(-ln(10000) i / (channels // 2 - freq_shift))``, the halves swapped by
    ``flip_sin_to_cos``; a zero is behind them where ``channels`` is odd.
    """
    half = channels // 2
    phase = t * jnp.exp(-jnp.log(jnp.asarray(10000.0, t.dtype)) * jnp.arange(half, dtype=t.dtype) / (half - freq_shift))
    halves = [jnp.cos(phase), jnp.sin(phase)] if flip_sin_to_cos else [jnp.sin(phase), jnp.cos(phase)]
    return jnp.pad(jnp.concatenate(halves), (0, channels % 2))
