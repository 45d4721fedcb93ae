"""Options of the universality study; all parts share them."""

from dataclasses import dataclass, field

from dgu.analysis.universality.recipe import Recipe
from dgu.core.errors import require
from dgu.data.splits import SplitSizes
from experiments import train as trainer
from experiments.sampling import STUDY_SAMPLER, SamplerConfig
from experiments.study import Options as BaseOptions
from experiments.study import option


@dataclass(frozen=True)
class CnnConfig(BaseOptions, prefix="cnn"):
    """The small network of --features cnn; its penultimate layer has 8 times --cnn.width features."""

    images: str | None = None
    """Real images that it is trained on, such as fashion-mnist. None takes the first half of each class of --real,
    which is then left out of the arm "real"."""
    split: str = "train"
    """Split of these images."""
    epochs: int = option(12, ge=1)
    """Passes over them."""
    width: int = option(16, ge=1)
    """Channels of the first convolution."""


@dataclass(frozen=True)
class Options(BaseOptions):
    """The universality study."""

    checkpoint: str = "fashion-mnist-14"
    """Network to sample: the bundled fashion-mnist-14, a network.npz, the directory of a training run, or one of
    NVIDIA's snapshots (.pkl)."""
    samples: str | None = None
    """Images to study instead of sampling a network: an npz file, an image folder or an EDM zip file, with labels."""
    train: bool = False
    """Train a network first (options under --training) and sample it."""
    training: trainer.Config = field(default_factory=trainer.Config)
    real: str | None = "auto"
    """Real images of the same classes, for the arm "real". "auto" takes the bundled images if their classes have the
    same names, and none otherwise."""
    real_split: str = "test"
    """Split of the real images."""
    size: int | None = option(14, ge=1)
    """Side to which the real images are reduced by averaging over areas; None keeps their size."""
    classes: tuple[int, ...] | None = option(None, ge=0)
    """Classes to study; None takes all."""
    features: str = "pixels"
    """Representation of the images that is studied: pixels; cnn, the penultimate layer of a small network trained on
    real images (options under --cnn); random-conv, random convolutional features; or an npy file with a row of features
    for each image, in the order of the file given by --samples, or class by class in the order of samples/."""
    cnn: CnnConfig = field(default_factory=CnnConfig)
    sampler: SamplerConfig = STUDY_SAMPLER
    splits: SplitSizes = field(default_factory=SplitSizes)
    low_rank_fit: int = option(100, ge=0)
    """Images of each class that the low-rank mixture is fitted to (fewer than pixels); 0 leaves the arm out."""
    gaussian_test_factor: int = option(4, ge=1)
    """Test images of the Gaussian arms as a multiple of --splits.test: they need no sampling, and make differences
    more precise."""
    replicates: int = option(20, ge=2)
    """New splits of the images, with mixture and null fitted again for each."""
    training_ratios: tuple[float, ...] = option((0.1, 0.3, 1.0, 3.0, 10.0), gt=0.0)
    """Training sizes n (all classes together) as multiples of the number of pixels (or features) d, as far as there are
    images."""
    subset_sizes: tuple[int, ...] = option((4,), ge=2)
    """Sizes of the random subsets of classes."""
    subsets: int = option(4, ge=1)
    """Random subsets of each size in every replicate."""
    pairs: int = option(6, ge=1)
    """Random pairs of classes in every replicate."""
    two_layer_ratio: float = option(3.0, gt=0.0)
    """Training size of the two-layer networks: one of --training-ratios."""
    recipe: Recipe = field(default_factory=Recipe)
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    """Values of black and white pixels that the classifiers see; features are left as they are."""
    margin: float = option(2.5, gt=0.0)
    """Differences of accuracy below this margin count as equivalence, in percentage points."""
    max_predicted_dimension: int = option(1024, ge=0)
    """Largest dimension for which the asymptotic accuracy of least squares is drawn beside the curves; 0 draws none."""
    max_standard_error: float = option(0.8, gt=0.0)
    """Largest standard error of a difference at which equivalence is decided, in percentage points."""
    seed: int = option(0, ge=0)
    """Seed of sampling, splits and classifiers."""

    def check(self) -> None:
        """Ratios, sizes and ranges that fit each other."""
        require(bool(self.training_ratios), "training_ratios", self.training_ratios, "one or more positive numbers")
        require(bool(self.subset_sizes), "subset_sizes", self.subset_sizes, "one or more, each 2 or more")
        known = self.two_layer_ratio in self.training_ratios
        require(known, "two_layer_ratio", self.two_layer_ratio, f"one of training_ratios {self.training_ratios}")
        ends = self.pixel_range
        require(len(ends) == 2 and ends[0] < ends[1], "pixel_range", ends, "rising")
        fits = self.low_rank_fit == 0 or 2 <= self.low_rank_fit <= self.splits.fit
        require(fits, "low_rank_fit", self.low_rank_fit, f"0, or from 2 to splits.fit = {self.splits.fit}")
        require(not (self.train and self.samples), "train", self.train, "left out with --samples")
