"""Options of the part on real images."""

from dataclasses import dataclass

from dgu.core.errors import require
from dgu.models import TutorialUNetConfig
from experiments.study.options import check_options, renamed


@dataclass(frozen=True)
class ImagesConfig:
    """The part on real images: networks trained on the nearest and on the farthest pair of clusters."""

    data: str = "fashion-mnist"
    """Name or path of the images, fashion-mnist, mnist or any other (see ``dgu.data.load``)."""
    split: str = "train"
    """Which split of them."""
    size: int | None = 14
    """Reduce the images to this size by area means; None keeps them."""
    clusters: int = 30
    """Clusters of k-means on the leading components of the standardised pixels."""
    components: int = 100
    """These components."""
    restarts: int = 4
    """Starts of k-means; the best is kept."""
    smallest: int = 500
    """Clusters with fewer images are left aside: rare pixels, standardised, make clusters of a handful."""
    train: int = 240
    """Images of each cluster of a pair that its network is trained on; the two pairs have equally many."""
    held_out: int = 120
    """Images of each cluster that it is judged by, 4 or more."""
    shifts: int = 8
    """Copies of the training images, each with its own uniform dequantisation."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of the U-Net's levels, the finest first."""
    epochs: int = 160
    """Passes over the training images, a multiple of bins."""
    bins: int = 20
    """Points of the curve of the training loss."""
    batch_size: int = 32
    """Images a step."""
    rate: float = 8e-4
    """Learning rate of Adam."""
    seeds: int = 3
    """Networks for each pair, 2 or more, each with its own split of the clusters' images."""
    levels: int = 8
    """Noise levels at which losses are compared, equally far apart in time."""
    draws: int = 4
    """Draws of the noise for each image and level."""
    likelihoods: int = 16
    """Held-out images of each pair and seed whose likelihood is computed, 4 or more; at most 2 held_out."""
    probes: int = 4
    """Random vectors for the trace in it, 2 or more."""
    tolerance: float = 1e-2
    """Relative and absolute tolerance of its integration, the latter in nats."""
    samples: int = 200
    """Samples of each network, 16 or more."""
    steps: int = 32
    """Heun steps of a sample."""

    def __post_init__(self) -> None:
        check_options(
            self, "images", size=1, clusters=2, components=1, restarts=1, smallest=0, train=1, held_out=4, shifts=1, channels=1, epochs=1,
            bins=1, batch_size=1, rate="(0, inf)", seeds=2, levels=1, draws=1, likelihoods=4, probes=2, tolerance="(0, inf)", samples=16,
            steps=2,
        )  # fmt: skip
        require(self.epochs % self.bins == 0, "images.epochs", self.epochs, f"a multiple of images.bins = {self.bins}")
        steps = 2 * self.train * self.epochs // self.batch_size
        require(steps >= self.bins, "images.bins", self.bins, f"at most {steps}, the number of steps")
        few = self.likelihoods <= 2 * self.held_out
        require(few, "images.likelihoods", self.likelihoods, f"at most 2 images.held_out = {2 * self.held_out}")
        if self.size is not None:
            with renamed("images", channels="channels", img_resolution="size"):
                self.unet(self.size, 1)

    def unet(self, side: int, channels: int) -> TutorialUNetConfig:
        """The network for square images of this size."""
        return TutorialUNetConfig(side, channels, channels, channels=self.channels)
