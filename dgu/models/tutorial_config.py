"""The architecture of the U-Net of Song's tutorial, as a static description; see ``tutorial_unet`` for the network."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from dgu.core.errors import require

#: Far above any use; they keep the description of a damaged file from taking forever.
_MOST = 2**16


@dataclass(frozen=True)
class TutorialUNetConfig:
    """The architecture; the defaults are the tutorial's.

    Attributes:
        img_resolution: pixels a side; each level must have one left (28, 26, 12, 5, 2).
        in_channels, out_channels: of the image, equal.
        channels: of each level, the finest first. Group normalisation has 4 groups on the way into the first, else 32
            or, where there are fewer channels, one each.
        embedding: entries of the time's embedding, even.
        frequency_scale: standard deviation of its frequencies.
    """

    img_resolution: int = 28
    in_channels: int = 1
    out_channels: int = 1
    channels: tuple[int, ...] = (32, 64, 128, 256)
    embedding: int = 256
    frequency_scale: float = 30.0
    #: It is told of neither classes nor augmentation, and has no blocks of the other architectures.
    label_dim: ClassVar[int] = 0
    label_dropout: ClassVar[float] = 0.0
    augment_dim: ClassVar[int] = 0
    encoder: ClassVar[tuple[Any, ...]] = ()
    decoder: ClassVar[tuple[Any, ...]] = ()

    def __post_init__(self) -> None:
        for name in ("img_resolution", "in_channels", "out_channels", "embedding"):
            value = getattr(self, name)
            require(1 <= value <= _MOST, name, value, f"in 1..{_MOST}")
        require(self.in_channels == self.out_channels, "out_channels", self.out_channels, f"{self.in_channels} here")
        require(self.embedding % 2 == 0, "embedding", self.embedding, "even")
        scale = self.frequency_scale
        require(0 < scale < math.inf, "frequency_scale", scale, "positive and finite")
        fine = 1 <= len(self.channels) <= 16 and all(1 <= c <= _MOST and c % min(32, c) == 0 for c in self.channels)
        fine = fine and self.channels[0] % 4 == 0
        allowed = "1 to 16 numbers, each below 32 or a multiple of it, the first a multiple of 4"
        require(fine, "channels", self.channels[:17], allowed)
        levels = len(self.channels)
        least = 2**levels + 1
        require(self.sizes[-1] >= 1, "img_resolution", self.img_resolution, f"at least {least} for {levels} levels")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pixels a side of each level: two fewer than the image, then ``(s - 1) // 2``."""
        sizes = [self.img_resolution - 2]
        for _ in self.channels[1:]:
            sizes.append((sizes[-1] - 1) // 2)
        return tuple(sizes)
