"""How good is a generative model of labelled images? All measures of its samples, beside those of real images."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dgu.analysis.quality.distances import (
    extract_features,
    kernel_distance,
    nearest_neighbours,
    precision_recall,
    variance_ratio,
)
from dgu.analysis.stats.estimates import Estimate, proportion
from dgu.core.arrays import as_floats, as_labels, check_cast
from dgu.core.errors import require
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.data.sets import ImageSet
from dgu.training.classifiers.convnet import ConvNet, train_convnet


def quality_card(
    samples: np.ndarray,
    labels: np.ndarray,
    train: ImageSet,
    heldout: ImageSet,
    key: Key,
    *,
    epochs: int = 12,
    block_size: int = 500,
    say: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """How good samples of labelled images are, in plain JSON values.

    An evaluation classifier, a small convolutional network that is trained on ``train``, says which samples look like
    their class, and supplies the features of KID, precision and recall. Every number stands beside the same number for
    real training images in place of the samples: what a perfect model would show.

    Args:
        samples: (n, h, w, c) generated images, in the range of the real ones.
        labels: (n,) the class that each was generated for.
        train: the training images of the model, which also train the evaluation classifier.
        heldout: images that neither has seen.
        key: of the classifier, the blocks, the bootstraps and the choice of real images for the reference column.
        epochs: of the classifier.
        block_size: rows of a KID block; smaller where there are fewer than four blocks.
        say: told what is going on.

    Returns:
        ``samples`` and ``reference`` (real training images, as many of each class): accuracy, KID on features and on
        pixels, precision and recall, variance of each class over that of held-out images, and distances to the nearest
        training image over those of held-out images, each with an interval; ``heldout_accuracy``; ``checks``: each
        requirement with its value and whether it holds; ``class_names``, ``count`` and ``data``.

    Raises:
        InputError: shapes or labels that do not fit, or samples that are not finite numbers.
    """
    judge_key, reference_key = stream(key, "judge"), stream(key, "reference")
    samples, classes = as_floats("samples", samples), len(heldout.class_names)
    labels = as_labels("labels", labels, len(samples))
    require(len(samples) > 0, "samples", len(samples), "at least one image")
    require(samples.shape[1:] == heldout.images.shape[1:], "samples.shape", samples.shape, str(heldout.images.shape))
    require(bool(np.isfinite(samples).all()), "samples", "non-finite", "finite")
    require(labels.max() < classes, "labels", int(labels.max()), f"0 to {classes - 1}")
    check_cast("samples", samples)
    samples = samples.astype(np.float32)

    say(f"training the evaluation classifier on {len(train)} images")
    judge = train_convnet(train.images, train.labels, judge_key, epochs=epochs, classes=classes)
    chosen = _same_classes(train, labels, reference_key)
    # The classifier was fitted to the reference images: its accuracy on them says nothing, the held-out one counts.
    heldout_accuracy = _plain(proportion(judge.predict(heldout.images) == heldout.labels))
    columns = {}
    for name, images, image_labels, rest in (
        ("samples", samples, labels, train.images),
        ("reference", train.images[chosen], train.labels[chosen], np.delete(train.images, chosen, axis=0)),
    ):
        say(f"measuring {len(images)} images: {name}")
        # The reference images are looked up among the other training images, or each would be its own neighbour.
        columns[name] = _column(
            images,
            image_labels,
            train_images=rest,
            heldout=heldout,
            judge=judge,
            key=stream(key, name),
            block_size=block_size,
        )
    return {
        "count": len(samples),
        "class_names": list(heldout.class_names),
        "data": {"train": train.sha256, "heldout": heldout.sha256, "train_images": len(train), "images": len(heldout)},
        "heldout_accuracy": heldout_accuracy,
        **columns,
        "checks": _checks(columns["samples"], heldout_accuracy),
    }


def _same_classes(train: ImageSet, labels: np.ndarray, key: Key) -> np.ndarray:
    """Training rows, of each class as many as the samples have, but at most half of those there are."""
    chosen = []
    for label, count in zip(*np.unique(labels, return_counts=True)):
        rows = np.flatnonzero(train.labels == label)
        require(len(rows) >= 4, "training images of a class", len(rows), f"4 or more of class {label}")
        order = np.asarray(jax.random.permutation(stream(key, int(label)), len(rows)))
        chosen.append(rows[order[: min(count, len(rows) // 2)]])
    return np.sort(np.concatenate(chosen))


def _column(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    train_images: np.ndarray,
    heldout: ImageSet,
    judge: ConvNet,
    key: Key,
    block_size: int,
) -> dict[str, Any]:
    """Every measure of one set of images."""
    pixels, real_pixels = extract_features(images), extract_features(heldout.images)
    features, real = extract_features(images, judge.features), extract_features(heldout.images, judge.features)
    block_size = min(block_size, min(len(features), len(real)) // 4)
    size = min(len(features), len(real))  # both manifolds of the same number of rows
    orders = [
        np.asarray(jax.random.permutation(stream(key, "rows", i), len(rows)))[:size]
        for i, rows in enumerate((features, real))
    ]
    precision, recall = precision_recall(features[orders[0]], real[orders[1]])
    neighbours = nearest_neighbours(pixels, extract_features(train_images), real_pixels, stream(key, "neighbours"))
    ratio = variance_ratio(pixels, labels, real_pixels, heldout.labels, stream(key, "variance"))
    return {
        "accuracy": _plain(proportion(judge.predict(images) == labels)),
        "kid_features": _plain(kernel_distance(features, real, stream(key, "kid"), block_size=block_size)),
        "kid_pixels": _plain(kernel_distance(pixels, real_pixels, stream(key, "kid"), block_size=block_size)),
        "precision": _plain(precision),
        "recall": _plain(recall),
        "variance_ratio": _plain(ratio),
        "neighbours": {
            "median": float(np.median(neighbours.sample_distance)),
            "heldout_median": float(np.median(neighbours.heldout_distance)),
            "smallest": float(neighbours.sample_distance.min()),
            "heldout_smallest": float(neighbours.heldout_distance.min()),
            "median_ratio": _plain(neighbours.median_ratio),
            "tail_ratio": _plain(neighbours.tail_ratio),
            "closer": _plain(neighbours.closer),
        },
    }


def _checks(column: dict[str, Any], heldout: dict[str, Any]) -> list[dict[str, Any]]:
    """What is asked of a bundled model. Distances fail where their whole interval is below held-out images'."""
    ratios, neighbours = column["variance_ratio"]["value"], column["neighbours"]
    difference = column["accuracy"]["value"] - heldout["value"]
    found = [
        ("judge's accuracy on samples minus on held-out images", difference, -0.05, 0.05),
        ("smallest variance ratio of a class", min(ratios), 0.8, 1.2),
        ("largest variance ratio of a class", max(ratios), 0.8, 1.2),
        ("upper end of the ratio of median nearest-neighbour distances", neighbours["median_ratio"]["high"], 1.0, None),
        ("upper end of the ratio of first percentiles of distances", neighbours["tail_ratio"]["high"], 1.0, None),
    ]
    return [
        {
            "check": text,
            "value": value,
            "low": low,
            "high": high,
            "holds": bool(value >= low and (high is None or value <= high)),
        }
        for text, value, low, high in found
    ]


def _plain(estimate: Estimate) -> dict[str, Any]:
    numbers = {"value": estimate.value, "se": estimate.standard_error, "low": estimate.low, "high": estimate.high}
    return {name: np.asarray(number, float).tolist() for name, number in numbers.items()}
