"""SongUNet, the "DDPM++" and "NCSN++" networks (Song et al. 2021) as EDM uses them, for one image of shape (H, W,
C).
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
from dgu.core.typing import Key
from dgu.models.blocks import (
    SONG_INIT,
    BlockStyle,
    UNetBlock,
    conv,
    dropped_label,
    group_norm,
    linear,
    positional_embedding,
)
from dgu.models.resampling import downsample, resampled_conv, upsample
from dgu.models.unet import SongUNetConfig

_EPSILON = 1e-6


class Constant(nnx.Variable[Any]):
    """A number of the network that training leaves as it is."""


class FourierEmbedding(nnx.Module):
    """``[cos(2 pi f c), sin(2 pi f c)]`` with fixed frequencies ``f ~ 16 N(0, 1)``."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.freqs = Constant(16 * jax.random.normal(rngs.params(), (channels // 2,), jnp.float32))

    def __call__(self, c: Float[Array, ""]) -> Float[Array, " n"]:
        phase = 2 * math.pi * jax.lax.stop_gradient(self.freqs[...]).astype(c.dtype) * c
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])


class SongUNet(nnx.Module):
    """``F(x; c_noise, label, augment_label)`` of the architecture in ``SongUNetConfig``.

    Names follow the reference's state dict: ``map_layer0``, ``enc.16x16_conv``, ``enc.8x8_aux_residual``,
    ``dec.16x16_aux_conv`` ...
    """

    def __init__(self, config: SongUNetConfig, dtype: DTypeLike | None, rngs: nnx.Rngs):
        init, taps = SONG_INIT, config.resample_filter
        style = BlockStyle(init, _EPSILON, scales=False, skip_scale=0.5**0.5, project_resampled=True, taps=taps)
        noise = config.model_channels * config.channel_mult_noise
        embedding = config.model_channels * config.channel_mult_emb
        self.config = config
        if config.embedding_type == "fourier":
            self.map_noise = FourierEmbedding(noise, rngs)
        if config.label_dim:
            self.map_label = linear(config.label_dim, noise, init, None, rngs)
        if config.augment_dim:
            self.map_augment = linear(config.augment_dim, noise, init, None, rngs, bias=False)
        self.map_layer0 = linear(noise, embedding, init, None, rngs)
        self.map_layer1 = linear(embedding, embedding, init, None, rngs)

        enc: dict[str, nnx.Module] = {}
        aux = config.in_channels
        for name, spec in config.encoder:
            if isinstance(spec, int):
                enc[name] = conv(config.in_channels, spec, 3, init, dtype, rngs)
                continue
            enc[name] = UNetBlock(spec, style, embedding, config.dropout, dtype, rngs)
            if spec.resample == "down" and config.encoder_type == "skip":
                enc[_aux(name, "skip")] = conv(aux, spec.out, 1, init, dtype, rngs)
            elif spec.resample == "down" and config.encoder_type == "residual":
                enc[_aux(name, "residual")] = conv(aux, spec.out, 3, init, dtype, rngs)
                aux = spec.out
        self.enc = nnx.Dict(enc)

        dec: dict[str, nnx.Module] = {}
        for name, spec, _ in config.decoder:
            dec[name] = UNetBlock(spec, style, embedding, config.dropout, dtype, rngs)
            if _gives_image(config, name):
                dec[_aux(name, "norm")] = group_norm(spec.out, _EPSILON, dtype, rngs)
                dec[_aux(name, "conv")] = conv(spec.out, config.out_channels, 3, init, dtype, rngs, zero=True)
        self.dec = nnx.Dict(dec)

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
        """The raw network output, in the dtype of ``x``; ``key`` switches dropout and label dropout on (training).

        With ``remat`` the gradient computes the inside of each block again instead of keeping it.
        """
        key = None if key is None else threefry(key)
        config, taps = self.config, self.config.resample_filter

        def layer_key(address: int) -> Key | None:
            return None if key is None else jax.random.fold_in(key, address)

        e = self._embed(c_noise, label, augment_label, layer_key(0)).astype(x.dtype)
        skips = []
        aux = x
        for i, (name, spec) in enumerate(config.encoder):
            layer: Any = self.enc[name]
            x = layer(x) if isinstance(spec, int) else layer.after(x, None, e, layer_key(1 + i), remat=remat)
            if not isinstance(spec, int) and spec.resample == "down":
                if config.encoder_type == "skip":
                    aux = downsample(aux, taps)
                    x = x + self.enc[_aux(name, "skip")](aux)
                elif config.encoder_type == "residual":
                    residual: Any = self.enc[_aux(name, "residual")]
                    halved = resampled_conv(residual, aux, "down", taps, fused=True)
                    x = aux = (x + halved) * 0.5**0.5
            skips.append(x)
        image: Any = None
        for i, (name, _, takes_skip) in enumerate(config.decoder):
            block: Any = self.dec[name]
            skip = skips.pop() if takes_skip else None
            x = block.after(x, skip, e, layer_key(1 + len(config.encoder) + i), remat=remat)
            if _gives_image(config, name):
                y = self.dec[_aux(name, "conv")](jax.nn.silu(self.dec[_aux(name, "norm")](x)))
                image = y if image is None else y + upsample(image, taps)
        return image

    def _embed(
        self,
        c_noise: Float[Array, ""],
        label: Float[Array, " l"] | None,
        augment_label: Float[Array, " a"] | None,
        key: Key | None,
    ) -> Float[Array, " e"]:
        """The embedding of noise level, class (None is the zero vector: the layer has a bias) and augmentation."""
        config = self.config
        if config.embedding_type == "fourier":
            e = self.map_noise(c_noise)
        else:
            e = positional_embedding(c_noise, config.model_channels * config.channel_mult_noise, endpoint=True)
        e = jnp.roll(e, e.size // 2)  # Sines first.
        if config.label_dim:
            label = jnp.zeros(config.label_dim, e.dtype) if label is None else label.astype(e.dtype)
            e = e + self.map_label(dropped_label(label, config.label_dropout, key) * math.sqrt(config.label_dim))
        if config.augment_dim and augment_label is not None:
            e = e + self.map_augment(augment_label.astype(e.dtype))
        return jax.nn.silu(self.map_layer1(jax.nn.silu(self.map_layer0(e))))


def _aux(block: str, name: str) -> str:
    """Name of an auxiliary layer at the level of a block."""
    return f"{block.split('_')[0]}_aux_{name}"


def _gives_image(config: SongUNetConfig, block: str) -> bool:
    """Whether an image is read off behind this decoder block: the last one of the finest level, or with ``skip`` of
    each.
    """
    resolution, kind = block.split("_")
    last = kind == f"block{config.num_blocks}"
    return last and (config.decoder_type == "skip" or resolution == f"{config.img_resolution}x{config.img_resolution}")
