"""diffusers' UNet2DModel, for one image of shape (H, W, C)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from dgu.models.diffusers.config import UNet2DConfig
from dgu.models.diffusers.layers import (
    BOX,
    FIR,
    Attention,
    Downsample,
    Resnet,
    Table,
    TwoLinear,
    Upsample,
    conv,
    group_norm,
    numbered,
    positional_features,
)
from dgu.models.resampling import downsample, upsample


class DownBlock(nnx.Module):
    """The residual blocks of a level on the way down, and what halves the image behind them."""

    def __init__(self, unet: UNet2DConfig, level: int, rngs: nnx.Rngs):
        widths, kind = unet.block_out_channels, unet.down_block_types[level]
        inp, out = widths[max(0, level - 1)], widths[level]
        self.skips, self.attends, self.halves = "Skip" in kind, "Attn" in kind, level < len(widths) - 1
        options = _resnet_options(unet, kind)
        inputs = [inp] + [out] * (unet.layers_per_block - 1)
        self.resnets = numbered([_resnet(each, out, rngs, options, self.skips) for each in inputs])
        if self.attends:
            self.attentions = numbered([_attention(unet, kind, out, rngs) for _ in inputs])
        if not self.halves:
            return
        if self.skips:
            self.resnet_down = _resnet(out, out, rngs, options, True, resample="down", taps=FIR, shortcut=True)
            self.skip_conv = conv(3, out, 1, rngs)
        elif kind == "ResnetDownsampleBlock2D" or (self.attends and unet.downsample_type == "resnet"):
            self.downsamplers = numbered([_resnet(out, out, rngs, options, False, resample="down")])
        else:
            self.downsamplers = numbered([Downsample(out, unet.downsample_padding, rngs)])

    def __call__(self, x: Array, e: Array, image: Array) -> tuple[Array, list[Array], Array]:
        """The level's output, what it leaves for the way up, and the running image."""
        left = []
        for name, resnet in self.resnets.items():
            x = resnet(x, e)
            x = self.attentions[name](x) if self.attends else x
            left.append(x)
        if not self.halves:
            return x, left, image
        if self.skips:
            image = downsample(image, FIR)
            x = self.resnet_down(x, e) + self.skip_conv(image)
        else:
            x = self.downsamplers["0"](x, e)
        return x, [*left, x], image


class MidBlock(nnx.Module):
    """Two residual blocks, and attention between them."""

    def __init__(self, unet: UNet2DConfig, rngs: nnx.Rngs):
        width, shared = unet.block_out_channels[-1], unet.resnet_time_scale_shift == "default"
        options = _resnet_options(unet, "") | {"divisor": unet.mid_block_scale_factor}
        self.resnets = numbered([_resnet(width, width, rngs, options, False) for _ in range(2)])
        self.attends = unet.add_attention
        if self.attends:
            self.attentions = numbered(
                [
                    Attention(
                        width,
                        unet.attention_head_dim,
                        rngs,
                        groups=unet.attn_norm_num_groups or unet.norm_num_groups,
                        epsilon=unet.norm_eps,
                        divisor=unet.mid_block_scale_factor,
                        norms=shared or unet.attn_norm_num_groups is not None,
                    )
                ]
            )

    def __call__(self, x: Array, e: Array) -> Array:
        x = self.resnets["0"](x, e)
        x = self.attentions["0"](x) if self.attends else x
        return self.resnets["1"](x, e)


class UpBlock(nnx.Module):
    """The residual blocks of a level on the way up, each of which takes what one on the way down has left, and what
    doubles the image behind them.
    """

    def __init__(self, unet: UNet2DConfig, place: int, taken: tuple[int, ...], rngs: nnx.Rngs):
        widths, kind = unet.block_out_channels[::-1], unet.up_block_types[place]
        inp, out = widths[max(0, place - 1)], widths[place]
        self.skips, self.attends, self.doubles = "Skip" in kind, "Attn" in kind, place < len(widths) - 1
        options = _resnet_options(unet, kind)
        resnets = []
        for left in taken:
            more = {}
            if self.skips:
                # The format of AttnSkipUpBlock2D: a quarter of what was left alone.
                before = inp + left // 4 if self.attends else (inp + left) // 4
                more = {"groups": (min(before, 32), min(out // 4, 32))}
            resnets.append(_resnet(inp + left, out, rngs, options | more, self.skips))
            inp = out
        self.resnets = numbered(resnets)
        if self.attends:
            count = 1 if self.skips else len(taken)
            self.attentions = numbered([_attention(unet, kind, out, rngs) for _ in range(count)])
        if not self.doubles:
            return
        if self.skips:
            self.resnet_up = _resnet(out, out, rngs, options, True, resample="up", taps=FIR, shortcut=True)
            self.skip_norm = group_norm(out, min(out // 4, 32), unet.norm_eps, rngs)
            self.skip_conv = conv(out, 3, 3, rngs)
        elif kind == "ResnetUpsampleBlock2D" or (self.attends and unet.upsample_type == "resnet"):
            self.upsamplers = numbered([_resnet(out, out, rngs, options, False, resample="up")])
        else:
            self.upsamplers = numbered([Upsample(out, rngs)])

    def __call__(self, x: Array, e: Array, left: list[Array], image: Array | None) -> tuple[Array, Array | None]:
        """The level's output and the running image; takes what it needs from the end of ``left``."""
        for name, resnet in self.resnets.items():
            x = resnet(jnp.concatenate([x, left.pop()], axis=-1), e)
            x = self.attentions[name](x) if self.attends and not self.skips else x
        if self.skips:
            x = self.attentions["0"](x) if self.attends else x
            image = None if image is None else upsample(image, FIR)
        if not self.doubles:
            return x, image
        if not self.skips:
            return self.upsamplers["0"](x, e), image
        more = self.skip_conv(jax.nn.silu(self.skip_norm(x)))
        return self.resnet_up(x, e), more if image is None else image + more


class UNet2D(nnx.Module):
    """``F(x; t, label)`` of the architecture in ``UNet2DConfig``.

    Names follow the reference's state dict: ``time_embedding.linear_1``, ``down_blocks.0.resnets.1.conv1``,
    ``mid_block.attentions.0.to_q``, ``up_blocks.0.upsamplers.0.conv``, ``conv_norm_out`` ...
    """

    def __init__(self, unet: UNet2DConfig, rngs: nnx.Rngs):
        widths, first = unet.block_out_channels, unet.block_out_channels[0]
        self.unet = unet
        kind = unet.time_embedding_type
        if kind == "fourier":
            self.time_proj = Table((first,), rngs)
        elif kind == "learned":
            self.time_proj = Table((unet.num_train_timesteps or 0, first), rngs)
        features = 2 * first if kind == "fourier" else first
        self.time_embedding = TwoLinear(features, unet.embedding, rngs)
        if unet.class_labels == "index":
            self.class_embedding: Any = Table((unet.num_class_embeds or 0, unet.embedding), rngs)
        elif unet.class_labels == "timestep":
            self.class_embedding = TwoLinear(features, unet.embedding, rngs)

        self.conv_in = conv(unet.in_channels, first, 3, rngs)
        self.down_blocks = numbered([DownBlock(unet, level, rngs) for level in range(len(widths))])
        if unet.mid_block_type is not None:
            self.mid_block = MidBlock(unet, rngs)
        channels, count = unet.skip_channels[::-1], unet.layers_per_block + 1
        taken = [channels[place * count : (place + 1) * count] for place in range(len(widths))]
        self.up_blocks = numbered([UpBlock(unet, place, each, rngs) for place, each in enumerate(taken)])
        self.conv_norm_out = group_norm(first, unet.norm_num_groups, unet.norm_eps, rngs)
        self.conv_out = conv(first, unet.out_channels, 3, rngs)

    def __call__(
        self, x: Float[Array, "h w c"], t: Float[Array, ""], label: Array | None = None
    ) -> Float[Array, "h w o"]:
        """The raw output in the dtype of ``x``: a label where the network has labels, as ``UNet2DConfig`` says."""
        unet = self.unet
        e = self._embed(t.astype(x.dtype), label)
        x = 2 * x - 1 if unet.center_input_sample else x
        image, running = x, None
        x = self.conv_in(x)
        left = [x]
        for block in self.down_blocks.values():
            x, more, image = block(x, e, image)
            left += more
        if unet.mid_block_type is not None:
            x = self.mid_block(x, e)
        for block in self.up_blocks.values():
            x, running = block(x, e, left, running)
        x = self.conv_out(jax.nn.silu(self.conv_norm_out(x)))
        x = x if running is None else x + running
        return x / t.astype(x.dtype) if unet.time_embedding_type == "fourier" else x

    def _embed(self, t: Float[Array, ""], label: Array | None) -> Float[Array, " e"]:
        unet = self.unet
        e = self.time_embedding(self._features(t))
        if unet.class_labels == "index":
            return e + self.class_embedding.weight[...].astype(e.dtype)[label]
        if unet.class_labels == "timestep":
            return e + self.class_embedding(self._features(jnp.asarray(label, t.dtype)))
        return e if label is None else e + label.astype(e.dtype)

    def _features(self, t: Float[Array, ""]) -> Float[Array, " f"]:
        unet = self.unet
        if unet.time_embedding_type == "positional":
            channels = unet.block_out_channels[0]
            return positional_features(t, channels, unet.freq_shift, unet.flip_sin_to_cos)
        table = self.time_proj.weight[...].astype(t.dtype)
        if unet.time_embedding_type == "learned":
            return table[jax.lax.stop_gradient(t).astype(jnp.int32)]
        phase = 2 * jnp.pi * jax.lax.stop_gradient(table) * jnp.log(t)
        return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])


def _resnet_options(unet: UNet2DConfig, kind: str) -> dict[str, Any]:
    """What the residual blocks of a kind of block have in common."""
    return {
        "embedding": unet.embedding,
        "groups": unet.norm_num_groups,
        "epsilon": unet.norm_eps,
        "act": unet.act_fn,
        "scales": unet.resnet_time_scale_shift == "scale_shift",
        "divisor": 2**0.5 if "Skip" in kind else 1.0,
    }


def _resnet(inp: int, out: int, rngs: nnx.Rngs, options: dict[str, Any], skips: bool, **more: Any) -> Resnet:
    """A residual block; those of Skip blocks have groups of their own."""
    own = (
        {"groups": (min(inp // 4, 32), min(out // 4, 32))} if skips and not isinstance(options["groups"], tuple) else {}
    )
    return Resnet(inp, out, rngs, **(options | own | {"taps": BOX} | more))


def _attention(unet: UNet2DConfig, kind: str, width: int, rngs: nnx.Rngs) -> Attention:
    skips = "Skip" in kind
    groups, divisor = (32, 2**0.5) if skips else (unet.norm_num_groups, 1.0)
    return Attention(width, unet.attention_head_dim, rngs, groups=groups, epsilon=unet.norm_eps, divisor=divisor)
