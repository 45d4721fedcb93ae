"""Options of the part that trains networks on real images, and the networks that they describe."""

from dataclasses import dataclass
from typing import Literal

from dgu.core.errors import require
from dgu.models import EDMNetwork, SongUNetConfig
from dgu.models.preconditioning import EDMPreconditioning, Preconditioning, VPPreconditioning
from dgu.training import TrainingConfig
from experiments.study import Options, option
from experiments.study.options import renamed

#: What "auto" looks for: Fashion-MNIST, its shoes (sandal, sneaker, ankle boot), its trousers, and two further sets.
AUTO = ("fashion-mnist", "fashion-mnist=5,7,9", "fashion-mnist=1", "mnist", "cifar10")
_PRECONDITIONING: dict[str, Preconditioning] = {"edm": EDMPreconditioning(), "vp": VPPreconditioning()}


@dataclass(frozen=True)
class Config(Options, prefix="real"):
    """Networks trained on N real images, for several N and data sets."""

    sets: tuple[str, ...] = ("auto",)
    """Data sets (names or paths), each whole or, as SET=CLASS,CLASS, some classes by number; auto is Fashion-MNIST, its
    shoes, its trousers, MNIST and CIFAR-10, as far as they are on this machine."""
    size: int | None = option(8, ge=1)
    """Side to which the images are reduced by averaging over areas, after a border of their lowest value (28 become 32)
    where it does not divide theirs; None keeps their size."""
    counts: tuple[int, ...] = option((8, 16, 32, 64, 128, 256, 512), ge=2)
    """Numbers of training images N, rising."""
    held_out: int = option(2000, ge=1)
    """Further images, held out of training, for the threshold."""
    precondition: Literal["edm", "vp"] = "edm"
    """Preconditioning and noise levels of the networks: EDM's, or those of the variance-preserving process (the
    paper's)."""
    channels: int = option(16, ge=1)
    """Channels of the first level (the paper's DDPM++: 128)."""
    channel_mult: tuple[int, ...] = option((1, 2), ge=1)
    """Multiple of these at each level (DDPM++: 2 2 2)."""
    blocks: int = option(1, ge=1)
    """Blocks a level (DDPM++: 4)."""
    attention: tuple[int, ...] = option((), ge=1)
    """Sides of the feature maps with attention (DDPM++: 16)."""
    dropout: float = option(0.0, ge=0.0, lt=1.0)
    """Share of activations dropped in training (DDPM++: 0.13)."""
    steps: int = option(1250, ge=1)
    """Parameter updates of each network."""
    batch_size: int = option(32, ge=1)
    """Images an update."""
    micro_batch: int | None = option(None, ge=1)
    """Images a gradient, to save memory, a divisor of the batch; None is the whole batch."""
    learning_rate: float = option(3e-3, gt=0.0)
    """Adam's step size."""
    samples: int = option(400, ge=20)
    """Samples of each network."""
    sampler_steps: int = option(18, ge=4)
    """Heun steps, of samples and of trajectories."""
    level: float = option(0.95, gt=0.5, lt=1.0)
    """Score of held-out images; a network that reaches it generalises."""
    descriptor: Literal["identity", "pca", "sscd"] = "identity"
    """Features by which images are compared: pixels, principal components, or SSCD's embedding (colour photographs
    only)."""
    components: int = option(64, ge=1)
    """Principal components, of the held-out images."""
    sscd: str | None = None
    """ONNX file of SSCD."""
    trajectories: int = option(15, ge=3)
    """Sampling trajectories of the network of the most images, along which the intrinsic dimension is measured."""
    dense: int = option(1024, ge=1)
    """Largest number of pixels times channels at which the whole Jacobian is computed; above it, leading singular
    values and the energy of the rest."""
    rank_batch: int = option(18, ge=1)
    """Jacobians at a time."""

    def check(self) -> None:
        """Sets once each, rising counts, enough held-out images for the threshold, and networks that can be made."""
        once = bool(self.sets) and len(set(self.sets)) == len(self.sets)
        require(once, "real.sets", self.sets, "one or more, each once")
        for name in self.sets:
            parse(name)
        rising = len(self.counts) >= 2 and list(self.counts) == sorted(set(self.counts))
        require(rising, "real.counts", self.counts, "two or more, rising")
        given = self.descriptor != "sscd" or self.sscd is not None
        require(given, "real.sscd", self.sscd, "an ONNX file, for the descriptor sscd")
        with renamed("real", micro_batch="micro_batch"):
            _ = self.optimisation
        if self.size is not None:
            self.network((self.size, self.size, 1))

    def network(self, shape: tuple[int, int, int]) -> EDMNetwork:
        """The network for square images of ``shape`` (H, W, C)."""
        side, _, colours = shape
        names = {"model_channels": "channels", "num_blocks": "blocks", "img_resolution": "size"}
        with renamed("real", channel_mult="channel_mult", **names):
            unet = SongUNetConfig(
                side, colours, colours, model_channels=self.channels, channel_mult=self.channel_mult,
                num_blocks=self.blocks, attn_resolutions=self.attention, dropout=self.dropout,
            )  # fmt: skip
        return EDMNetwork(unet, _PRECONDITIONING[self.precondition])

    @property
    def optimisation(self) -> TrainingConfig:
        """Training on the loss of the preconditioning; warm-up and averaging take the same share of any length."""
        kimg = self.steps * self.batch_size / 1000
        return TrainingConfig(
            duration_kimg=kimg, batch_size=self.batch_size, micro_batch=self.micro_batch,
            learning_rate=self.learning_rate, loss=self.precondition,
            rampup_kimg=0.05 * kimg, ema_halflife_kimg=0.04 * kimg,
        )  # fmt: skip


def parse(name: str) -> tuple[str, tuple[int, ...] | None]:
    """Data set and classes (None: all) of one of ``sets``."""
    source, joined, classes = name.partition("=")
    numbers = classes.split(",")
    sound = source and (not joined or all(number.isdecimal() for number in numbers))
    require(bool(sound), "real.sets", name, "SET or SET=CLASS,CLASS with numbers of classes")
    return source, tuple(map(int, numbers)) if joined else None


PRESETS = {
    "smoke": Config(
        sets=("fashion-mnist-mini",), size=4, counts=(8, 16), held_out=40, channels=8, channel_mult=(1,), steps=8,
        batch_size=8, samples=20, sampler_steps=4, trajectories=3, components=4,
    ),
    "default": Config(),
    # Beside CIFAR-10 the files that EDM's dataset tool makes; AFHQ's training images end a little above the last N.
    "paper": Config(
        sets=("cifar10", "celeba-64x64.zip", "ffhq-64x64.zip", "afhqv2-64x64.zip"), size=32,
        counts=(64, 128, 256, 512, 1024, 2048, 4096, 8192, 12_288), precondition="vp", channels=128,
        channel_mult=(2, 2, 2), blocks=4, attention=(16,), dropout=0.13, steps=100_000, batch_size=512, micro_batch=128,
        learning_rate=1e-4, samples=10_000, descriptor="sscd", sscd="sscd.onnx", dense=3072, rank_batch=2,
    ),
}  # fmt: skip
