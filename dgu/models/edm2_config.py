"""The architecture of EDM2 networks as a static description: their layers in order, without JAX and Flax."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from dgu.core.errors import require

#: Far above every published network; they keep the description of a damaged file from taking forever.
_LIMITS = {
    "img_resolution": 2**16,
    "in_channels": 2**16,
    "out_channels": 2**16,
    "model_channels": 2**16,
    "label_dim": 2**24,
    "num_blocks": 2**8,
    "channels_per_head": 2**16,
    "logvar_channels": 2**16,
}
_NONE_ALLOWED = ("label_dim",)


@dataclass(frozen=True)
class EDM2BlockSpec:
    """One residual block: channels in and out, whether it belongs to the decoder, resampling in front (``"up"``,
    ``"down"`` or None), and attention heads (0: no attention).
    """

    inp: int
    out: int
    decodes: bool
    resample: str | None = None
    heads: int = 0


@dataclass(frozen=True)
class EDM2Config:
    """The magnitude-preserving U-Net of EDM2 (Karras et al., arXiv 2312.02696). Defaults are the published ones.

    Level ``l`` works at resolution ``img_resolution >> l`` with ``model_channels * channel_mult[l]`` channels.

    Attributes:
        img_resolution: side of the square images, in pixels.
        in_channels: channels of the images.
        out_channels: channels of the output, as many.
        label_dim: number of classes, 0 for an unconditional network.
        model_channels: channels that the multipliers count in.
        channel_mult: multipliers of the channels, one a level.
        channel_mult_noise: channels of the noise level's embedding over ``model_channels``; None: those of level 0.
        channel_mult_emb: channels of the joint embedding over ``model_channels``; None: those of the widest level.
        num_blocks: blocks a level in the encoder; the decoder has one more.
        attn_resolutions: resolutions with attention; the middle of the network has it in any case.
        label_balance: share of the class's embedding beside the noise level's.
        concat_balance: share of the skip connection beside the decoder's own channels.
        resample_filter: taps of the resampling filter, an even number of them.
        channels_per_head: of the attention; below as many channels there is none.
        dropout: share of the activations that training sets to 0.
        res_balance: share of a residual branch beside what it is added to.
        attn_balance: the same for attention.
        clip_act: largest magnitude that leaves a block; None for no limit.
        logvar_channels: random frequencies behind the uncertainty ``u(sigma)``.
    """

    img_resolution: int
    in_channels: int
    out_channels: int
    label_dim: int = 0
    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    channel_mult_noise: int | None = None
    channel_mult_emb: int | None = None
    num_blocks: int = 3
    attn_resolutions: tuple[int, ...] = (16, 8)
    label_balance: float = 0.5
    concat_balance: float = 0.5
    resample_filter: tuple[float, ...] = (1.0, 1.0)
    channels_per_head: int = 64
    dropout: float = 0.0
    res_balance: float = 0.3
    attn_balance: float = 0.3
    clip_act: float | None = 256.0
    logvar_channels: int = 128
    #: There is no augmentation, and classes are not dropped: unconditional networks are separate.
    augment_dim: ClassVar[int] = 0
    label_dropout: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        levels = len(self.channel_mult)
        valid = 1 <= levels <= 16 and min(self.channel_mult) >= 1 and max(self.channel_mult) <= 2**8
        require(valid, "channel_mult", self.channel_mult[:17], "one or more positive integers (at most 16, up to 256)")
        step = 2 ** (levels - 1)
        require(
            self.img_resolution >= step and self.img_resolution % step == 0,
            "img_resolution",
            self.img_resolution,
            f"a positive multiple of {step} for {levels} levels (channel_mult {self.channel_mult})",
        )
        for name, limit in _LIMITS.items():
            lowest = 0 if name in _NONE_ALLOWED else 1
            require(lowest <= getattr(self, name) <= limit, name, getattr(self, name), f"in {lowest}..{limit}")
        for name in ("channel_mult_noise", "channel_mult_emb"):
            value = getattr(self, name)
            require(value is None or 1 <= value <= 256, name, value, "in 1..256, or None")
        for name in ("label_balance", "concat_balance", "res_balance", "attn_balance"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "in [0, 1]")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        limited = self.clip_act is None or 0 < self.clip_act < math.inf
        require(limited, "clip_act", self.clip_act, "positive and finite, or None")
        taps = self.resample_filter
        usable = 2 <= len(taps) <= 64 and len(taps) % 2 == 0 and math.isfinite(sum(taps)) and sum(taps) != 0
        require(usable, "resample_filter", taps[:64], "an even number of finite taps with a sum other than 0")

    @property
    def noise_channels(self) -> int:
        """Random frequencies behind the embedding of the noise level."""
        return self.model_channels * (
            self.channel_mult[0] if self.channel_mult_noise is None else self.channel_mult_noise
        )

    @property
    def embedding_channels(self) -> int:
        """Channels of the embedding that every block takes."""
        return self.model_channels * (
            max(self.channel_mult) if self.channel_mult_emb is None else self.channel_mult_emb
        )

    @cached_property
    def encoder(self) -> tuple[tuple[str, EDM2BlockSpec | int], ...]:
        """Names and blocks in order; the input convolution is given by its number of output channels."""
        layers: list[tuple[str, EDM2BlockSpec | int]] = []
        channels = self.channel_mult[0] * self.model_channels
        for level, mult in enumerate(self.channel_mult):
            res = self.img_resolution >> level
            if level == 0:
                layers.append((f"{res}x{res}_conv", channels))
            else:
                layers.append((f"{res}x{res}_down", EDM2BlockSpec(channels, channels, False, "down")))
            for i in range(self.num_blocks):
                out = mult * self.model_channels
                layers.append((f"{res}x{res}_block{i}", EDM2BlockSpec(channels, out, False, None, self._at(res, out))))
                channels = out
        return tuple(layers)

    @cached_property
    def decoder(self) -> tuple[tuple[str, EDM2BlockSpec, bool], ...]:
        """Names, blocks, and whether the block takes a skip connection from the encoder, in order."""
        skips = [spec if isinstance(spec, int) else spec.out for _, spec in self.encoder]
        layers: list[tuple[str, EDM2BlockSpec, bool]] = []
        channels = skips[-1]
        for level, mult in reversed(list(enumerate(self.channel_mult))):
            res = self.img_resolution >> level
            if level == len(self.channel_mult) - 1:
                middle = EDM2BlockSpec(channels, channels, True, None, self._heads(channels))
                layers.append((f"{res}x{res}_in0", middle, False))
                layers.append((f"{res}x{res}_in1", EDM2BlockSpec(channels, channels, True), False))
            else:
                layers.append((f"{res}x{res}_up", EDM2BlockSpec(channels, channels, True, "up"), False))
            for i in range(self.num_blocks + 1):
                out = mult * self.model_channels
                spec = EDM2BlockSpec(channels + skips.pop(), out, True, None, self._at(res, out))
                layers.append((f"{res}x{res}_block{i}", spec, True))
                channels = out
        return tuple(layers)

    def _heads(self, channels: int) -> int:
        return channels // self.channels_per_head

    def _at(self, resolution: int, channels: int) -> int:
        """Heads of a block at this resolution."""
        return self._heads(channels) if resolution in self.attn_resolutions else 0
