"""What the universality study looks at: samples of a network, or given images, and the replicates that parts share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from dgu.analysis.universality.resampled import MOST_DIMENSIONS
from dgu.core.errors import require
from dgu.data.splits import check_no_duplicates
from dgu.models import EDMNetwork, Pretrained, load_checkpoint
from experiments import train as trainer
from experiments.decoding import Decoder, decoder_of
from experiments.descriptions import (
    class_images_in_words,
    class_samples_in_words,
    in_pictures,
    network_in_words,
    stored_samples,
)
from experiments.sampling import sample_pool
from experiments.study import Cost, Findings, Materials, RunDirectory
from experiments.study.materials import in_turn
from experiments.study.progress import Progress
from experiments.subjects import (
    ClassImages,
    Described,
    given_images,
    load,
    load_images,
    network_images,
    planned,
    real_images,
    sampling_cost,
)
from experiments.train_config import build_network
from experiments.universality.features import PIXELS, Source, computed, dimension, prepare
from experiments.universality.options import Options
from experiments.universality.problems import Panel, class_sets, gram_classes, panels, tasks
from experiments.universality.replicates import (
    Examples,
    curve_arms,
    flat,
    gaussian_sizes,
    replicate,
    resampled,
)

PAPER = "concentration"

#: What is repeated: from options, examples, class sets and a number to results by name.
Measure = Callable[[Options, Examples, Sequence[Sequence[int]], int], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Subject:
    """The images of a run and what its parts share: images are sampled and replicates measured when first needed.

    Attributes:
        options: of the study.
        directory: the run directory, where the shared stages are stored.
        labels: the K classes studied, as numbers.
        class_names: their names.
        shape: shape of one image, (H, W, C).
        class_sets: places of the classes that have panels of their own.
        dimension: numbers that represent one example, d: pixels or features.
        real: real images of the same classes, (K, n, H, W, C), or None.
        source: where features come from.
        decoder: makes pictures of images that are latents; None where they are no latents.
        draw: returns the images; see ``samples``.
        network: the network of ``--checkpoint``; None where images are given or a network is trained first.
    """

    options: Options
    directory: RunDirectory
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    class_sets: tuple[tuple[int, ...], ...]
    dimension: int
    real: np.ndarray | None
    source: Source
    decoder: Decoder | None
    draw: Callable[[], np.ndarray]
    network: Pretrained | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms of learning curves, in the order of result arrays."""
        return curve_arms(self.options, self.real is not None)

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The problems of linear classifiers in the order of figures."""
        return panels(self.options, self.class_sets, self.class_names)

    @property
    def unit(self) -> str:
        """What the numbers of an example are: pixels or features."""
        return "pixel" if self.source.kind == PIXELS else "feature"

    @cached_property
    def samples(self) -> np.ndarray:
        """The images studied, (K, P, H, W, C) in [-1, 1]."""
        images = self.draw()
        check_no_duplicates(images.reshape(-1, *images.shape[2:]), "samples")
        return images

    @cached_property
    def examples(self) -> Examples:
        """The images as classifiers see them; features are stored as the stage ``features``."""
        samples, real, black_white = self.samples, self.real, self.options.pixel_range
        pixels = samples.reshape(*samples.shape[:2], -1)
        if self.source.kind == PIXELS:
            return Examples(flat(samples, black_white), pixels, None if real is None else flat(real, black_white))
        found = self.directory.stage("features", lambda: computed(self.options, self.source, samples, real))
        return Examples(found["samples"], pixels, found.get("real"))

    @cached_property
    def replicates(self) -> dict[str, np.ndarray]:
        """Results of all replicates, stacked, (replicate, ...) each; every replicate is stored as a stage
        ``replicates/NNN`` of its own. See ``experiments.universality.replicates.replicate``.
        """
        return self._repeated("replicates", self.options.replicates, "splits", replicate)

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """Results of ridge least squares on the pools that are drawn anew, stacked, (pool, split, ...) each; stages
        ``resampled/NNN``.
        """
        return self._repeated("resampled", self.options.resampled_pools, "pools", resampled)

    def _repeated(self, what: str, count: int, unit: str, measure: Measure) -> dict[str, np.ndarray]:
        def one(number: int) -> dict[str, np.ndarray]:
            return measure(self.options, self.examples, self.class_sets, number)

        found = []
        with Progress(what, total=count, unit=unit) as bar:
            for number in range(count):
                stage = f"{what}/{number:03d}"
                found.append(self.directory.stage(stage, partial(one, number), allow_nonfinite=True))
                bar.update()
        return {name: np.stack([one[name] for one in found]) for name in found[0]}


def gather(options: Options, directory: RunDirectory) -> Subject:
    """The images given, or how to sample the network; and the real images beside them.

    Whatever can be refused is refused here, before a network is trained or sampled.
    """
    if options.samples is not None:
        known, images = _given(options)
        subject = _subject(options, directory, known, lambda: images)
        _ = subject.samples  # Refuses copies.
        return subject
    if options.train:
        known = _of_network(options, *_network_to_train(options))
        return _subject(
            options, directory, known, lambda: _sampled(options, directory, known, _trained(options, directory))
        )
    network = load(options.checkpoint, guidance=options)
    known = _of_network(options, network.network, network.class_names)
    return _subject(options, directory, known, lambda: _sampled(options, directory, known, network), network)


def introduce(options: Options, subject: Subject) -> Findings:
    """How the images were studied."""
    kind = subject.source.kind
    seen = "pixels" if kind == PIXELS else f"{kind} features"
    return Findings(
        f"{options.splits.total} images of each of {len(subject.class_names)} classes, represented by "
        f"{subject.dimension} {seen} each, were split {options.replicates} times (the replicates) into images that "
        "classifiers are trained and validated on and images that they are tested on. The mixture is fitted to all of "
        "them; differences are corrected by those between the mixture and a mixture fitted again to its draws."
        + (f" There are {options.pools} such pools of images." if options.pools > 1 else ""),
        metrics={"arms": subject.arms, "dimension": subject.dimension},
    )


def describe(options: Options, subject: Subject, directory: RunDirectory) -> Materials:
    """The network, the images studied and the real ones beside them."""
    network, name, real = subject.network, options.checkpoint, subject.real
    if options.train and options.samples is None:
        network, name = load_checkpoint(_training_folder(directory)), "that the run trained"
    given = options.samples is not None
    first = in_turn(subject.samples) if given else stored_samples(directory, subject.labels)
    size = (len(subject.labels), options.splits.total * options.pools, *subject.shape)
    said = (
        "" if network is None else network_in_words(name, network, options.guided_by),
        class_samples_in_words(size, options),
        class_images_in_words(real, options),
    )
    rows = {"given images" if given else "samples": first} | ({} if real is None else {"real images": in_turn(real)})
    return Materials(" ".join(filter(None, said)), in_pictures(rows, subject.decoder))


def plan(options: Options) -> tuple[ClassImages, list[Cost]]:
    """Classes and shapes for a dry run, and the costs of the images and of the replicates that the parts share."""
    if options.samples is not None:
        known, _ = _given(options)
        return known, _replicate_costs(options, known)
    network = _network_to_train(options)[0] if options.train else planned(options.checkpoint, guidance=options)
    known = _of_network(options, network, ())
    training = [trainer.dry_run(options.training)[0]] if options.train else []
    sampler = options.sampler
    drawn = sampling_cost(network, known.row_count, sampler.evaluations, sampler.batch_size)
    return known, [*training, drawn, *_replicate_costs(options, known)]


def _subject(
    options: Options,
    directory: RunDirectory,
    known: ClassImages,
    draw: Callable[[], np.ndarray],
    network: Pretrained | None = None,
) -> Subject:
    real = real_images(known, options.real, options.real_split, options.size)
    source, real = prepare(options, known, real)
    sets = class_sets(options, known)
    d = dimension(options, known.shape)
    decoder = decoder_of(options, known.shape)
    own = known.labels, known.class_names, known.shape
    return Subject(options, directory, *own, sets, d, real, source, decoder, draw, network)


def _given(options: Options) -> tuple[ClassImages, np.ndarray]:
    """The images of ``--samples``, equally many of each class, (K, P, H, W, C)."""
    assert options.samples is not None
    total = options.splits.total * options.pools
    need = "(splits.fit + splits.train + splits.validation + splits.test) x pools"
    found = given_images(options.samples, options.classes, most=total, fewest=total, why=need, least_classes=2)
    _check_classes(options, found[0])
    return found


def _of_network(options: Options, network: Described, names: Sequence[str]) -> ClassImages:
    """The images that are sampled from a network, class by class; ``names`` are those of its classes, if known."""
    several = network.unet.label_dim >= 2
    if options.train:
        require(several, "training.network.conditional", False, "True")
    else:
        require(several, "checkpoint", options.checkpoint, "a network of two or more classes")
    found = network_images(network, names, options.classes, options.splits.total * options.pools, least_classes=2)
    _check_classes(options, found)
    return found


def _check_classes(options: Options, known: ClassImages) -> None:
    """``InputError`` unless the classes named are there, and enough for the largest subset and Gram matrix."""
    gram_classes(options, class_sets(options, known), len(known.labels))
    fits, count = max(options.subset_sizes) <= len(known.labels), len(known.labels)
    require(fits, "subset_sizes", options.subset_sizes, f"at most the number of classes, {count}")


def _network_to_train(options: Options) -> tuple[EDMNetwork, tuple[str, ...]]:
    """The network that ``--train`` makes, and the names of its classes."""
    training = options.training
    images = load_images("training.data", training.data, training.split, training.size)
    _, side, width, channels = images.images.shape
    require(side == width, "training.data", training.data, f"square images, not {side} x {width}")
    augment = training.training.augment_probability > 0
    network = build_network(training.network, side, channels, len(images.class_names), augment=augment)
    return network, tuple(images.class_names)


def _sampled(options: Options, directory: RunDirectory, known: ClassImages, network: Pretrained) -> np.ndarray:
    count, seed = options.splits.total * options.pools, options.seed
    return sample_pool(directory, network, options.sampler, labels=known.labels, count=count, seed=seed)


def _trained(options: Options, directory: RunDirectory) -> Pretrained:
    return load_checkpoint(trainer.train(options.training, _training_folder(directory)))


def _training_folder(directory: RunDirectory) -> Path:
    return directory.path / "training"


def _replicate_costs(options: Options, known: ClassImages) -> list[Cost]:
    """Mixtures and classifiers of all replicates; making features costs little beside."""
    k, d = len(known.labels), dimension(options, known.shape)
    every = len(curve_arms(options, options.real is not None)) + 2 * (options.draws - 1)  # auto counts as given
    splits, recipe, sets = options.splits, options.recipe, class_sets(options, known)
    drawn = sum(gaussian_sizes(options).values())
    fit_flop = 0.0
    for name, task in tasks(options, sets, k, 0).items():
        width = recipe.width if task.two_layer else task.classes.shape[1]
        of = 1 + 2 * options.draws if name.endswith("two-layer") else every
        visits = len(task.classes) * sum(task.per_class) * task.classes.shape[1] * recipe.epochs
        fit_flop += of * len(recipe.learning_rates) * visits * 4 * d * width
    fit_rows = min(splits.total, d)
    mixture = 2 * options.draws * k * (2 * splits.total * d * fit_rows + 2 * drawn * fit_rows * d)
    image, kept = 4 * k * d, every * drawn
    # The host keeps all sets of images; the devices hold one at a time, beside what it is made of.
    at_once = 2 * image * max(splits.total, *gaussian_sizes(options).values())
    again = options.resampled_pools * options.resampled_splits
    few = min(d, MOST_DIMENSIONS)
    ridge = every * (4 * k * options.sizes[-1] * few**2 + len(tasks(options, sets, k, 0)) * few**3)
    return [
        Cost(
            "mixtures",
            0,
            (options.replicates + again) * mixture,
            at_once,
            host=image * (kept + 2 * splits.total),
            about=f"Fitted to all {splits.total:,} images of each class, and drawn {options.draws} times in every "
            f"replicate. {_about_spectra(options, known)}",
        ),
        Cost(
            "classifiers",
            0,
            options.replicates * fit_flop,
            at_once,
            options.replicates * image,
            host=image * (kept + splits.total),
            about=_about_classifiers(options, known),
        ),
        Cost(
            "resampled",
            0,
            again * ridge,
            at_once,
            options.resampled_pools * image,
            host=image * (kept + splits.total),
        ),
    ]


def _about_classifiers(options: Options, known: ClassImages) -> str:
    """Problems, training sizes, test images, replicates and learning rates."""
    titles = [panel.title for panel in panels(options, class_sets(options, known), known.class_names)]
    sizes = ", ".join(f"{size:,}" for size in options.sizes)
    rates = ", ".join(f"{rate:g}" for rate in options.recipe.learning_rates)
    splits = options.splits
    return (
        f"{options.replicates} replicates of {len(titles)} problems: {'; '.join(titles)}. Training images of each "
        f"class: {sizes}; images of each class tested on: {splits.test + splits.fit:,}. Learning rates: {rates}."
    )


def _about_spectra(options: Options, known: ClassImages) -> str:
    """Images whose covariances and Gram matrices are looked at."""
    grams = gram_classes(options, class_sets(options, known), len(known.labels)).values()
    sizes = ", ".join(f"{len(classes)} classes x {count:,}" for classes, count in grams)
    return f"Covariance spectra: of {options.splits.total:,} images of each class. Gram matrices: {sizes} images."
