"""The images that a run studies, as far as they are known before any is sampled: classes, shape and order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dgu.core.errors import require
from dgu.models import EDMNetwork
from experiments import train as trainer
from experiments.study.pool import class_list, load_images, of_classes
from experiments.universality.options import Options


@dataclass(frozen=True)
class Plan:
    """What is known of the images before any is sampled.

    Attributes:
        labels: the K classes studied, as numbers among ``names``.
        names: names of all classes.
        shape: shape of one image, (H, W, C).
        rows: (K, P) rows of the images studied in a file of features of all images.
        row_count: rows of such a file.
    """

    labels: tuple[int, ...]
    names: tuple[str, ...]
    shape: tuple[int, ...]
    rows: np.ndarray
    row_count: int


def given(options: Options) -> tuple[Plan, np.ndarray]:
    """The images of ``--samples``, equally many of each class, (K, P, H, W, C)."""
    assert options.samples is not None
    found = load_images("samples", options.samples, "train")
    names, total = tuple(found.class_names), options.splits.total
    require(len(names) >= 2, "samples", options.samples, "images with labels of two or more classes")
    labels = _labels(options, len(names))
    need = "(splits.fit + splits.train + splits.validation + splits.test)"
    images = of_classes("samples", options.samples, found, labels, total, need)
    rows = np.stack([np.flatnonzero(found.labels == label)[:total] for label in labels])
    return Plan(labels, names, tuple(images.shape[2:]), rows, len(found.labels)), images


def of_network(options: Options, network: EDMNetwork, names: Sequence[str]) -> Plan:
    """The images that are sampled from a network, class by class; ``names`` are those of its classes, if known."""
    available = network.unet.label_dim
    if options.train:
        require(available >= 2, "training.network.conditional", False, "True")
    else:
        require(available >= 2, "checkpoint", options.checkpoint, "a network of two or more classes")
    labels = _labels(options, available)
    count = len(labels) * options.splits.total
    rows = np.arange(count).reshape(len(labels), -1)
    return Plan(labels, tuple(names) or tuple(f"class {k}" for k in range(available)), network.shape, rows, count)


def network_to_train(options: Options) -> tuple[EDMNetwork, tuple[str, ...]]:
    """The network that ``--train`` makes, and the names of its classes."""
    training = options.training
    images = load_images("training.data", training.data, training.split, training.size)
    _, side, width, channels = images.images.shape
    require(side == width, "training.data", training.data, f"square images, not {side} x {width}")
    augment = training.training.augment_probability > 0
    network = trainer.build_network(training.network, side, channels, len(images.class_names), augment=augment)
    return network, tuple(images.class_names)


def _labels(options: Options, available: int) -> tuple[int, ...]:
    """The classes to study among ``available`` ones; enough for the largest subset."""
    labels = class_list(options.classes, available, at_least=2)
    fits = max(options.subset_sizes) <= len(labels)
    require(fits, "subset_sizes", options.subset_sizes, f"at most the number of classes, {len(labels)}")
    return labels
