"""DhariwalUNet, the "ADM" network (Dhariwal and Nichol 2021) as EDM uses it, for one image of shape (H, W, C)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Float

from dgu.errors import require
from dgu.models.blocks import ADM_INIT, BlockSpec, UNetBlock, conv, group_norm, linear, positional_embedding
from dgu.typing import Key


@dataclass(frozen=True)
class ADMConfig:
    """The architecture of a DhariwalUNet. Defaults are the published ImageNet-64 model's.

    Level ``l`` works at resolution ``img_resolution >> l`` with ``model_channels * channel_mult[l]`` channels. Attention is
    used at the resolutions listed and in the middle of the network, with ``channels // 64`` heads: below 64 channels there is none.
    """

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int = 0
    augment_dim: int = 0
    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    channel_mult_emb: int = 4
    num_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (32, 16, 8)
    dropout: float = 0.10
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        levels = len(self.channel_mult)
        require(
            levels >= 1 and min(self.channel_mult) >= 1,
            "channel_mult",
            self.channel_mult,
            "one or more positive integers",
        )
        step = 2 ** (levels - 1)
        require(
            self.img_resolution >= step and self.img_resolution % step == 0,
            "img_resolution",
            self.img_resolution,
            f"a positive multiple of {step} for {levels} levels (channel_mult {self.channel_mult})",
        )
        for name in ("in_channels", "out_channels", "model_channels", "channel_mult_emb", "num_blocks"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("label_dim", "augment_dim"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for mult in self.channel_mult:
            channels = mult * self.model_channels
            divides = channels >= 4 and channels % min(32, channels // 4) == 0
            require(
                divides,
                "model_channels",
                self.model_channels,
                "divisible into min(32, channels // 4) groups at each level",
            )
        for name in ("dropout", "label_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")

    @cached_property
    def encoder(self) -> tuple[tuple[str, BlockSpec | int], ...]:
        """Names and blocks in order; the input convolution is given by its number of output channels."""
        layers: list[tuple[str, BlockSpec | int]] = []
        channels = self.channel_mult[0] * self.model_channels
        for level, mult in enumerate(self.channel_mult):
            res = self.img_resolution >> level
            if level == 0:
                layers.append((f"{res}x{res}_conv", channels))
            else:
                layers.append((f"{res}x{res}_down", BlockSpec(channels, channels, "down")))
            for i in range(self.num_blocks):
                out = mult * self.model_channels
                layers.append((f"{res}x{res}_block{i}", BlockSpec(channels, out, None, self._heads(out, res))))
                channels = out
        return tuple(layers)

    @cached_property
    def decoder(self) -> tuple[tuple[str, BlockSpec, bool], ...]:
        """Names, blocks, and whether the block takes a skip connection from the encoder, in order."""
        skips = [spec if isinstance(spec, int) else spec.out for _, spec in self.encoder]
        layers: list[tuple[str, BlockSpec, bool]] = []
        channels = skips[-1]
        for level, mult in reversed(list(enumerate(self.channel_mult))):
            res = self.img_resolution >> level
            if level == len(self.channel_mult) - 1:
                layers.append((f"{res}x{res}_in0", BlockSpec(channels, channels, None, channels // 64), False))
                layers.append((f"{res}x{res}_in1", BlockSpec(channels, channels), False))
            else:
                layers.append((f"{res}x{res}_up", BlockSpec(channels, channels, "up"), False))
            for i in range(self.num_blocks + 1):
                out = mult * self.model_channels
                spec = BlockSpec(channels + skips.pop(), out, None, self._heads(out, res))
                layers.append((f"{res}x{res}_block{i}", spec, True))
                channels = out
        return tuple(layers)

    def _heads(self, channels: int, resolution: int) -> int:
        return channels // 64 if resolution in self.attn_resolutions else 0


class ADM(nnx.Module):
    """``F(x; c_noise, label, augment_label)``; see section 2.1 of the architecture in ``ADMConfig``.

    Names follow the reference's state dict: ``map_layer0``, ``enc.16x16_conv``, ``dec.8x8_in0.norm0``, ``out_conv`` ...
    """

    def __init__(self, config: ADMConfig, dtype: DTypeLike | None, rngs: nnx.Rngs):
        init = ADM_INIT
        width = config.model_channels
        embedding = width * config.channel_mult_emb
        self.config = config
        self.map_layer0 = linear(width, embedding, init, None, rngs)
        self.map_layer1 = linear(embedding, embedding, init, None, rngs)
        if config.label_dim:
            unit_normal = variance_scaling(float(config.label_dim), "fan_in", "normal")
            self.map_label = nnx.Linear(config.label_dim, embedding, use_bias=False, kernel_init=unit_normal, rngs=rngs)
        if config.augment_dim:
            zeros = nnx.initializers.zeros
            self.map_augment = nnx.Linear(config.augment_dim, width, use_bias=False, kernel_init=zeros, rngs=rngs)

        def block(spec: BlockSpec) -> UNetBlock:
            return UNetBlock(spec, embedding, config.dropout, init, dtype, rngs)

        def first(channels: int) -> nnx.Conv:
            return conv(config.in_channels, channels, 3, init, dtype, rngs)

        self.enc = nnx.Dict({n: first(s) if isinstance(s, int) else block(s) for n, s in config.encoder})
        self.dec = nnx.Dict({n: block(s) for n, s, _ in config.decoder})
        channels = config.channel_mult[0] * width
        self.out_norm = group_norm(channels, 1e-5, dtype, rngs)
        self.out_conv = conv(channels, config.out_channels, 3, init, dtype, rngs, zero=True)

    def __call__(
        self,
        x: Float[Array, "h w c"],
        c_noise: Float[Array, ""],
        label: Float[Array, "l"] | None = None,
        augment_label: Float[Array, "a"] | None = None,
        key: Key | None = None,
    ) -> Float[Array, "h w o"]:
        """The raw network output, in the dtype of ``x``; ``key`` switches dropout and label dropout on (training)."""
        config = self.config

        def layer_key(address: int) -> Key | None:
            return None if key is None else jax.random.fold_in(key, address)

        e = positional_embedding(c_noise, config.model_channels)
        if config.augment_dim and augment_label is not None:
            e = e + self.map_augment(augment_label.astype(e.dtype))
        e = self.map_layer1(jax.nn.silu(self.map_layer0(e)))
        if config.label_dim and label is not None:
            label = label.astype(e.dtype)
            if key is not None and config.label_dropout:
                keep = jax.random.bernoulli(jax.random.fold_in(key, 0), 1 - config.label_dropout)
                label = label * keep.astype(e.dtype)
            e = e + self.map_label(label)
        e = jax.nn.silu(e).astype(x.dtype)

        skips = []
        for i, (name, spec) in enumerate(config.encoder):
            layer: Any = self.enc[name]
            x = layer(x) if isinstance(spec, int) else layer(x, e, layer_key(1 + i))
            skips.append(x)
        for i, (name, _, takes_skip) in enumerate(config.decoder):
            if takes_skip:
                x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = self.dec[name](x, e, layer_key(1 + len(config.encoder) + i))
        return self.out_conv(jax.nn.silu(self.out_norm(x)))
