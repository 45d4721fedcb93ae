"""What is measured on representations, with which options: accuracies and spectra of samples, mixture and null."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.moments.spectra import squared_singular_values
from dgu.analysis.universality.arms import PARTS, Task, assemble
from dgu.analysis.universality.designs import averaged, disjoint_arms, split_arms
from dgu.analysis.universality.recipe import Recipe
from dgu.analysis.universality.resampled import on_new_pool
from dgu.analysis.universality.ridge import classifier_accuracy
from dgu.core.keys import seed_of, stream
from dgu.core.typing import Key
from dgu.data.splits import class_splits
from experiments.concentration.subject import Subject
from experiments.pools import Resampling
from experiments.study import option

#: Shares of a class's images in each part of a split, in percent; the diffusion arm is tested on fit and test.
SHARES = {"fit": 40, "train": 35, "validation": 5, "test": 20}
#: Test images of the Gaussian arms as a multiple of the samples': they cost no sampling, and reduce the variance.
GAUSSIAN_TEST = 4


@dataclass(frozen=True)
class Config(Resampling, prefix="representations"):
    """Classifiers and spectra on pixels, on the penultimate layer of a small network, and on random convolutions."""

    replicates: int = option(12, ge=2)
    """Random splits of the samples."""
    draws: int = option(2, ge=1)
    """Draws of mixture and null for each split."""
    epochs: int = option(12, ge=1)
    """Passes of the small network over the real images that it is trained on."""
    width: int = option(16, ge=1)
    """Channels of the small network's first convolution; the network has 8 times as many features."""
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=30))
    """Training of the linear classifiers."""
    margin: float = option(2.5, gt=0.0)
    """Differences of accuracy below this count as none, in percentage points."""


def part_sizes(count: int) -> dict[str, int]:
    """Images of each class in the parts of a split of ``count``."""
    return {part: max(2, count * share // 100) for part, share in SHARES.items()}


def features(config: Config, subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """The samples in each representation, (K, n, d), divided by the root mean square.

    ``cnn_accuracy`` is the share of the samples that the network assigns to their own class.
    """
    images, real = subject.images, subject.real
    if real is None:
        spared = images.shape[1] // 3
        real, images = images[:, :spared], images[:, spared:]
    k = len(images)
    labels = np.repeat(np.arange(k, dtype=np.int32), real.shape[1])
    net = analysis.train_convnet(
        real.reshape(-1, *subject.shape),
        labels,
        stream(key, "network"),
        epochs=config.epochs,
        batch_size=min(128, len(labels)),
        width=config.width,
    )
    random = analysis.random_convolutions(stream(key, "random"), images.shape[2:])
    found = {
        "pixels": images.reshape(*images.shape[:2], -1),
        "cnn": analysis.represent(images, net.features),
        "random-conv": analysis.represent(images, partial(jax.jit(analysis.RandomConvolutions.__call__), random)),
    }
    scaled = {name: rows / np.sqrt(np.mean(np.square(rows, dtype=np.float64))) for name, rows in found.items()}
    accuracy = net.accuracy(images.reshape(-1, *subject.shape), np.repeat(np.arange(k), images.shape[1]))
    return {name: rows.astype(np.float32) for name, rows in scaled.items()} | {"cnn_accuracy": np.array(accuracy)}


def compare(config: Config, key: Key, rows: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Accuracy (replicates, arms) on test images of the own arm, and Gram spectra (replicates, r), of samples, mixture
    and null.
    """
    found = [design(config, config.recipe, key, seed, [rows], number) for number in range(config.replicates)]
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def resampled(config: Config, key: Key, rows: np.ndarray, seed: int, number: int) -> dict[str, np.ndarray]:
    """The same, by ridge least squares on the splits of pool ``number`` of those drawn anew."""
    rng, own = np.random.default_rng(seed_of(key, "resampled", number)), partial(design, config, None, key, seed)
    return on_new_pool([rows], rng, config.resampled_splits, own, whole=partial(spectra, key, seed))


def design(
    config: Config, recipe: Recipe | None, key: Key, seed: int, sets: Sequence[np.ndarray], number: int
) -> dict[str, np.ndarray]:
    """One split of the only set, (K, n, d), its classifiers trained by a recipe, or where there is none in closed form:
    ``accuracy`` (arms), the mean over draws, and the ``spectra``.
    """
    (rows,) = sets
    k, sizes, split = len(rows), part_sizes(rows.shape[1]), _split(rows, seed, number)
    gaussian = {part: sizes[part] * (GAUSSIAN_TEST if part == "test" else 1) for part in PARTS}
    arms = split_arms(rows, split, stream(key, "mixture", number), gaussian, draws=config.draws, disjoint=False)
    task, pool = Task("all", np.arange(k)[None], (sizes["train"],), "softmax_mse"), assemble(arms)
    accuracy = classifier_accuracy(pool, task, recipe, seed_of(key, "sgd", number), cross=False)[:, 0, 0]
    out = {"accuracy": np.stack(list(averaged(dict(zip(pool.arms, accuracy))).values()))}
    return out | spectra(key, seed, sets, number)


def spectra(key: Key, seed: int, sets: Sequence[np.ndarray], number: int) -> dict[str, np.ndarray]:
    """``spectrum.ARM`` (r) of the same split: of the part test, and of as many draws of the mixture that is fitted to
    the other images, and of its null.
    """
    (rows,) = sets
    split = _split(rows, seed, number)
    order = np.concatenate(list(split.values())[::-1], axis=1)  # The part test first.
    ordered = np.take_along_axis(rows, order[:, :, None], axis=1)
    arms = disjoint_arms(ordered, stream(key, "spectra", number), split["test"].shape[1])
    flat = {arm: images.reshape(-1, images.shape[-1]) for arm, images in arms.items()}
    return {f"spectrum.{arm}": np.asarray(squared_singular_values(rows)) / len(rows) for arm, rows in flat.items()}


def _split(rows: np.ndarray, seed: int, number: int) -> dict[str, np.ndarray]:
    """Places (K, part) of the parts of one split of (K, n, d) images."""
    sizes = part_sizes(rows.shape[1])
    by_class = [class_splits(rows.shape[1], sizes, seed, number, label) for label in range(len(rows))]
    return {part: np.stack([places[part] for places in by_class]) for part in sizes}
