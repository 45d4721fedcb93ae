"""Options of the part on real images."""

from dataclasses import dataclass

import numpy as np

from dgu.core.errors import require
from dgu.models import EDMNetwork, TutorialUNetConfig, VESDEPreconditioning
from dgu.training import TrainingConfig
from experiments.generalization.trainings import SDE
from experiments.study import Options, option
from experiments.study.options import renamed


@dataclass(frozen=True)
class Config(Options, prefix="images"):
    """Networks trained on real images, on the nearest and on the farthest pair of clusters."""

    data: str = "fashion-mnist"
    """Name or path of the images: fashion-mnist, mnist or any other (see ``dgu.data.load``)."""
    split: str = "train"
    """Split of the images."""
    size: int | None = option(14, ge=1)
    """Side to which the images are reduced by averaging over areas; None keeps their size."""
    clusters: int = option(30, ge=2)
    """Clusters of k-means on the leading principal components of the standardised pixels."""
    components: int = option(100, ge=1)
    """Number of these components."""
    restarts: int = option(4, ge=1)
    """Random initialisations of k-means, of which the best is kept."""
    smallest: int = option(500, ge=0)
    """Clusters with fewer images are left aside: rare pixels, standardised, make clusters of a handful."""
    train: int = option(240, ge=1)
    """Training images from each cluster of a pair; equally many for both pairs."""
    held_out: int = option(120, ge=4)
    """Held-out images from each cluster of a pair."""
    shifts: int = option(8, ge=1)
    """Copies of the training images, each with its own uniform dequantisation."""
    channels: tuple[int, ...] = option((32, 64, 128), ge=1)
    """Channels of the U-Net's levels, the finest first."""
    epochs: int = option(160, ge=1)
    """Passes over the training images, a multiple of bins."""
    bins: int = option(20, ge=1)
    """Points of the curve of the training loss."""
    batch_size: int = option(32, ge=1)
    """Images in each training step."""
    rate: float = option(8e-4, gt=0.0)
    """Learning rate of Adam."""
    seeds: int = option(3, ge=2)
    """Networks for each pair, each with its own split of the clusters' images."""
    levels: int = option(8, ge=1)
    """Noise levels at which losses are compared, equally far apart in time."""
    draws: int = option(4, ge=1)
    """Draws of the noise for each image and level."""
    likelihoods: int = option(16, ge=4)
    """Held-out images of each pair and seed whose likelihood is computed; at most 2 held_out."""
    probes: int = option(4, ge=2)
    """Random vectors that estimate the trace in each likelihood."""
    tolerance: float = option(1e-2, gt=0.0)
    """Relative and absolute tolerance of the likelihood's integration, the latter in nats."""
    samples: int = option(200, ge=16)
    """Samples of each network."""
    steps: int = option(32, ge=2)
    """Heun steps of a sample."""

    def check(self) -> None:
        name = self.name
        require(self.epochs % self.bins == 0, name("epochs"), self.epochs, f"a multiple of images.bins = {self.bins}")
        steps = 2 * self.train * self.epochs // self.batch_size
        require(steps >= self.bins, name("bins"), self.bins, f"at most {steps}, the number of steps")
        few = self.likelihoods <= 2 * self.held_out
        require(few, name("likelihoods"), self.likelihoods, f"at most 2 images.held_out = {2 * self.held_out}")
        if self.size is not None:
            with renamed("images", channels="channels", img_resolution="size"):
                self.unet(self.size, 1)

    def unet(self, side: int, channels: int) -> TutorialUNetConfig:
        """The architecture for square images of this size."""
        return TutorialUNetConfig(side, channels, channels, channels=self.channels)

    def network(self, shape: tuple[int, ...]) -> EDMNetwork:
        """The score network for images of this shape, (H, W, C): that of Song's tutorial."""
        return EDMNetwork(self.unet(shape[0], shape[-1]), VESDEPreconditioning())

    def optimisation(self, seed: int) -> TrainingConfig:
        """The paper's: Adam at a constant rate, loss (5) with lambda = std^2; parameters are averaged as ever here."""
        seen = 2 * self.train * self.epochs
        return TrainingConfig(
            duration_kimg=seen / 1000,
            batch_size=self.batch_size,
            learning_rate=self.rate,
            rampup_kimg=0.0,
            loss="vesde",
            ema_halflife_kimg=seen / 1000,
            seed=seed,
        )

    @property
    def level_grid(self) -> np.ndarray:
        """Noise levels at the middles of equal parts of time (0, T): a mean over them is one over training's times."""
        times = (np.arange(self.levels) + 0.5) / self.levels
        return np.asarray(SDE.std(times), np.float64)


PRESETS = {
    "smoke": Config(
        data="fashion-mnist-mini",
        split="test",
        size=7,
        clusters=4,
        components=10,
        restarts=2,
        smallest=60,
        train=24,
        held_out=16,
        shifts=1,
        channels=(8,),
        epochs=2,
        bins=2,
        batch_size=8,
        seeds=2,
        levels=2,
        draws=1,
        likelihoods=4,
        probes=2,
        tolerance=0.1,
        samples=16,
        steps=2,
    ),
    "default": Config(),
    "paper": Config(
        data="mnist",
        size=None,
        channels=(32, 64, 128, 256),
        epochs=1000,
        seeds=10,
        levels=20,
        likelihoods=128,
        probes=16,
        tolerance=1e-3,
        samples=1000,
        steps=64,
        restarts=10,
    ),
}
