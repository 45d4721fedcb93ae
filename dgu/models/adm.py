"""DhariwalUNet, the "ADM" network (Dhariwal and Nichol 2021) as EDM uses it, for one image of shape (H, W, C)."""

from functools import partial
from typing import Any

import jax
from flax import nnx
from jax import Array
from jax.nn.initializers import variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Float

from dgu.core.keys import threefry
from dgu.core.typing import Key
from dgu.models.blocks import (
    ADM_INIT,
    ADM_STYLE,
    UNetBlock,
    conv,
    dropped_label,
    group_norm,
    linear,
    positional_embedding,
)
from dgu.models.unet import ADMConfig


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

        block = partial(UNetBlock, style=ADM_STYLE, embedding=embedding, rate=config.dropout, dtype=dtype, rngs=rngs)
        first = partial(conv, config.in_channels, size=3, init=init, dtype=dtype, rngs=rngs)
        self.enc = nnx.Dict({n: first(s) if isinstance(s, int) else block(s) for n, s in config.encoder})
        self.dec = nnx.Dict({n: block(s) for n, s, _ in config.decoder})
        channels = config.channel_mult[0] * width
        self.out_norm = group_norm(channels, 1e-5, dtype, rngs)
        self.out_conv = conv(channels, config.out_channels, 3, init, dtype, rngs, zero=True)

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
        config = self.config

        def layer_key(address: int) -> Key | None:
            return None if key is None else jax.random.fold_in(key, address)

        e = positional_embedding(c_noise, config.model_channels)
        if config.augment_dim and augment_label is not None:
            e = e + self.map_augment(augment_label.astype(e.dtype))
        e = self.map_layer1(jax.nn.silu(self.map_layer0(e)))
        if config.label_dim and label is not None:
            e = e + self.map_label(dropped_label(label.astype(e.dtype), config.label_dropout, layer_key(0)))
        e = jax.nn.silu(e).astype(x.dtype)

        skips = []
        for i, (name, spec) in enumerate(config.encoder):
            layer: Any = self.enc[name]
            x = layer(x) if isinstance(spec, int) else layer.after(x, None, e, layer_key(1 + i), remat=remat)
            skips.append(x)
        for i, (name, _, takes_skip) in enumerate(config.decoder):
            block: Any = self.dec[name]
            skip = skips.pop() if takes_skip else None
            x = block.after(x, skip, e, layer_key(1 + len(config.encoder) + i), remat=remat)
        return self.out_conv(jax.nn.silu(self.out_norm(x)))
