"""The layers of diffusers' AutoencoderKL, for one image of shape (H, W, C)."""

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from dgu.models.diffusers.autoencoder_config import AutoencoderConfig
from dgu.models.diffusers.layers import Attention, Downsample, Resnet, Upsample, conv, group_norm, numbered

_EPSILON = 1e-6


class _Level(nnx.Module):
    """Residual blocks, attention of one head after each where the kind has it, and what halves or doubles the image."""

    def __init__(
        self,
        config: AutoencoderConfig,
        kind: str,
        inp: int,
        out: int,
        layers: int,
        resampler: str | None,
        rngs: nnx.Rngs,
    ):
        widths = [inp] + [out] * (layers - 1)
        self.attends, self.resampler = "Attn" in kind, resampler
        self.resnets = numbered([_resnet(config, width, out, rngs) for width in widths])
        if self.attends:
            self.attentions = numbered([_attention(config, out, rngs) for _ in widths])
        if resampler == "down":
            self.downsamplers = numbered([Downsample(out, 0, rngs)])
        elif resampler == "up":
            self.upsamplers = numbered([Upsample(out, rngs)])

    def __call__(self, x: Array) -> Array:
        for name, resnet in self.resnets.items():
            x = resnet(x, None)
            x = self.attentions[name](x) if self.attends else x
        if self.resampler is None:
            return x
        return (self.downsamplers if self.resampler == "down" else self.upsamplers)["0"](x)


class _Middle(nnx.Module):
    """Two residual blocks, and attention of one head between them."""

    def __init__(self, config: AutoencoderConfig, width: int, rngs: nnx.Rngs):
        self.attends = config.mid_block_add_attention
        self.resnets = numbered([_resnet(config, width, width, rngs) for _ in range(2)])
        if self.attends:
            self.attentions = numbered([_attention(config, width, rngs)])

    def __call__(self, x: Array) -> Array:
        x = self.resnets["0"](x, None)
        x = self.attentions["0"](x) if self.attends else x
        return self.resnets["1"](x, None)


class _Half(nnx.Module):
    """The encoder or the decoder: a convolution, levels, the middle where images are smallest, and a convolution."""

    def __init__(self, config: AutoencoderConfig, rngs: nnx.Rngs, *, encodes: bool):
        widths = config.block_out_channels if encodes else config.block_out_channels[::-1]
        kinds, layers = config.down_block_types, config.layers_per_block
        inp, out = config.in_channels, 2 * config.latent_channels
        if not encodes:
            kinds, layers, inp, out = config.up_block_types, layers + 1, config.latent_channels, config.out_channels
        self.encodes = encodes
        self.conv_in = conv(inp, widths[0], 3, rngs)
        levels = []
        for place, (kind, width) in enumerate(zip(kinds, widths)):
            resampler = None if place == len(widths) - 1 else "down" if encodes else "up"
            levels.append(_Level(config, kind, widths[max(0, place - 1)], width, layers, resampler, rngs))
        self.levels = "down_blocks" if encodes else "up_blocks"
        setattr(self, self.levels, numbered(levels))
        self.mid_block = _Middle(config, config.block_out_channels[-1], rngs)
        self.conv_norm_out = group_norm(widths[-1], config.norm_num_groups, _EPSILON, rngs)
        self.conv_out = conv(widths[-1], out, 3, rngs)

    def __call__(self, x: Array) -> Array:
        x = self.conv_in(x)
        x = x if self.encodes else self.mid_block(x)
        for level in getattr(self, self.levels).values():
            x = level(x)
        x = self.mid_block(x) if self.encodes else x
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class AutoencoderLayers(nnx.Module):
    """Names follow the reference's state dict: ``encoder.down_blocks.0.resnets.0.conv1``, ``quant_conv`` ..."""

    def __init__(self, config: AutoencoderConfig, rngs: nnx.Rngs):
        latent = config.latent_channels
        self.config = config
        self.encoder, self.decoder = (_Half(config, rngs, encodes=encodes) for encodes in (True, False))
        if config.use_quant_conv:
            self.quant_conv = conv(2 * latent, 2 * latent, 1, rngs)
        if config.use_post_quant_conv:
            self.post_quant_conv = conv(latent, latent, 1, rngs)

    def encode(self, x: Float[Array, "h w c"]) -> Float[Array, "hz wz m"]:
        """Mean and log variance of the latents, behind one another."""
        moments = self.encoder(x)
        return self.quant_conv(moments) if self.config.use_quant_conv else moments

    def decode(self, z: Float[Array, "hz wz z"]) -> Float[Array, "h w c"]:
        """The image of a latent."""
        return self.decoder(self.post_quant_conv(z) if self.config.use_post_quant_conv else z)


def _resnet(config: AutoencoderConfig, inp: int, out: int, rngs: nnx.Rngs) -> Resnet:
    return Resnet(inp, out, rngs, embedding=0, groups=config.norm_num_groups, epsilon=_EPSILON, act=config.act_fn)


def _attention(config: AutoencoderConfig, width: int, rngs: nnx.Rngs) -> Attention:
    return Attention(width, None, rngs, groups=config.norm_num_groups, epsilon=_EPSILON)
