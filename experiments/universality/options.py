"""Options of the universality study; all parts share them."""

from dataclasses import dataclass, field
from itertools import count, pairwise, takewhile

from dgu.analysis.universality.recipe import Recipe
from dgu.core.errors import require
from dgu.data.splits import SplitSizes
from dgu.training.classifiers.choices import LOSSES
from experiments.decoding import DecoderOptions
from experiments.sampling import STUDY_SAMPLER, GuidanceOptions, SamplerConfig
from experiments.study import Options as BaseOptions
from experiments.study import option
from experiments.train_config import Config as TrainConfig


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
class Options(GuidanceOptions, DecoderOptions):
    """The universality study."""

    checkpoint: str = "fashion-mnist-14"
    """Network to sample: the bundled fashion-mnist-14, a network file of dgu (.npz, .safetensors), the directory of a
    training run, one of NVIDIA's snapshots (.pkl), a folder of diffusers, or a network of these as PyTorch saved it
    (.pt)."""
    samples: str | None = None
    """Images to study instead of sampling a network: an npz file, an image folder or an EDM zip file, with labels."""
    train: bool = False
    """Train a network first (options under --training) and sample it."""
    training: TrainConfig = field(default_factory=TrainConfig)
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
    pools: int = option(1, ge=1)
    """Pools of images that are sampled one independently of the other, each of the size of --splits; replicates are
    dealt out to them."""
    low_rank_fit: int = option(100, ge=0)
    """Images of each class that the low-rank mixture is fitted to (fewer than pixels); 0 leaves the arm out."""
    gaussian_test_factor: int = option(4, ge=1)
    """Test images of the Gaussian arms as a multiple of --splits.test: they need no sampling, and make differences
    more precise."""
    draws: int = option(2, ge=1)
    """Draws of mixture and null in every replicate: their noise is most of what differs between replicates."""
    replicates: int = option(12, ge=2)
    """New splits of the images, with new draws of mixture and null for each."""
    resampled_pools: int = option(24, ge=2)
    """Pools that are drawn anew from the images (a smoothed bootstrap) to see how much results vary from pool to pool,
    with ridge least squares in place of SGD."""
    resampled_splits: int = option(2, ge=2)
    """Splits of each of these pools."""
    training_sizes: tuple[int, ...] | None = option(None, ge=1)
    """Training images of each class, at most --splits.train. None takes 16, 32, 64 and so on below --splits.train, and
    --splits.train itself."""
    losses: tuple[str, ...] = ("softmax_mse", "cross_entropy")
    """Losses of the linear classifiers, but for pairs of classes: softmax_mse, logit_mse or cross_entropy,
    each a panel of its own; pairs have sigmoid outputs and squared error."""
    class_sets: tuple[str, ...] | None = None
    """Classes to tell apart, a panel for each set: numbers or names with colons between them, such as 0:6 or
    Coat:Shirt. None takes the first three pairs of classes, in their order."""
    subset_sizes: tuple[int, ...] = option((4,), ge=2)
    """Sizes of the random subsets of classes."""
    subsets: int = option(2, ge=1)
    """Random subsets of each size in every replicate."""
    pairs: int = option(6, ge=1)
    """Random pairs of classes in every replicate."""
    two_layer_size: int | None = option(None, ge=1)
    """Training images of each class of the two-layer networks: one of --training-sizes. None takes the largest of them
    up to 128, or the smallest."""
    gram_panels: tuple[str, ...] | None = None
    """Gram matrices whose spectra are compared: number of classes (those of the first of --class-sets that is so large,
    else the first ones; or all) x images of each class, such as 4x512; the mixture is fitted to the other images of the
    pool. The claim is about the last one. None takes up to four classes x --splits.train and all x --splits.test."""
    recipe: Recipe = field(default_factory=Recipe)
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    """Values of black and white pixels that the classifiers see; features are left as they are."""
    margin: float = option(2.5, gt=0.0)
    """Differences of accuracy below this margin count as equivalence, in percentage points."""
    max_predicted_dimension: int = option(1024, ge=0)
    """Largest dimension for which the asymptotic accuracy of least squares is drawn beside the curves; 0 draws none."""
    seed: int = option(0, ge=0)
    """Seed of sampling, splits and classifiers."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Training images of each class, rising."""
        train = self.splits.train
        if self.training_sizes is not None:
            return self.training_sizes
        return (*takewhile(lambda size: size < train, (16 * 2**i for i in count())), train)

    @property
    def size_of_networks(self) -> int:
        """Training images of each class of the two-layer networks."""
        return self.two_layer_size or max((size for size in self.sizes if size <= 128), default=self.sizes[0])

    @property
    def unguided(self) -> str:
        """With these no network is loaded that could be guided."""
        return "--samples" if self.samples is not None else "--train" if self.train else ""

    def check(self) -> None:
        """Sizes, sets and ranges that fit each other."""
        sizes, train = self.training_sizes, self.splits.train
        rising = sizes is None or (bool(sizes) and all(a < b for a, b in pairwise(sizes)) and sizes[-1] <= train)
        require(rising, "training_sizes", sizes, f"rising, one or more, at most splits.train = {train}, or None")
        several = bool(self.subset_sizes) and len(set(self.subset_sizes)) == len(self.subset_sizes)
        require(several, "subset_sizes", self.subset_sizes, "one or more different ones, each 2 or more")
        known = self.two_layer_size in (None, *self.sizes)
        require(known, "two_layer_size", self.two_layer_size, f"one of training_sizes {self.sizes}, or None")
        allowed = [name for name in LOSSES if name != "sigmoid_mse"]
        sound = bool(self.losses) and set(self.losses) <= set(allowed) and len(set(self.losses)) == len(self.losses)
        require(sound, "losses", self.losses, f"one or more different ones of {', '.join(allowed)}")
        for chosen in self.class_sets or ():
            several = len(set(chosen.split(":"))) == chosen.count(":") + 1 >= 2 and all(chosen.split(":"))
            require(several, "class_sets", chosen, "two or more different classes with colons between them")
        for panel in self.gram_panels or ():
            sides = panel.split("x")
            sound = len(sides) == 2 and (sides[0] == "all" or sides[0].isdecimal()) and sides[1].isdecimal()
            sound = sound and sides[0] not in ("0", "1") and 1 <= int(sides[1]) <= self.splits.total - 2
            most = self.splits.total - 2
            wanted = (
                f"classes (2 or more, or all) x images of each class (at most {most}: two are left for the mixture)"
            )
            require(sound, "gram_panels", panel, wanted)
        some = self.gram_panels is None or bool(self.gram_panels)
        require(some, "gram_panels", self.gram_panels, "one or more, or None")
        shared = self.replicates % self.pools == 0 and self.replicates >= 2 * self.pools
        require(shared, "replicates", self.replicates, f"a multiple of pools = {self.pools}, two or more for each")
        enough = self.resampled_pools >= 2 * self.pools
        require(enough, "resampled_pools", self.resampled_pools, f"at least twice pools = {self.pools}")
        ends = self.pixel_range
        require(len(ends) == 2 and ends[0] < ends[1], "pixel_range", ends, "rising")
        fits = self.low_rank_fit == 0 or 2 <= self.low_rank_fit <= self.splits.fit
        require(fits, "low_rank_fit", self.low_rank_fit, f"0, or from 2 to splits.fit = {self.splits.fit}")
        require(not (self.train and self.samples), "train", self.train, "left out with --samples")
