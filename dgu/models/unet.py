"""The two U-Net architectures of EDM as static descriptions: their layers in order, without JAX and Flax."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dgu.core.errors import require

#: Far above every published network; they keep the description of a damaged file from taking forever.
_LIMITS = {
    "img_resolution": 2**16,
    "in_channels": 2**16,
    "out_channels": 2**16,
    "label_dim": 2**24,
    "augment_dim": 2**16,
    "model_channels": 2**16,
    "channel_mult_emb": 2**8,
    "num_blocks": 2**8,
}


@dataclass(frozen=True)
class BlockSpec:
    """One residual block: channels in and out, resampling in front (``"up"``, ``"down"`` or None), attention heads (0:
    none).
    """

    inp: int
    out: int
    resample: str | None = None
    heads: int = 0


@dataclass(frozen=True)
class UNetConfig:
    """Common arguments of ``ADMConfig`` and ``SongUNetConfig``.

    Level ``l`` works at resolution ``img_resolution >> l`` with ``model_channels * channel_mult[l]`` channels.
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
            lowest = 0 if name in ("label_dim", "augment_dim") else 1
            value = getattr(self, name)
            require(value >= lowest, name, value, f"at least {lowest}")
            require(value <= limit, name, value, f"at most {limit}")
        for name in ("dropout", "label_dropout"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        blocks = [spec for _, spec in self.encoder if isinstance(spec, BlockSpec)]
        blocks += [spec for _, spec, _ in self.decoder]
        divides = all(_normalisable(spec.inp) and _normalisable(spec.out) for spec in blocks)
        allowed = "divisible into min(32, channels // 4) groups at each level and where levels meet"
        require(divides, "model_channels", self.model_channels, allowed)

    @cached_property
    def encoder(self) -> tuple[tuple[str, BlockSpec | int], ...]:
        """Names and blocks in order; the input convolution is given by its number of output channels."""
        layers: list[tuple[str, BlockSpec | int]] = []
        channels = self._input_channels()
        for level, mult in enumerate(self.channel_mult):
            res = self.img_resolution >> level
            if level == 0:
                layers.append((f"{res}x{res}_conv", channels))
            else:
                layers.append((f"{res}x{res}_down", BlockSpec(channels, channels, "down")))
            for i in range(self.num_blocks):
                out = mult * self.model_channels
                heads = self._heads(out) if res in self.attn_resolutions else 0
                layers.append((f"{res}x{res}_block{i}", BlockSpec(channels, out, None, heads)))
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
                layers.append((f"{res}x{res}_in0", BlockSpec(channels, channels, None, self._heads(channels)), False))
                layers.append((f"{res}x{res}_in1", BlockSpec(channels, channels), False))
            else:
                layers.append((f"{res}x{res}_up", BlockSpec(channels, channels, "up"), False))
            for i in range(self.num_blocks + 1):
                out = mult * self.model_channels
                attends = res in self.attn_resolutions and self._decoder_attends(i)
                spec = BlockSpec(channels + skips.pop(), out, None, self._heads(out) if attends else 0)
                layers.append((f"{res}x{res}_block{i}", spec, True))
                channels = out
        return tuple(layers)

    def _input_channels(self) -> int:
        """Channels after the first convolution."""
        return self.channel_mult[0] * self.model_channels

    def _heads(self, channels: int) -> int:
        """Attention heads of a block that has attention; each architecture says how many."""
        raise NotImplementedError

    def _decoder_attends(self, block: int) -> bool:
        """Whether block number ``block`` of a decoder level has attention where the resolution is listed."""
        return True


def _normalisable(channels: int) -> bool:
    return channels >= 4 and channels % min(32, channels // 4) == 0


@dataclass(frozen=True)
class ADMConfig(UNetConfig):
    """The architecture of a DhariwalUNet. Defaults are the published ImageNet-64 model's.

    Level ``l`` works at resolution ``img_resolution >> l`` with ``model_channels * channel_mult[l]`` channels.
    Attention is used at the resolutions listed and in the middle of the network, with ``channels // 64`` heads: below
    64 channels there is none.
    """

    def _heads(self, channels: int) -> int:
        return channels // 64


@dataclass(frozen=True)
class SongUNetConfig(UNetConfig):
    """The architecture of a SongUNet. Defaults are DDPM++'s for FFHQ at 64 x 64 pixels; ``NCSNPP`` has what NCSN++
    changes.

    Attributes:
        embedding_type: of the noise level, ``"positional"`` or ``"fourier"`` (random frequencies, which are not
            trained).
        channel_mult_noise: channels of that embedding over ``model_channels``.
        encoder_type: ``"standard"``; ``"residual"``, where each level adds a learned halving of the level above; or
            ``"skip"``, where each level adds the image, halved by the filter.
        decoder_type: ``"standard"``, or ``"skip"``, where the levels' images add up.
        resample_filter: taps of the resampling filter, an even number of them.

    Attention has one head: at the resolutions listed (in the decoder in the last block only) and in the middle.
    """

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    embedding_type: str = "positional"
    channel_mult_noise: int = 1
    encoder_type: str = "standard"
    decoder_type: str = "standard"
    resample_filter: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in {
            "embedding_type": ("positional", "fourier"),
            "encoder_type": ("standard", "skip", "residual"),
            "decoder_type": ("standard", "skip"),
        }.items():
            value = getattr(self, name)
            require(value in allowed, name, value, f"one of {', '.join(allowed)}")
        require(1 <= self.channel_mult_noise <= 256, "channel_mult_noise", self.channel_mult_noise, "in 1..256")
        taps = self.resample_filter
        usable = 2 <= len(taps) <= 64 and len(taps) % 2 == 0 and math.isfinite(sum(taps)) and sum(taps) != 0
        require(usable, "resample_filter", taps[:64], "an even number of finite taps with a sum other than 0")
        noise = self.model_channels * self.channel_mult_noise
        require(noise % 2 == 0, "model_channels", self.model_channels, "even")

    def _input_channels(self) -> int:
        return self.model_channels

    def _heads(self, channels: int) -> int:
        return 1

    def _decoder_attends(self, block: int) -> bool:
        return block == self.num_blocks


#: What makes an NCSN++ of a DDPM++: ``SongUNetConfig(..., **NCSNPP)``.
NCSNPP: dict[str, Any] = {
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "encoder_type": "residual",
    "resample_filter": (1.0, 3.0, 3.0, 1.0),
}
