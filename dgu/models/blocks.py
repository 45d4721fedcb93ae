"""Building blocks of the EDM U-Nets, for ONE image of shape (H, W, C).

Modules are ``flax.nnx`` and named after the reference's parameters (``conv0``, ``affine``, ``qkv``), so that weights
map one to one. Only their functional side is used: ``nnx.split`` and ``nnx.merge`` around plain dicts of parameters.
Parameters are float32 and cast to the dtype of the activations where they are used.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from dgu.core.keys import threefry
from dgu.core.typing import Key, Scalar
from dgu.models.convolution import Conv
from dgu.models.resampling import Taps, downsample, resampled_conv, upsample
from dgu.models.unet import BlockSpec


@dataclass(frozen=True)
class Initialisers:
    """How the layers of a network start: ordinary layers, and layers that start (nearly) at zero.

    ``kernel`` takes ``(key, shape, dtype)``; ``bias`` takes the layer's fan-in and gives such a function.
    ``zero_kernel`` is for the last layer of each residual branch and of the network, ``attention_kernel`` for queries,
    keys and values.
    """

    kernel: Callable[..., Any]
    bias: Callable[[int], Callable[..., Any]]
    zero_kernel: Callable[..., Any]
    attention_kernel: Callable[..., Any]


def _uniform(key: Key, shape: tuple[int, ...], dtype: DTypeLike, bound: float) -> Array:
    """``bound * jax.random.uniform(key, shape, dtype, -1, 1)``, drawn as a vector and cut to size.

    A draw depends on an entry's row-major place alone, so the numbers are the same; but programs for draws with four
    axes take seconds to compile, and vectors of a few lengths do for all layers.
    """
    draw = jax.random.uniform(key, (max(4096, 1 << (math.prod(shape) - 1).bit_length()),), dtype, -1, 1)
    return _cut(draw, bound, shape)


@partial(jax.jit, static_argnums=2)
def _cut(draw: Array, bound: Scalar, shape: tuple[int, ...]) -> Array:
    return (draw[: math.prod(shape)] * bound).reshape(shape)


def _uniform_kernel(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    return _uniform(key, shape, dtype, math.prod(shape[:-1]) ** -0.5)


def _uniform_bias(fan_in: int) -> Callable[..., Any]:
    return lambda key, shape, dtype: _uniform(key, shape, dtype, fan_in**-0.5)


def _xavier(scale: float) -> Callable[..., Any]:
    def kernel(key: Key, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        area = math.prod(shape[:-2])
        return _uniform(key, shape, dtype, scale * math.sqrt(6 / (area * (shape[-2] + shape[-1]))))

    return kernel


#: DhariwalUNet: U(-1, 1) / sqrt(fan_in) for weights and biases; exactly zero for the last layer of each residual
#: branch.
ADM_INIT = Initialisers(
    kernel=_uniform_kernel,
    bias=_uniform_bias,
    zero_kernel=nnx.initializers.zeros,
    attention_kernel=_uniform_kernel,
)
#: SongUNet: U(-1, 1) sqrt(6 / (fan_in + fan_out)), times 1e-5 for the last layer of each residual branch; no biases.
SONG_INIT = Initialisers(
    kernel=_xavier(1.0),
    bias=lambda fan_in: nnx.initializers.zeros,
    zero_kernel=_xavier(1e-5),
    attention_kernel=_xavier(math.sqrt(0.2)),
)


@dataclass(frozen=True)
class BlockStyle:
    """What the residual blocks of the two architectures differ in.

    Attributes:
        init: how parameters start.
        epsilon: of the group normalisations.
        scales: the embedding scales and shifts after the second normalisation (DhariwalUNet); else it is added before
            it.
        skip_scale: factor on each residual sum.
        project_resampled: a skip path with resampling has a 1 x 1 convolution even where the channels do not change.
        taps: the resampling filter.
    """

    init: Initialisers
    epsilon: float
    scales: bool
    skip_scale: float = 1.0
    project_resampled: bool = False
    taps: Taps = (1.0, 1.0)


ADM_STYLE = BlockStyle(init=ADM_INIT, epsilon=1e-5, scales=True)


def conv(
    inp: int,
    out: int,
    size: int,
    init: Initialisers,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    *,
    zero: bool = False,
    attends: bool = False,
) -> Conv:
    """A stride-1 convolution with an odd kernel and zero padding ``size // 2``; ``zero`` and ``attends`` choose its
    start.
    """
    kernel = init.zero_kernel if zero else init.attention_kernel if attends else init.kernel
    return Conv(
        inp,
        out,
        (size, size),
        dtype=dtype,
        kernel_init=kernel,
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
        self, x: Float[Array, "h w c"], scale: Float[Array, " c"] | None = None, shift: Float[Array, " c"] | None = None
    ) -> Float[Array, "h w c"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))

        def group_mean(values: Float[Array, "h w c"]) -> Float[Array, " c"]:
            """The mean over the pixels and channels of each group, for each channel."""
            # Pixels first, and then a small matrix product in place of a mean and a repetition: both keep the loops
            # over pixels free of indexing by group, which XLA does not vectorise on CPUs and which took five times as
            # long.
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


def dropout(x: Float[Array, "*s"], rate: float, key: Key | None) -> Float[Array, "*s"]:
    """Zero a share ``rate`` of the entries and scale up the rest; the identity when ``key`` is None (evaluation)."""
    key = None if key is None else threefry(key)
    if key is None or rate == 0.0:
        return x
    # Drawn as a vector: the same bits as for ``x.shape``, and a fifth of the time to compile.
    kept = jax.random.bernoulli(key, 1 - rate, (x.size,)).reshape(x.shape)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def positional_embedding(c: Float[Array, ""], channels: int, *, endpoint: bool = False) -> Float[Array, " {channels}"]:
    """``[cos(c w), sin(c w)]`` with ``w_i = 10000^(-i / (channels / 2))``; with ``endpoint`` the last ``w`` is
    1/10000.
    """
    exponent = jnp.arange(channels // 2, dtype=c.dtype) / (channels // 2 - endpoint)
    w = (1 / 10000) ** exponent
    return jnp.concatenate([jnp.cos(c * w), jnp.sin(c * w)])


def dropped_label(label: Float[Array, " l"], rate: float, key: Key | None) -> Float[Array, " l"]:
    """The label, or in training (``key`` given), with probability ``rate``, zeros."""
    key = None if key is None else threefry(key)
    if key is None or not rate:
        return label
    return label * jax.random.bernoulli(key, 1 - rate).astype(label.dtype)


def attention(layer: Conv, x: Float[Array, "h w c"], heads: int) -> Float[Array, "h w c"]:
    """Self-attention over all pixels, ``softmax(q k^T / sqrt(d)) v`` with the weights in at least float32.

    ``layer`` is the 1 x 1 convolution that gives q, k and v. Its output channels are interleaved as in the reference:
    ``channel = (head * d + i) * 3 + j``, j = 0, 1, 2 for q, k, v.
    """
    h, w, c = x.shape
    wide = jnp.promote_types(x.dtype, layer.kernel.dtype)
    dtype = wide if layer.dtype is None else layer.dtype
    # The weights are put in order, not the images: fewer numbers, and the copy took a fourteenth of a gradient's time.
    kernel = jnp.moveaxis(layer.kernel[...].reshape(c, c, 3), -1, 1).reshape(c, 3 * c).astype(dtype)
    bias = jnp.moveaxis(layer.bias[...].reshape(c, 3), -1, 0).reshape(1, 3 * c).astype(dtype)  # type: ignore[index]
    qkv = x.reshape(h * w, c).astype(dtype) @ kernel + bias
    q, k, v = (part.reshape(h * w, heads, c // heads) for part in jnp.split(qkv, 3, axis=-1))
    wide = jnp.promote_types(dtype, jnp.float32)
    logits = jnp.einsum("qhd,khd->hqk", q, k / jnp.sqrt(k.shape[-1]).astype(k.dtype), preferred_element_type=wide)
    weights = jax.nn.softmax(logits, axis=-1).astype(dtype)
    return jnp.einsum("hqk,khd->qhd", weights, v).reshape(h, w, c)


class UNetBlock(nnx.Module):
    """A residual block, then attention where the spec has heads.

    With ``p = affine(embedding)``, ``h = conv0(silu(norm0 x))`` (resampling in front of conv0) becomes

        silu(norm1(h) (s + 1) + t), (s, t) = p      with style.scales (DhariwalUNet)
        silu(norm1(h + p))                          without (SongUNet)

    and then ``x <- (skip(x) + conv1(dropout(h))) skip_scale``. The skip path is resampled too, and projected by a 1 x 1
    convolution when the number of channels changes (or always with resampling, see ``BlockStyle``).
    """

    def __init__(
        self, spec: BlockSpec, style: BlockStyle, embedding: int, rate: float, dtype: DTypeLike | None, rngs: nnx.Rngs
    ):
        init = style.init
        make_conv = partial(conv, init=init, dtype=dtype, rngs=rngs)
        make_norm = partial(group_norm, epsilon=style.epsilon, dtype=dtype, rngs=rngs)
        self.spec = spec
        self.style = style
        self.rate = rate
        self.projects = spec.inp != spec.out or (spec.resample is not None and style.project_resampled)
        self.norm0 = make_norm(spec.inp)
        self.conv0 = make_conv(spec.inp, spec.out, 3)
        self.affine = linear(embedding, (2 if style.scales else 1) * spec.out, init, dtype, rngs)
        self.norm1 = make_norm(spec.out)
        self.conv1 = make_conv(spec.out, spec.out, 3, zero=True)
        if self.projects:
            self.skip = make_conv(spec.inp, spec.out, 1)
        if spec.heads:
            self.norm2 = make_norm(spec.out)
            self.qkv = make_conv(spec.out, 3 * spec.out, 1, attends=True)
            self.proj = make_conv(spec.out, spec.out, 1, zero=True)

    def __call__(
        self, x: Float[Array, "h w c"], embedding: Float[Array, " e"], key: Key | None = None
    ) -> Float[Array, "h2 w2 c2"]:
        key = None if key is None else threefry(key)
        spec, style = self.spec, self.style
        h = resampled_conv(self.conv0, jax.nn.silu(self.norm0(x)), spec.resample, style.taps)
        p = self.affine(embedding)
        h = self.norm1(h, *jnp.split(p, 2)) if style.scales else self.norm1(h + p[None, None])
        h = self.conv1(dropout(jax.nn.silu(h), self.rate, key))
        x = self._scaled(self._skip(x) + h)
        if spec.heads:
            x = self._scaled(x + self.proj(attention(self.qkv, self.norm2(x), spec.heads)))
        return x

    def after(
        self,
        x: Float[Array, "h w c"],
        skip: Float[Array, "h w s"] | None,
        embedding: Float[Array, " e"],
        key: Key | None,
        *,
        remat: bool,
    ) -> Float[Array, "h2 w2 c2"]:
        """The block on ``x`` with ``skip`` behind its channels; ``remat`` keeps nothing inside it for the gradient."""
        key = None if key is None else threefry(key)

        def run(x: Array, skip: Array | None, embedding: Array) -> Array:
            return self(x if skip is None else jnp.concatenate([x, skip], axis=-1), embedding, key)

        return (jax.checkpoint(run) if remat else run)(x, skip, embedding)

    def _skip(self, x: Float[Array, "h w c"]) -> Float[Array, "h2 w2 c2"]:
        if self.projects:
            return resampled_conv(self.skip, x, self.spec.resample, self.style.taps)
        if self.spec.resample is None:
            return x
        return (upsample if self.spec.resample == "up" else downsample)(x, self.style.taps)

    def _scaled(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        return x if self.style.skip_scale == 1 else x * self.style.skip_scale
