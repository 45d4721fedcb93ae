"""Options of the part that trains networks on mixtures of low-rank Gaussians."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

from dgu.core.errors import require
from dgu.training import TogetherConfig
from experiments.molrg_parts.training import COMPONENTS, SHAPE, small_unet
from experiments.study.options import check_options, renamed


@dataclass(frozen=True)
class UNetConfig:
    """A small DDPM++ with EDM's preconditioning, trained by the library's loop."""

    ranks: tuple[int, ...] = (3, 6)
    """Dimensions of the subspaces of its curves (ID is twice that)."""
    ratios: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    """N / ID of a curve, rising."""
    channels: int = 16
    """Channels of the first level (the released code: 128)."""
    channel_mult: tuple[int, ...] = (2, 2)
    """Multiple of these at each level (the released code: 2 2 2)."""
    blocks: int = 1
    """Blocks a level (the released code: 4)."""
    steps: int = 500
    """Parameter updates (the released code: 11,700)."""
    batch_size: int = 128
    """Examples an update (the released code: 512)."""
    learning_rate: float = 3e-3
    """Adam's step size."""
    real: str | None = None
    """Real images to train on as well (a data set or a path); None leaves them out."""
    real_size: int | None = 14
    """Reduce these to this size by area means; None keeps them."""
    real_counts: tuple[int, ...] = (64, 256, 1024, 4096)
    """Numbers of training images N, rising."""
    real_heldout: int = 2000
    """Further images, not trained on, for the threshold."""
    real_steps: int = 4000
    """Parameter updates on real images."""
    real_channels: int = 32
    """Channels of the first level for real images; (1, 2) times them on two levels."""
    descriptor: Literal["identity", "pca", "sscd"] = "identity"
    """What real images are compared by: pixels, principal components, or SSCD's embedding (colour photographs only)."""
    components: int = 64
    """Principal components, of the held-out images."""
    sscd: str | None = None
    """ONNX file of SSCD."""

    def __post_init__(self) -> None:
        check_options(
            self, "networks.unet", ranks=1, ratios="(0, inf)", channels=1, channel_mult=1, blocks=1, steps=1, batch_size=1,
            learning_rate="(0, inf)", real_size=1, real_counts=2, real_heldout=1, real_steps=1, real_channels=1, components=1,
        )  # fmt: skip
        with renamed("networks.unet", model_channels="channels", channel_mult="channel_mult", num_blocks="blocks"):
            small_unet(SHAPE, self.channels, self.channel_mult, self.blocks)
        with renamed("networks.unet", model_channels="real_channels"):
            small_unet((8, 8, 1), self.real_channels, (1, 2), 1)


@dataclass(frozen=True)
class Config:
    """Networks trained on N draws of a mixture, for several N and dimensions."""

    ranks: tuple[int, ...] = (3, 4, 6, 8)
    """Dimensions d of the two subspaces, two or more, rising; the intrinsic dimension ID is 2 d."""
    ratios: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    """N / ID of the dense networks, rising."""
    seeds: int = 2
    """Laws, data and starts for each of these."""
    width: int = 128
    """Width of the dense networks."""
    depth: int = 3
    """Hidden layers."""
    optimisation: TogetherConfig = field(default_factory=lambda: TogetherConfig(steps=8000, learning_rate=4e-3))
    """Training of the dense networks."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    samples: int = 1000
    """Samples of each network."""
    fresh: int = 5000
    """Fresh draws that calibrate the threshold, and that the true law's score is measured on."""
    sampler_steps: int = 18
    """Heun steps."""
    level: float = 0.95
    """Score of the true law, from which on a network generalises."""

    def __post_init__(self) -> None:
        check_options(
            self, "networks", ranks=1, ratios="(0, inf)", seeds=1, width="[1, 65536]", depth="[1, 256]", samples=20, fresh=1, sampler_steps=2, level="(0.5, 1)"
        )  # fmt: skip
        for name, values, lowest in (
            ("ranks", self.ranks, 1),
            ("ratios", self.ratios, 0),
            ("unet.ranks", self.unet.ranks, 1),
            ("unet.ratios", self.unet.ratios, 0),
            ("unet.real_counts", self.unet.real_counts, 2),
        ):
            rising = all(a < b for a, b in pairwise(values))
            sound = len(values) >= (1 if name == "unet.ranks" else 2) and rising and values[0] >= lowest
            require(sound, f"networks.{name}", values, f"two or more, rising, each at least {lowest}")
        for name, ranks in (("ranks", self.ranks), ("unet.ranks", self.unet.ranks)):
            room = 2 * ranks[-1] <= 48
            require(room, f"networks.{name}", ranks, "at most 24, for two orthogonal subspaces of 48 numbers")
        for name, values, ranks in (
            ("ratios", self.ratios, self.ranks),
            ("unet.ratios", self.unet.ratios, self.unet.ranks),
        ):
            require(values[0] * 2 * ranks[0] >= 2, f"networks.{name}", values, "such that N is 2 or more")
        least = int(np.ceil(2 / (1 - self.level) - 1e-9))
        require(self.fresh >= least, "networks.fresh", self.fresh, f"{least} or more for this level")
        given = self.unet.sscd is not None
        wanted = self.unet.descriptor == "sscd"
        require(given or not wanted, "networks.unet.sscd", self.unet.sscd, "an ONNX file, for the descriptor sscd")

    @property
    def most(self) -> int:
        """The largest N of the dense networks."""
        return round(self.ratios[-1] * COMPONENTS * self.ranks[-1])


_RATIOS = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 75.0, 90.0, 150.0)
PRESETS = {
    "smoke": Config(
        ranks=(2, 3),
        ratios=(2.0, 8.0),
        seeds=2,
        width=16,
        depth=1,
        optimisation=TogetherConfig(steps=20, batch_size=16, chunk=20),
        unet=UNetConfig(
            ranks=(2,),
            ratios=(2.0, 8.0),
            channels=8,
            channel_mult=(1,),
            steps=4,
            batch_size=8,
            real_counts=(8, 16),
            real_heldout=40,
            real_steps=4,
            real_channels=8,
            components=4,
        ),
        samples=40,
        fresh=100,
        sampler_steps=4,
    ),
    "default": Config(),
    "paper": Config(
        ranks=(3, 4, 5, 6),
        ratios=_RATIOS,
        seeds=10,
        width=512,
        optimisation=TogetherConfig(steps=20_000, batch_size=256),
        unet=UNetConfig(
            ranks=(3, 4, 5, 6),
            ratios=_RATIOS,
            channels=128,
            channel_mult=(2, 2, 2),
            blocks=4,
            steps=11_700,
            batch_size=512,
            learning_rate=1e-3,
            real="cifar10",
            real_size=None,
            real_counts=(64, 256, 1024, 4096, 8192, 16_384),
            real_heldout=10_000,
            real_steps=100_000,
            real_channels=128,
        ),
        samples=5000,
        fresh=10_000,
    ),
}
