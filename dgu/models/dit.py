"""DiT: a transformer over patches of an image, steered by the noise level through adaLN-zero (Peebles and Xie 2023).

A ``DiTConfig`` takes the place of a U-Net's in ``EDMNetwork``. Every layer is a matrix product, the patch embedding
too, so that several networks can be trained together by ``vmap`` over their parameters, which convolutions are far too
slow for.
"""

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
from dgu.models.blocks import SONG_INIT, dropped_label, linear, positional_embedding
from dgu.models.dit_config import DiTConfig


def to_patches(x: Float[Array, "h w c"], patch: int) -> Float[Array, "tokens values"]:
    """An image cut into ``patch x patch`` squares, row by row, each flattened (row, column, channel)."""
    h, w, c = x.shape
    cut = x.reshape(h // patch, patch, w // patch, patch, c)
    return cut.transpose(0, 2, 1, 3, 4).reshape((h // patch) * (w // patch), patch * patch * c)


def from_patches(tokens: Float[Array, "tokens values"], patch: int, channels: int) -> Float[Array, "h w c"]:
    """The square image that ``to_patches`` cut."""
    side = round(tokens.shape[0] ** 0.5)
    cut = tokens.reshape(side, side, patch, patch, channels)
    return cut.transpose(0, 2, 1, 3, 4).reshape(side * patch, side * patch, channels)


def position_embedding(side: int, width: int) -> np.ndarray:
    """Fixed embedding of a patch's row and column, ``(side^2, width)``: ``[sin, cos](row w)``, ``[sin, cos](column w)``
    with ``w_i = 10000^(-i / (width / 4))``."""
    frequencies = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    phase = np.arange(side)[:, None] * frequencies
    one = np.concatenate([np.sin(phase), np.cos(phase)], axis=1)
    rows, columns = np.repeat(one, side, axis=0), np.tile(one, (side, 1))
    return np.concatenate([rows, columns], axis=1)


def _normalised(x: Float[Array, "t w"]) -> Float[Array, "t w"]:
    """Every token with mean 0 and variance 1 (epsilon 1e-6), computed in at least float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - wide.mean(axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)


def _modulated(x: Float[Array, "t w"], scale: Float[Array, " w"], shift: Float[Array, " w"]) -> Float[Array, "t w"]:
    return _normalised(x) * (1 + scale)[None] + shift[None]


def _zero_linear(inp: int, out: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nnx.Linear:
    zeros = nnx.initializers.zeros
    return nnx.Linear(inp, out, dtype=dtype, kernel_init=zeros, bias_init=zeros, rngs=rngs)


class DiTBlock(nnx.Module):
    """Attention and a perceptron between modulated normalisations: with ``(t1, s1, g1, t2, s2, g2) =
    modulation(silu(e))``

        x <- x + g1 attention(norm(x) (1 + s1) + t1)
        x <- x + g2 mlp(norm(x) (1 + s2) + t2)

    The modulation starts at zero (adaLN-zero): every block starts as the identity.
    """

    def __init__(self, config: DiTConfig, dtype: DTypeLike | None, rngs: nnx.Rngs):
        width, hidden, init = config.width, config.mlp_ratio * config.width, SONG_INIT
        self.heads = config.heads
        self.qkv = linear(width, 3 * width, init, dtype, rngs)
        self.proj = linear(width, width, init, dtype, rngs)
        self.mlp0 = linear(width, hidden, init, dtype, rngs)
        self.mlp1 = linear(hidden, width, init, dtype, rngs)
        self.modulation = _zero_linear(width, 6 * width, dtype, rngs)

    def __call__(self, x: Float[Array, "t w"], e: Float[Array, " w"]) -> Float[Array, "t w"]:
        t1, s1, g1, t2, s2, g2 = jnp.split(self.modulation(jax.nn.silu(e)), 6)
        x = x + g1[None] * self._attention(_modulated(x, s1, t1))
        return x + g2[None] * self.mlp1(jax.nn.gelu(self.mlp0(_modulated(x, s2, t2)), approximate=True))

    def _attention(self, x: Float[Array, "t w"]) -> Float[Array, "t w"]:
        tokens, width = x.shape
        q, k, v = (part.reshape(tokens, self.heads, -1) for part in jnp.split(self.qkv(x), 3, axis=-1))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        logits = jnp.einsum("qhd,khd->hqk", q, k, preferred_element_type=wide) * (width // self.heads) ** -0.5
        weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        return self.proj(jnp.einsum("hqk,khd->qhd", weights, v).reshape(tokens, width))


class DiT(nnx.Module):
    """``F(x; c_noise, label)`` of the architecture in ``DiTConfig``.

    The noise level is embedded as in EDM's U-Nets, ``e = map1(silu(map0(positional(c_noise)))) + map_label(label)``;
    the last layer starts at zero, so that ``F`` does.
    """

    def __init__(self, config: DiTConfig, dtype: DTypeLike | None, rngs: nnx.Rngs):
        width, values = config.width, config.patch**2
        self.config = config
        self.embed = linear(values * config.in_channels, width, SONG_INIT, dtype, rngs)
        self.map0 = linear(width, width, SONG_INIT, None, rngs)
        self.map1 = linear(width, width, SONG_INIT, None, rngs)
        if config.label_dim:
            self.map_label = linear(config.label_dim, width, SONG_INIT, None, rngs)
        blocks: dict[str, nnx.Module] = {f"block{i}": DiTBlock(config, dtype, rngs) for i in range(config.depth)}
        self.blocks = nnx.Dict(blocks)
        self.modulation = _zero_linear(width, 2 * width, dtype, rngs)
        self.out = _zero_linear(width, values * config.out_channels, dtype, rngs)

    def __call__(
        self,
        x: Float[Array, "h w c"],
        c_noise: Float[Array, ""],
        label: Float[Array, " l"] | None = None,
        augment_label: None = None,
        key: Key | None = None,
        *,
        remat: bool = False,
    ) -> Float[Array, "h w o"]:
        """The raw network output, in the dtype of ``x``; ``key`` switches label dropout on (training).

        With ``remat`` the gradient computes the inside of each block again instead of keeping it.
        """
        key = None if key is None else threefry(key)
        config = self.config
        e = self.map1(jax.nn.silu(self.map0(positional_embedding(c_noise, config.width))))
        if config.label_dim:
            label = jnp.zeros(config.label_dim, e.dtype) if label is None else label.astype(e.dtype)
            e = e + self.map_label(dropped_label(label, config.label_dropout, key))
        e = e.astype(x.dtype)
        places = position_embedding(config.img_resolution // config.patch, config.width)
        h = self.embed(to_patches(x, config.patch)) + jnp.asarray(places, x.dtype)
        for i in range(config.depth):
            block: Any = self.blocks[f"block{i}"]
            h = (jax.checkpoint(block.__call__) if remat else block)(h, e)
        shift, scale = jnp.split(self.modulation(jax.nn.silu(e)), 2)
        return from_patches(self.out(_modulated(h, scale, shift)), config.patch, config.out_channels).astype(x.dtype)
