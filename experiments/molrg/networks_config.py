"""Options of the part that trains networks on mixtures of low-rank Gaussians, and the U-Nets that they describe."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dgu.core.errors import require
from dgu.models import EDMNetwork, SongUNetConfig
from dgu.training import TogetherConfig
from experiments.study import Options, option
from experiments.study.options import renamed

#: The ambient space of the paper: 48 numbers as an image of 4 x 4 pixels in three colours; two components.
SHAPE, COMPONENTS = (4, 4, 3), 2


@dataclass(frozen=True)
class UNetConfig(Options, prefix="networks.unet"):
    """Small U-Nets (DDPM++ with EDM's preconditioning), trained one by one by the library's loop."""

    ranks: tuple[int, ...] = option((3, 6), ge=1)
    """Dimensions of the subspaces of its curves (ID is twice that)."""
    ratios: tuple[float, ...] = option((2.0, 4.0, 8.0, 16.0, 32.0, 64.0), gt=0.0)
    """N / ID of the points of a curve, rising."""
    channels: int = option(16, ge=1)
    """Channels of the first level (the released code: 128)."""
    channel_mult: tuple[int, ...] = option((2, 2), ge=1)
    """Multiple of these at each level (the released code: 2 2 2)."""
    blocks: int = option(1, ge=1)
    """Blocks a level (the released code: 4)."""
    steps: int = option(500, ge=1)
    """Parameter updates (the released code: 11,700)."""
    batch_size: int = option(128, ge=1)
    """Examples an update (the released code: 512)."""
    learning_rate: float = option(3e-3, gt=0.0)
    """Adam's step size."""

    def check(self) -> None:
        """U-Nets of these sizes can be made."""
        with renamed("networks.unet", model_channels="channels", channel_mult="channel_mult", num_blocks="blocks"):
            _ = self.network

    @property
    def network(self) -> EDMNetwork:
        """The U-Net for images of the mixture."""
        side, _, colours = SHAPE
        size: dict[str, Any] = {
            "model_channels": self.channels, "channel_mult": self.channel_mult, "num_blocks": self.blocks
        }  # fmt: skip
        return EDMNetwork(SongUNetConfig(side, colours, colours, **size, attn_resolutions=(), dropout=0.0))


@dataclass(frozen=True)
class Config(Options, prefix="networks"):
    """Networks trained on N draws of a mixture, for several N and dimensions."""

    ranks: tuple[int, ...] = option((3, 4, 6, 8), ge=1)
    """Dimensions d of the two subspaces, two or more, rising; the intrinsic dimension ID is 2 d."""
    ratios: tuple[float, ...] = option((2.0, 4.0, 8.0, 16.0, 32.0, 64.0), gt=0.0)
    """N / ID of the dense networks, rising."""
    seeds: int = option(2, ge=1)
    """Repetitions of each dense network, with another mixture, training set and initialisation."""
    width: int = option(128, ge=1, le=65536)
    """Width of the dense networks."""
    depth: int = option(3, ge=1, le=256)
    """Hidden layers of the dense networks."""
    optimisation: TogetherConfig = field(default_factory=lambda: TogetherConfig(steps=8000, learning_rate=4e-3))
    """Training of the dense networks."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    samples: int = option(1000, ge=20)
    """Samples of each network."""
    fresh: int = option(5000, ge=1)
    """Fresh draws that calibrate the threshold, and for which the score of the true distribution is measured."""
    sampler_steps: int = option(18, ge=2)
    """Heun steps."""
    level: float = option(0.95, gt=0.5, lt=1.0)
    """Score of the true distribution; a network that reaches it generalises."""

    def check(self) -> None:
        """Curves of two points or more, data that fit into the space, and enough draws for the threshold."""
        for name, values, fewest in (
            ("ranks", self.ranks, 2),
            ("ratios", self.ratios, 2),
            ("unet.ranks", self.unet.ranks, 1),
            ("unet.ratios", self.unet.ratios, 2),
        ):
            sound = len(values) >= fewest and list(values) == sorted(set(values))
            require(sound, self.name(name), values, f"{'two' if fewest == 2 else 'one'} or more, rising")
        room = "at most 24, for two orthogonal subspaces of 48 dimensions"
        for prefix, kind in (("", self), ("unet.", self.unet)):
            ranks, ratios = kind.ranks, kind.ratios
            require(2 * ranks[-1] <= 48, self.name(f"{prefix}ranks"), ranks, room)
            require(ratios[0] * 2 * ranks[0] >= 2, self.name(f"{prefix}ratios"), ratios, "such that N is 2 or more")
        least = int(np.ceil(2 / (1 - self.level) - 1e-9))
        require(self.fresh >= least, "networks.fresh", self.fresh, f"{least} or more for this level")

    @property
    def most(self) -> int:
        """The largest N of the dense networks."""
        return round(self.ratios[-1] * COMPONENTS * self.ranks[-1])


_RATIOS = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0, 150.0)
PRESETS = {
    "smoke": Config(
        ranks=(2, 3), ratios=(2.0, 8.0), seeds=2, width=16, depth=1, samples=40, fresh=100, sampler_steps=4,
        optimisation=TogetherConfig(steps=20, batch_size=16, chunk=20),
        unet=UNetConfig(
            ranks=(2,), ratios=(2.0, 8.0), channels=8, channel_mult=(1,), steps=4, batch_size=8,
        ),
    ),
    "default": Config(),
    "paper": Config(
        ranks=(3, 4, 5, 6), ratios=_RATIOS, seeds=10, width=512, samples=5000, fresh=10_000,
        optimisation=TogetherConfig(steps=20_000, batch_size=256),
        unet=UNetConfig(
            ranks=(3, 4, 5, 6), ratios=_RATIOS, channels=128, channel_mult=(2, 2, 2), blocks=4, steps=11_700,
            batch_size=512, learning_rate=1e-3,
        ),
    ),
}  # fmt: skip
