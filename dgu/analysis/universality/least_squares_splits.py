"""Least squares predicted from the moments of a part of the images, beside its errors on splits of the other images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer, Num
from threadpoolctl import threadpool_limits

from dgu.analysis.universality.least_squares import least_squares_classifier
from dgu.analysis.universality.predicted import class_moments, predicted_curve
from dgu.core.arrays import as_floats
from dgu.core.errors import require
from dgu.data.splits import split_classes


def split_errors(
    images: Num[np.ndarray, "classes count d"],
    per_class: int,
    test: int,
    *,
    ridges: Sequence[float],
    replicates: int,
    seed: int,
) -> Float[np.ndarray, "replicates ridges"]:
    """Test errors of one-vs-all least squares on new random splits of the images, in [0, 1].

    Replicate r is split number 1 + r of ``dgu.data.splits.class_splits``: ``test`` images of each class are tested on,
    and of the others the first ``per_class`` are trained on, so that a larger training set contains the smaller ones.

    Args:
        images: (K, count, d).
        per_class: training images of each class, at most ``count - test``.
        test: test images of each class.
        ridges: lambdas, 0 is min-norm; all share their splits.
        replicates: splits.
        seed: of the splits.

    Raises:
        InputError: sizes that do not fit, or no replicate.
    """
    images = as_floats("images", images)
    k, count, _ = images.shape
    require(replicates >= 1, "replicates", replicates, "1 or more")
    require(1 <= test < count, "test", test, f"from 1 to {count - 1}")
    require(1 <= per_class <= count - test, "per_class", per_class, f"from 1 to {count - test}")
    labels, truth = np.repeat(np.arange(k), per_class), np.repeat(np.arange(k), test)
    errors = np.empty((replicates, len(ridges)))
    for number in range(replicates):
        split = split_classes(images, {"train": count - test, "test": test}, seed, 1 + number)
        train = np.concatenate(split["train"][:, :per_class])
        tested = np.concatenate(split["test"]).astype(np.float64)
        for place, ridge in enumerate(ridges):
            scores = tested @ least_squares_classifier(train, labels, k, ridge=ridge)
            errors[number, place] = np.mean(np.argmax(scores, axis=1) != truth)
    return errors


@threadpool_limits.wrap(limits=1)  # Matrices this small only wait for a second BLAS thread.
def predicted_and_split_errors(
    images: Num[np.ndarray, "classes count d"],
    per_class: Integer[np.ndarray, " sizes"],
    *,
    fit: int,
    test: int,
    between: int,
    replicates: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Moments of a part of the images, the asymptotic error that follows from them, and errors on the other images.

    Args:
        images: (K, count, d).
        per_class: training images of each class, rising.
        fit: images of each class that the moments come from: split number 0 of ``dgu.data.splits.class_splits``.
        test: images of each class that are tested on, among the others.
        between: further sizes at which the theory is evaluated, evenly spaced on a logarithmic axis, so that a line
            shows how the error peaks at n = d without a ridge.
        replicates: splits of the other images.
        seed: of the splits.

    Returns:
        ``means`` (K, d) and ``covariances`` (K, d, d); training images of all classes ``n`` at the sizes and between
        them, ``at`` the places of the sizes there, and at all of them the errors ``ridge`` and ``min_norm`` and the
        best ridge ``best``; at the sizes ``theory`` (sizes, 2), with the best ridge and without, and ``errors`` (sizes,
        2, replicates).

    Raises:
        InputError: as ``split_errors``.
    """
    images = as_floats("images", images)
    k, count, _ = images.shape
    split = split_classes(images, {"fit": fit, "rest": count - fit}, seed, 0)
    means, covariances = class_moments(split["fit"])
    n = k * per_class
    fine = np.unique(np.concatenate([n, np.geomspace(n[0], n[-1], between)]).round(6))
    curve = predicted_curve(means, covariances, np.arange(k)[None], fine)
    at = np.searchsorted(fine, n)
    errors = [
        split_errors(split["rest"], size, test, ridges=(ridge, 0.0), replicates=replicates, seed=seed).T
        for size, ridge in zip(per_class.tolist(), curve.best[at].tolist())
    ]
    return {
        "means": means,
        "covariances": covariances,
        "n": fine,
        "at": at,
        "ridge": curve.ridge,
        "min_norm": curve.min_norm,
        "best": curve.best,
        "theory": np.stack([curve.ridge[at], curve.min_norm[at]], axis=1),
        "errors": np.stack(errors),
    }
