"""The magnitude-preserving U-Net of EDM2 (Karras et al., arXiv 2312.02696, configuration G), for one image (H, W, C).

Every part keeps the mean square of independent activations of unit variance. With ``normalize(x)`` the division by the
root mean square over some axes (plus 1e-4), a layer's weights are ``normalize(weight) / sqrt(fan_in)`` for each output,
and there are no biases and no group normalisations.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from dgu.core.keys import threefry
from dgu.core.typing import Key, PyTree
from dgu.models.blocks import dropout
from dgu.models.convolution import convolved
from dgu.models.edm2_config import EDM2BlockSpec, EDM2Config
from dgu.models.resampling import downsample, upsample
from dgu.models.songunet import Constant

_EPSILON = 1e-4
#: The root mean square of silu(N(0, 1)), as the published networks have it.
_SILU_RMS = 0.596


def normalize(x: Float[Array, "*s"], axes: tuple[int, ...]) -> Float[Array, "*s"]:
    """``x / (1e-4 + root mean square over axes)``, the norm in at least float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    rms = jnp.sqrt(jnp.mean(jnp.square(wide), axis=axes, keepdims=True))
    return x / (_EPSILON + rms).astype(x.dtype)


def normalized_weight(weight: Float[Array, "*i o"]) -> Float[Array, "*i o"]:
    """A weight whose entries for each output (the last axis) have the mean square 1."""
    return normalize(weight, tuple(range(weight.ndim - 1)))


def with_unit_weights(params: PyTree) -> PyTree:
    """Parameters with every weight normalised; gains and constants as they are."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: normalized_weight(leaf) if path[-1].key == "kernel" else leaf, params
    )


def mp_silu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """``silu(x) / 0.596``."""
    return jax.nn.silu(x) / _SILU_RMS


def mp_sum(a: Float[Array, "*s"], b: Float[Array, "*s"], t: float) -> Float[Array, "*s"]:
    """``((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)``."""
    return ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)


def mp_concatenate(a: Float[Array, "h w c"], b: Float[Array, "h w d"], t: float) -> Float[Array, "h w e"]:
    """The channels of both, scaled so that they contribute ``1 - t`` and ``t`` and the mean square stays."""
    na, nb = a.shape[-1], b.shape[-1]
    whole = math.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return jnp.concatenate([a * (whole * (1 - t) / math.sqrt(na)), b * (whole * t / math.sqrt(nb))], axis=-1)


class MPLayer(nnx.Module):
    """A convolution (kernel (k, k, i, o)) or a dense layer (kernel (i, o)) whose weights have unit magnitude."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike | None, rngs: nnx.Rngs):
        # Drawn as a vector: programs for draws with four axes take seconds to compile.
        draw = jax.random.normal(rngs.params(), (math.prod(shape),), jnp.float32)
        self.kernel = nnx.Param(draw.reshape(shape))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*s i"], gain: Any = None) -> Float[Array, "*s o"]:
        """The layer, its output multiplied by ``gain``."""
        dtype = jnp.promote_types(x.dtype, self.kernel[...].dtype) if self.dtype is None else self.dtype
        kernel = self.kernel[...].astype(jnp.promote_types(dtype, self.kernel[...].dtype))
        factor = 1 / math.sqrt(math.prod(kernel.shape[:-1]))
        kernel = normalized_weight(kernel) * (factor if gain is None else gain[...].astype(kernel.dtype) * factor)
        kernel, x = kernel.astype(dtype), x.astype(dtype)
        return x @ kernel if kernel.ndim == 2 else convolved(x, kernel)


class MPFourier(nnx.Module):
    """``sqrt(2) cos(freqs c + phases)`` with constants ``freqs ~ 2 pi N(0, 1)`` and ``phases ~ 2 pi U(0, 1)``."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.freqs = Constant(2 * math.pi * jax.random.normal(rngs.params(), (channels,), jnp.float32))
        self.phases = Constant(2 * math.pi * jax.random.uniform(rngs.params(), (channels,), jnp.float32))

    def __call__(self, c: Float[Array, ""]) -> Float[Array, " n"]:
        freqs, phases = (jax.lax.stop_gradient(given[...]).astype(c.dtype) for given in (self.freqs, self.phases))
        return jnp.cos(freqs * c + phases) * math.sqrt(2)


def _gain() -> nnx.Param[Any]:
    """A learned gain, 0 at the start."""
    return nnx.Param(jnp.zeros((), jnp.float32))


class EDM2Block(nnx.Module):
    """A residual block, then attention where the spec has heads.

    With ``y = conv_res0(mp_silu(x))`` and ``c = 1 + emb_gain emb_linear(embedding)``, the branch is
    ``conv_res1(mp_silu(y c))`` and ``x <- mp_sum(skip x, branch, res_balance)``. In the encoder the 1 x 1 convolution
    of the skip path and a normalisation of each pixel come before the branch, in the decoder the convolution comes
    after. Attention's queries, keys and values are normalised over the channels of their head. What leaves the block
    is held to ``clip_act``.
    """

    def __init__(self, spec: EDM2BlockSpec, config: EDM2Config, dtype: DTypeLike | None, rngs: nnx.Rngs):
        self.spec, self.config = spec, config
        self.emb_gain = _gain()
        first = spec.inp if spec.decodes else spec.out
        self.conv_res0 = MPLayer((3, 3, first, spec.out), dtype, rngs)
        self.emb_linear = MPLayer((config.embedding_channels, spec.out), None, rngs)
        self.conv_res1 = MPLayer((3, 3, spec.out, spec.out), dtype, rngs)
        if spec.inp != spec.out:
            self.conv_skip = MPLayer((1, 1, spec.inp, spec.out), dtype, rngs)
        if spec.heads:
            self.attn_qkv = MPLayer((1, 1, spec.out, 3 * spec.out), dtype, rngs)
            self.attn_proj = MPLayer((1, 1, spec.out, spec.out), dtype, rngs)

    def __call__(
        self, x: Float[Array, "h w c"], embedding: Float[Array, " e"], key: Key | None = None
    ) -> Float[Array, "h2 w2 c2"]:
        key = None if key is None else threefry(key)
        spec, config = self.spec, self.config
        if spec.resample is not None:
            x = (upsample if spec.resample == "up" else downsample)(x, config.resample_filter)
        if not spec.decodes:
            x = normalize(self._skip(x), (-1,))
        y = self.conv_res0(mp_silu(x))
        scale = self.emb_linear(embedding, self.emb_gain) + 1
        y = mp_silu(y * scale.astype(y.dtype)[None, None])
        y = self.conv_res1(dropout(y, config.dropout, key))
        if spec.decodes:
            x = self._skip(x)
        x = mp_sum(x, y, config.res_balance)
        if spec.heads:
            x = mp_sum(x, self.attn_proj(self._attended(x)), config.attn_balance)
        return x if config.clip_act is None else jnp.clip(x, -config.clip_act, config.clip_act)

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
            joined = x if skip is None else mp_concatenate(x, skip, self.config.concat_balance)
            return self(joined, embedding, key)

        return (jax.checkpoint(run) if remat else run)(x, skip, embedding)

    def _skip(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c2"]:
        return self.conv_skip(x) if self.spec.inp != self.spec.out else x

    def _attended(self, x: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """``softmax(q k^T / sqrt(d)) v`` over all pixels; of the 3 c channels of the layer, the kind (q, k or v) runs
        fastest, then the channel in the head, then the head.
        """
        h, w, c = x.shape
        qkv = self.attn_qkv(x).reshape(h * w, self.spec.heads, c // self.spec.heads, 3)
        q, k, v = jnp.moveaxis(normalize(qkv, (2,)), -1, 0)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        logits = jnp.einsum("qhd,khd->hqk", q, k / math.sqrt(q.shape[-1]), preferred_element_type=wide)
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        return jnp.einsum("hqk,khd->qhd", weights, v).reshape(h, w, c)


class EDM2UNet(nnx.Module):
    """``F(x; c_noise, label)`` of the architecture in ``EDM2Config``, and the log variance ``u``.

    Names follow the reference's state dict: ``emb_noise``, ``enc.16x16_conv``, ``dec.8x8_in0.attn_qkv``, ...
    """

    def __init__(self, config: EDM2Config, dtype: DTypeLike | None, rngs: nnx.Rngs):
        self.config = config
        noise, embedding = config.noise_channels, config.embedding_channels
        self.emb_fourier = MPFourier(noise, rngs)
        self.emb_noise = MPLayer((noise, embedding), None, rngs)
        if config.label_dim:
            self.emb_label = MPLayer((config.label_dim, embedding), None, rngs)
        self.enc = nnx.Dict(
            {
                name: MPLayer((3, 3, config.in_channels + 1, spec), dtype, rngs)
                if isinstance(spec, int)
                else EDM2Block(spec, config, dtype, rngs)
                for name, spec in config.encoder
            }
        )
        self.dec = nnx.Dict({name: EDM2Block(spec, config, dtype, rngs) for name, spec, _ in config.decoder})
        self.out_conv = MPLayer((3, 3, config.decoder[-1][1].out, config.out_channels), dtype, rngs)
        self.out_gain = _gain()
        self.logvar_fourier = MPFourier(config.logvar_channels, rngs)
        self.logvar_linear = MPLayer((config.logvar_channels, 1), None, rngs)

    def __call__(
        self,
        x: Float[Array, "h w c"],
        c_noise: Float[Array, ""],
        label: Float[Array, " l"] | None = None,
        augment_label: Float[Array, " a"] | None = None,
        key: Key | None = None,
        *,
        remat: bool = False,
    ) -> Float[Array, "h w o"]:
        """The raw network output, in the dtype of ``x``; ``key`` switches dropout on (training), augmentation has no
        door here. With ``remat`` the gradient computes the inside of each block again instead of keeping it.
        """
        key = None if key is None else threefry(key)
        config = self.config
        embedding = self._embed(c_noise, label)

        def layer_key(address: int) -> Key | None:
            return None if key is None else jax.random.fold_in(key, address)

        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        skips = []
        for i, (name, spec) in enumerate(config.encoder):
            layer: Any = self.enc[name]
            x = layer(x) if isinstance(spec, int) else layer.after(x, None, embedding, layer_key(i), remat=remat)
            skips.append(x)
        for i, (name, _, takes_skip) in enumerate(config.decoder):
            block: Any = self.dec[name]
            skip = skips.pop() if takes_skip else None
            x = block.after(x, skip, embedding, layer_key(len(config.encoder) + i), remat=remat)
        return self.out_conv(x, self.out_gain)

    def log_variance(self, c_noise: Float[Array, ""]) -> Float[Array, ""]:
        """``u``, the logarithm of the network's own estimate of its weighted squared error (of one entry)."""
        return self.logvar_linear(self.logvar_fourier(c_noise))[0]

    def _embed(self, c_noise: Float[Array, ""], label: Float[Array, " l"] | None) -> Float[Array, " e"]:
        """The embedding of noise level and class; None is the zero vector, which is weighed like any other."""
        config = self.config
        e = self.emb_noise(self.emb_fourier(c_noise))
        if config.label_dim:
            label = jnp.zeros(config.label_dim, e.dtype) if label is None else label.astype(e.dtype)
            e = mp_sum(e, self.emb_label(label * math.sqrt(config.label_dim)), config.label_balance)
        return mp_silu(e)
