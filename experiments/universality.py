"""Do linear classifiers trained on a diffusion model's images do as well as on a Gaussian mixture with the same class
means and covariances? ``python -m experiments.universality``

The study samples a class-conditional model (or takes images you have, ``--samples``), splits them again and again into images
that a Gaussian mixture is fitted to and images that classifiers are trained, chosen and tested on, and compares arms:
*diffusion*, *mixture*, *null* (a mixture fitted again, with the same n, to samples of the mixture: what the finite fit alone
does), *low rank* (a mixture fitted to fewer images than pixels) and *real*. Source: Ghane et al., arXiv 2501.07741, Figs 5 to 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu.analysis.universality.arms import Recipe
from dgu.core import parallel
from dgu.core.errors import require
from dgu.data.splits import SplitSizes
from experiments import train as trainer
from experiments.study.command_line import run_experiment
from experiments.study.costs import Cost
from experiments.study.ends import begin
from experiments.study.options import check_options
from experiments.study.pool import SamplerConfig, class_list, load_images, of_classes, real_classes, sample_pool
from experiments.study.report import Report
from experiments.study.run_directory import RunDirectory
from experiments.universality_features import CnnConfig, dimension, prepare, represent_images

if TYPE_CHECKING:
    from experiments.universality_replicates import Images

CLAIM_IDS = (
    "universality-subsets",
    "universality-all-classes",
    "universality-pairs",
    "universality-cross-entropy",
    "universality-null-corrected",
    "spectrum-covariance",
    "spectrum-gram",
    "two-layer-breaks",
    "control-positive",
    "control-negative",
)
FIGURE_FILES = (
    "figures/samples.png",
    "figures/accuracy_vs_n.png",
    "figures/loss_vs_n.png",
    "figures/accuracy_vs_n_ce.png",
    "figures/equivalence.png",
    "figures/cross_matrix.png",
    "figures/covariance_spectra.png",
    "figures/gram_spectra.png",
    "figures/two_layer.png",
    "figures/controls.png",
)


@dataclass(frozen=True)
class Config:
    """The universality study."""

    checkpoint: str = "fashion-mnist-14"
    """Network to sample: the bundled fashion-mnist-14, a network.npz, the directory of a training run, or one of NVIDIA's
    snapshots (.pkl)."""
    samples: str | None = None
    """Images to study instead of sampling a network: npz, image folder or EDM zip, with labels."""
    train: bool = False
    """Train a network first (options under --training) and sample that."""
    training: trainer.Config = field(default_factory=trainer.Config)
    real: str | None = "auto"
    """Real images of the same classes, for the arm "real"; auto takes the bundled ones where the classes have their
    names, and else none; None leaves them out."""
    real_split: str = "test"
    """Split of the real images."""
    size: int | None = 14
    """Reduce the real images to this size by area means; None keeps them."""
    classes: tuple[int, ...] | None = None
    """Classes to study; None takes all."""
    features: str = "pixels"
    """What is studied: pixels; cnn, the penultimate layer of a small network trained on real images (options under --cnn);
    random-conv, random convolutional features; or an npy file of features of the samples, a row an image: in the order of the
    file given by --samples, or class by class in the order of samples/."""
    cnn: CnnConfig = field(default_factory=CnnConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    splits: SplitSizes = field(default_factory=SplitSizes)
    low_rank_fit: int = 100
    """Images per class that the low-rank mixture is fitted to (fewer than pixels); 0 leaves the arm out."""
    gaussian_test_factor: int = 4
    """Test images of the Gaussian arms as a multiple of splits.test: they cost no sampling, and steady the difference."""
    replicates: int = 20
    """New splits of the pool, with mixture and null fitted again."""
    training_ratios: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    """Training sizes n (all classes together) as multiples of the number of pixels (or features) d, as far as the pool reaches."""
    subset_sizes: tuple[int, ...] = (4,)
    """Sizes of the random subsets of classes."""
    subsets: int = 4
    """Random subsets of each size in every replicate."""
    pairs: int = 6
    """Random pairs of classes in every replicate."""
    two_layer_ratio: float = 3.0
    """Training size of the two-layer networks: one of training_ratios."""
    recipe: Recipe = field(default_factory=Recipe)
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    """What black and white are for the classifiers; features are left as they are."""
    margin: float = 2.5
    """Differences of accuracy below this count as none, in percentage points."""
    max_predicted_dimension: int = 1024
    """Data of at most this many dimensions get the asymptotic error of least squares drawn beside the curves; 0 draws none."""
    max_standard_error: float = 0.8
    """A difference known less well than this is undecided, in percentage points."""
    seed: int = 0
    """Seed of sampling, splits and classifiers."""

    def __post_init__(self) -> None:
        check_options(
            self, size=1, classes=0, low_rank_fit=0, gaussian_test_factor=1, replicates=2, training_ratios="(0, inf)", subset_sizes=2,
            subsets=1, pairs=1, two_layer_ratio="(0, inf)", margin="(0, inf)", max_predicted_dimension=0, max_standard_error="(0, inf)",
            seed=0,
        )  # fmt: skip
        require(bool(self.training_ratios), "training_ratios", self.training_ratios, "one or more positive numbers")
        require(bool(self.subset_sizes), "subset_sizes", self.subset_sizes, "one or more, each 2 or more")
        require(
            self.two_layer_ratio in self.training_ratios,
            "two_layer_ratio",
            self.two_layer_ratio,
            f"one of training_ratios {self.training_ratios}",
        )
        ends = self.pixel_range
        require(len(ends) == 2 and ends[0] < ends[1], "pixel_range", ends, "rising")
        fits = self.low_rank_fit == 0 or 2 <= self.low_rank_fit <= self.splits.fit
        require(fits, "low_rank_fit", self.low_rank_fit, f"0, or from 2 to splits.fit = {self.splits.fit}")
        require(not (self.train and self.samples), "train", self.train, "left out with --samples")


PRESETS = {
    "smoke": Config(
        training=trainer.PRESETS["smoke"],
        sampler=SamplerConfig(num_steps=4, churn=0.625, batch_size=24),
        splits=SplitSizes(fit=10, train=8, validation=2, test=4),
        low_rank_fit=5,
        replicates=2,
        training_ratios=(0.1, 0.3),
        two_layer_ratio=0.1,
        subsets=1,
        pairs=1,
        recipe=Recipe(epochs=4, learning_rates=(1.0,), eval_interval=2, width=8),
        max_predicted_dimension=64,
    ),
    "default": Config(),
    "paper": Config(
        training=trainer.PRESETS["paper"],
        checkpoint="edm-imagenet-64x64-cond-adm.pkl",
        real=None,
        size=None,
        classes=(0, 11, 25, 217, 281, 371, 429, 497, 566, 569, 614, 671, 727, 732, 751, 871, 938, 963, 973, 980),
        sampler=SamplerConfig(num_steps=256, churn=40.0, batch_size=128),
        splits=SplitSizes(fit=4096, train=4096, validation=1024, test=1024),
        low_rank_fit=1024,
        gaussian_test_factor=1,
        subset_sizes=(4, 10),
        recipe=Recipe(epochs=600, learning_rates=(0.01, 0.03, 0.1), batch_size=128, momentum=0.0, eval_interval=5),
        pixel_range=(0.0, 1.0),
    ),
}


def run(config: Config, directory: RunDirectory) -> Report:
    """The study, from images to claims; every stage is stored, so a run that was killed goes on."""
    from functools import partial

    from experiments import universality_report as reporting
    from experiments.study.progress import Progress
    from experiments.universality_predictions import predictions
    from experiments.universality_replicates import negative_control, positive_control, replicate

    images = gather(config, directory)
    with Progress("replicates", total=config.replicates, unit="splits") as bar:
        replicates = []
        for number in range(config.replicates):
            stage = f"replicates/{number:03d}"
            compute = partial(replicate, config, images, number)
            replicates.append(directory.stage(stage, compute, allow_nonfinite=True))
            bar.update()
    positive = directory.stage("control-positive", partial(positive_control, config, images))
    negative = directory.stage("control-negative", partial(negative_control, config))
    predicted = None
    if images.dimension <= config.max_predicted_dimension:
        predicted = directory.stage("predictions", partial(predictions, config, images), allow_nonfinite=True)
    stacked = {name: np.stack([r[name] for r in replicates]) for name in replicates[0]}

    return reporting.build(config, directory, images, stacked, positive, negative, predicted)


def gather(config: Config, directory: RunDirectory) -> "Images":
    """Sample the network (or load the given images), class by class, and the real images beside them.

    Whatever can be refused is refused before a network is trained or sampled.
    """
    from dgu.data.splits import check_no_duplicates
    from experiments.study.checkpoints import load as load_network
    from experiments.universality_replicates import Images

    if config.samples is not None:
        pool, labels, names, chosen, available = _given(config)
        real = real_classes(config, labels, names, pool.shape[2:])
        source, real = prepare(config, labels, names, pool.shape[2:], real, chosen, available)
    else:
        pretrained = None if config.train else load_network(config.checkpoint)
        network, known = (
            _network_to_train(config) if pretrained is None else (pretrained.network, pretrained.class_names)
        )
        labels, names = _checked_classes(config, network.unet.label_dim, known)
        real = real_classes(config, labels, names, network.shape)
        source, real = prepare(config, labels, names, network.shape, real)
        sampled = _trained(config, directory) if pretrained is None else pretrained
        pool = sample_pool(directory, sampled, labels, config.splits.total, config.sampler, config.seed)
    check_no_duplicates(pool.reshape(-1, *pool.shape[2:]), "samples")
    images = Images(pool, real, tuple(names[label] for label in labels))
    return represent_images(config, directory, images, source)


def _checked_classes(config: Config, available: int, names: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The classes to study of a network, and the names of all that it knows."""
    option, value = ("training.network.conditional", False) if config.train else ("checkpoint", config.checkpoint)
    require(available >= 2, option, value, "a network of two or more classes" if not config.train else "True")
    return _class_list(config, available), tuple(names) or tuple(f"class {k}" for k in range(available))


def _class_list(config: Config, available: int) -> tuple[int, ...]:
    labels = class_list(config.classes, available, at_least=2)
    largest = max(config.subset_sizes)
    require(
        largest <= len(labels), "subset_sizes", config.subset_sizes, f"at most the number of classes, {len(labels)}"
    )
    return labels


def _given(config: Config) -> tuple[np.ndarray, tuple[int, ...], tuple[str, ...], np.ndarray, int]:
    """The images of ``--samples``, equally many of each class (K, P, H, W, C), their labels and all class names; the places
    (K, P) of these images in the file, and how many it holds."""
    assert config.samples is not None
    given = load_images("samples", config.samples, "train")
    require(len(given.class_names) >= 2, "samples", config.samples, "images with labels of two or more classes")
    labels, total = _class_list(config, len(given.class_names)), config.splits.total
    need = "(splits.fit + splits.train + splits.validation + splits.test)"
    pool = of_classes("samples", config.samples, given, labels, total, need)
    places = np.stack([np.flatnonzero(given.labels == label)[:total] for label in labels])
    return pool, labels, given.class_names, places, len(given.labels)


def _network_to_train(config: Config) -> tuple[Any, tuple[str, ...]]:
    """The network that ``--train`` makes, and the names of its classes."""
    wanted = config.training
    images = load_images("training.data", wanted.data, wanted.split, wanted.size)
    _, side, width, channels = images.images.shape
    require(side == width, "training.data", wanted.data, f"square images, not {side} x {width}")
    augment = wanted.training.augment_probability > 0
    network = trainer.build_network(wanted.network, side, channels, len(images.class_names), augment=augment)
    return network, images.class_names


def _trained(config: Config, directory: RunDirectory) -> Any:
    from dgu.models import load_checkpoint

    return load_checkpoint(trainer.train(config.training, directory.path / "training"))


def dry_run(config: Config) -> list[Cost]:
    """What a run would cost: real shapes through ``jax.eval_shape``, FLOP of its convolutions and products."""
    if config.samples is not None:
        pool, labels, *_ = _given(config)
        return _study_costs(config, len(labels), pool.shape[2:])
    from experiments.study.checkpoints import planned, sampling_cost

    network = _network_to_train(config)[0] if config.train else planned(config.checkpoint)
    labels, _ = _checked_classes(config, network.unet.label_dim, ())
    training = [trainer.dry_run(config.training)[0]] if config.train else []
    images, evaluations = len(labels) * config.splits.total, config.sampler.evaluations
    drawn = sampling_cost(network, images, evaluations, config.sampler.batch_size)
    return [*training, drawn, *_study_costs(config, len(labels), network.shape)]


def _study_costs(config: Config, k: int, shape: tuple[int, ...]) -> list[Cost]:
    """Mixtures and classifiers of all replicates, for ``k`` classes of images of ``shape``; making features costs little beside."""
    from experiments.universality_replicates import tasks

    d = dimension(config, shape)
    arms = 3 + bool(config.low_rank_fit) + (config.real is not None)  # auto counts as given
    splits = config.splits
    drawn = splits.train + splits.validation + splits.test * config.gaussian_test_factor
    fit_flop = 0.0
    for task in tasks(config, k, d, 0).values():
        width = config.recipe.width if task.two_layer else task.classes.shape[1]
        of = 3 if task.two_layer else arms
        visits = len(task.classes) * sum(task.per_class) * task.classes.shape[1] * config.recipe.epochs
        fit_flop += of * len(config.recipe.learning_rates) * visits * 4 * d * width
    fit_rows = min(splits.fit, d)
    mixture = 2 * k * (2 * splits.fit * d * fit_rows + 2 * drawn * fit_rows * d)
    image = 4 * k * d
    fits, held = image * (arms * drawn + 2 * splits.fit), image * (arms * drawn + splits.total)
    return [
        Cost("mixtures", 0, config.replicates * mixture, fits, 0),
        Cost("classifiers", 0, config.replicates * fit_flop, held, config.replicates * image * 6),
    ]


if __name__ == "__main__":
    begin("universality", parallel.start)
    run_experiment(
        PRESETS,
        run,
        name="universality",
        description="Do linear classifiers do as well on a diffusion model's images as on a Gaussian mixture with the same "
        "class means and covariances?",
        dry_run=dry_run,
        claim_ids=CLAIM_IDS,
        figure_files=FIGURE_FILES,
    )
