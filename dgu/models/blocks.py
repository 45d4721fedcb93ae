"""Building blocks of the EDM U-Nets, for ONE image of shape (H, W, C).

Modules are ``flax.nnx`` and named after the reference's parameters (``conv0``, ``affine``, ``qkv``), so that weights map one
to one. Only their functional side is used: ``nnx.split`` and ``nnx.merge`` around plain dicts of parameters. Parameters are
float32 and cast to the dtype of the activations where they are used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from dgu.typing import Key, Scalar


@dataclass(frozen=True)
class Initialisers:
    """How the layers of a network start: ordinary layers, and layers that start (nearly) at zero.

    ``kernel`` takes ``(key, shape, dtype)``; ``bias`` takes the layer's fan-in and gives such a function.
    """

    kernel: Callable
    bias: Callable[[int], Callable]
    zero_kernel: Callable


def _uniform(key: Key, shape: tuple[int, ...], dtype: DTypeLike, bound: float) -> Array:
    """``bound * jax.random.uniform(key, shape, dtype, -1, 1)``, drawn as a vector and cut to size.

    A draw depends on an entry's row-major place alone, so the numbers are the same; but programs for draws with four axes take
    seconds to compile, and vectors of a few lengths do for all layers.
    """
    draw = jax.random.uniform(key, (max(4096, 1 << (math.prod(shape) - 1).bit_length()),), dtype, -1, 1)
    return _cut(draw, bound, shape)


@partial(jax.jit, static_argnums=2)
def _cut(draw: Array, bound: Scalar, shape: tuple[int, ...]) -> Array:
    return (draw[: math.prod(shape)] * bound).reshape(shape)


def _uniform_kernel(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    return _uniform(key, shape, dtype, math.prod(shape[:-1]) ** -0.5)


def _uniform_bias(fan_in: int) -> Callable:
    return lambda key, shape, dtype: _uniform(key, shape, dtype, fan_in**-0.5)


#: DhariwalUNet: U(-1, 1) / sqrt(fan_in) for weights and biases; exactly zero for the last layer of each residual branch.
ADM_INIT = Initialisers(kernel=_uniform_kernel, bias=_uniform_bias, zero_kernel=nnx.initializers.zeros)


def conv(
    inp: int, out: int, size: int, init: Initialisers, dtype: DTypeLike | None, rngs: nnx.Rngs, *, zero: bool = False
) -> nnx.Conv:
    """A stride-1 convolution with an odd kernel and zero padding ``size // 2``."""
    return nnx.Conv(
        inp,
        out,
        (size, size),
        padding=size // 2,
        dtype=dtype,
        kernel_init=init.zero_kernel if zero else init.kernel,
        bias_init=nnx.initializers.zeros if zero else init.bias(inp * size * size),
        rngs=rngs,
    )


def linear(
    inp: int, out: int, init: Initialisers, dtype: DTypeLike | None, rngs: nnx.Rngs, *, bias: bool = True
) -> nnx.Linear:
    """A dense layer."""
    return nnx.Linear(
        inp, out, use_bias=bias, dtype=dtype, kernel_init=init.kernel, bias_init=init.bias(inp), rngs=rngs
    )


class GroupNorm(nnx.GroupNorm):
    """Group normalisation of one image, with a modulation: its parameters are those of ``flax.nnx.GroupNorm``.

    ``(x - mean) / sqrt(var + epsilon) * gain + bias``, then ``* (scale + 1) + shift`` where these are given. Two passes
    over ``x``: the variance is the biased one about the mean (the one-pass form loses digits in float32). Statistics
    and result are computed in at least float32.
    """

    def __call__(  # type: ignore[override]
        self, x: Float[Array, "h w c"], scale: Float[Array, "c"] | None = None, shift: Float[Array, "c"] | None = None
    ) -> Float[Array, "h w c"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))

        def group_mean(values: Float[Array, "h w c"]) -> Float[Array, "c"]:
            """The mean over the pixels and channels of each group, for each channel."""
            # Pixels first, and then a small matrix product in place of a mean and a repetition: both keep the loops over
            # pixels free of indexing by group, which XLA does not vectorise on CPUs and which took five times as long.
            means = values.mean((0, 1)).reshape(self.num_groups, -1)
            size = means.shape[-1]
            return jnp.matmul(means, jnp.full((size, size), 1 / size, means.dtype), precision="highest").reshape(-1)

        mean = group_mean(wide)
        deviation = jnp.sqrt(group_mean(jnp.square(wide - mean[None, None])) + self.epsilon)
        gain, offset = self.scale[...], self.bias[...]  # type: ignore[index]
        if scale is not None and shift is not None:
            gain, offset = gain * (scale + 1), offset * (scale + 1) + shift
        # Quotients come last, for one row of channels: XLA would fuse cheaper operations into the loop over pixels.
        factor, offset = gain / deviation, (offset * deviation - mean * gain) / deviation
        return (wide * factor[None, None] + offset[None, None]).astype(x.dtype)


def group_norm(channels: int, epsilon: float, dtype: DTypeLike | None, rngs: nnx.Rngs) -> GroupNorm:
    """Group normalisation with ``min(32, channels // 4)`` groups."""
    return GroupNorm(channels, num_groups=min(32, channels // 4), epsilon=epsilon, dtype=dtype, rngs=rngs)


def upsample(x: Float[Array, "h w c"]) -> Float[Array, "2*h 2*w c"]:
    """Nearest-neighbour doubling: the filter [1, 1] of the reference."""
    return jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1)


def upsampled_conv(layer: nnx.Conv, x: Float[Array, "h w c"]) -> Float[Array, "2*h 2*w o"]:
    """``layer(upsample(x))`` for a 3 x 3 layer, by four 2 x 2 convolutions of ``x``: 4/9 of the multiplications.

    After doubling, two of the three rows under the kernel are copies of one row of ``x``, so that their weights add up:
    the last two for the even rows of the output, the first two for the odd ones. Columns likewise.
    """
    wide = jnp.promote_types(x.dtype, layer.kernel.dtype)
    dtype = wide if layer.dtype is None else layer.dtype
    out = conv_of_doubled(x.astype(dtype), layer.kernel[...].astype(wide))
    return out + layer.bias[...].astype(dtype)[None, None]  # type: ignore[index]


@jax.jit  # For its name in a trace: counts of FLOP by the published order of operations recognise it.
def conv_of_doubled(x: Float[Array, "h w c"], kernel: Float[Array, "3 3 c o"]) -> Float[Array, "2*h 2*w o"]:
    """The 3 x 3 convolution of the doubled ``x``, without doubling; see ``upsampled_conv``."""

    def folded(kernel: Array, axis: int) -> tuple[Array, Array]:
        first, middle, last = jnp.split(kernel, 3, axis)
        return jnp.concatenate([first, middle + last], axis), jnp.concatenate([first + middle, last], axis)

    def phase(kernel: Array, row: int, column: int) -> Array:
        padding = ((1 - row, row), (1 - column, column))
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x[None], kernel.astype(x.dtype), (1, 1), padding, dimension_numbers=layout)[
            0
        ]

    rows = [
        jnp.stack([phase(k, row, column) for column, k in enumerate(folded(by_row, 1))], axis=2)
        for row, by_row in enumerate(folded(kernel, 0))
    ]
    h, w, _ = x.shape
    return jnp.stack(rows, axis=1).reshape(2 * h, 2 * w, -1)


def downsample(x: Float[Array, "h w c"]) -> Float[Array, "h//2 w//2 c"]:
    """The mean of each 2 x 2 block: the filter [1, 1] of the reference."""
    # Sums of slices, not a reduction: XLA fuses them with what comes before.
    rows = x[::2] + x[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) / 4


def dropout(x: Float[Array, "*s"], rate: float, key: Key | None) -> Float[Array, "*s"]:
    """Zero a share ``rate`` of the entries and scale up the rest; the identity when ``key`` is None (evaluation)."""
    if key is None or rate == 0.0:
        return x
    # Drawn as a vector: the same bits as for ``x.shape``, and a fifth of the time to compile.
    kept = jax.random.bernoulli(key, 1 - rate, (x.size,)).reshape(x.shape)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def positional_embedding(c: Float[Array, ""], channels: int) -> Float[Array, "{channels}"]:
    """``[cos(c w), sin(c w)]`` with ``w_i = 10000^(-i / (channels / 2))`` (DhariwalUNet: no endpoint, cosines first)."""
    w = (1 / 10000) ** (jnp.arange(channels // 2, dtype=c.dtype) / (channels // 2))
    return jnp.concatenate([jnp.cos(c * w), jnp.sin(c * w)])


def attention(qkv: Float[Array, "h w qkv"], heads: int) -> Float[Array, "h w c"]:
    """Self-attention over all pixels, ``softmax(q k^T / sqrt(d)) v`` with the weights in at least float32.

    The channels of ``qkv`` are interleaved as in the reference: ``channel = (head * d + i) * 3 + j``, j = 0, 1, 2 for q, k, v.
    """
    h, w, c3 = qkv.shape
    q, k, v = jnp.moveaxis(qkv.reshape(h * w, heads, c3 // (3 * heads), 3), -1, 0)
    wide = jnp.promote_types(qkv.dtype, jnp.float32)
    logits = jnp.einsum("qhd,khd->hqk", q, k / jnp.sqrt(k.shape[-1]).astype(k.dtype), preferred_element_type=wide)
    weights = jax.nn.softmax(logits, axis=-1).astype(qkv.dtype)
    return jnp.einsum("hqk,khd->qhd", weights, v).reshape(h, w, c3 // 3)


@dataclass(frozen=True)
class BlockSpec:
    """One residual block: channels in and out, resampling in front (``"up"``, ``"down"`` or None), attention heads (0: none)."""

    inp: int
    out: int
    resample: str | None = None
    heads: int = 0


class UNetBlock(nnx.Module):
    """The residual block of DhariwalUNet: ``x + conv1(dropout(silu(norm1(conv0(silu(norm0 x))) (s + 1) + t)))``, then attention.

    ``s, t`` are the halves of ``affine(embedding)``. The skip path is resampled too, and projected by a 1 x 1 convolution
    when the number of channels changes.
    """

    def __init__(
        self, spec: BlockSpec, embedding: int, rate: float, init: Initialisers, dtype: DTypeLike | None, rngs: nnx.Rngs
    ):
        make_conv = partial(conv, init=init, dtype=dtype, rngs=rngs)
        make_norm = partial(group_norm, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.spec = spec
        self.rate = rate
        self.norm0 = make_norm(spec.inp)
        self.conv0 = make_conv(spec.inp, spec.out, 3)
        self.affine = linear(embedding, 2 * spec.out, init, dtype, rngs)
        self.norm1 = make_norm(spec.out)
        self.conv1 = make_conv(spec.out, spec.out, 3, zero=True)
        if spec.inp != spec.out:
            self.skip = make_conv(spec.inp, spec.out, 1)
        if spec.heads:
            self.norm2 = make_norm(spec.out)
            self.qkv = make_conv(spec.out, 3 * spec.out, 1)
            self.proj = make_conv(spec.out, spec.out, 1, zero=True)

    def __call__(
        self, x: Float[Array, "h w c"], embedding: Float[Array, "e"], key: Key | None = None
    ) -> Float[Array, "h2 w2 c2"]:
        h = jax.nn.silu(self.norm0(x))
        if self.spec.resample == "up":
            h, x = upsampled_conv(self.conv0, h), upsample(x)
        elif self.spec.resample == "down":
            h, x = self.conv0(downsample(h)), downsample(x)
        else:
            h = self.conv0(h)
        h = jax.nn.silu(self.norm1(h, *jnp.split(self.affine(embedding), 2)))
        h = self.conv1(dropout(h, self.rate, key))
        x = (self.skip(x) if self.spec.inp != self.spec.out else x) + h
        if self.spec.heads:
            x = x + self.proj(attention(self.qkv(self.norm2(x)), self.spec.heads))
        return x
