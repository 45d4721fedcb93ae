"""One-vs-all least squares, with a ridge or without, and its error on a Gaussian mixture by simulation."""

from collections.abc import Sequence

import jax
import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from dgu.analysis.universality.argmax import class_weights, classifier_error
from dgu.core.arrays import as_doubles, as_labels
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key


def least_squares_classifier(
    x: Num[ArrayLike, "n d"], labels: Integer[ArrayLike, " n"], num_classes: int, *, ridge: float | int = 0.0
) -> Float[np.ndarray, "d k"]:
    """``argmin_W ||Y - X W||_F^2 / n + ridge ||W||_F^2`` for one-hot Y, in float64; the min-norm solution for ridge 0.

    Solved in the smaller of the two spaces (d x d or n x n). Classify by ``argmax(x @ W)``.

    Args:
        x: rows, not centred; there is no bias.
        labels: 0 .. num_classes - 1.
        num_classes: K.
        ridge: 0 or more.

    Raises:
        InputError: a label out of range, or a negative ridge.
    """
    rows = as_doubles("x", x)
    y = as_labels("labels", labels, len(rows))
    inside = bool((y < num_classes).all())
    require(inside, "labels", (int(y.min()), int(y.max())), f"from 0 to {num_classes - 1}")
    require(0 <= ridge < np.inf, "ridge", ridge, "0 or more")
    n, d = rows.shape
    targets = np.eye(num_classes)[y]
    if ridge == 0:
        return scipy.linalg.lstsq(rows, targets, check_finite=False)[0]
    gram = rows.T @ rows if d <= n else rows @ rows.T
    gram[np.diag_indices_from(gram)] += n * ridge
    if d <= n:
        return scipy.linalg.solve(gram, rows.T @ targets, assume_a="pos", check_finite=False)
    return rows.T @ scipy.linalg.solve(gram, targets, assume_a="pos", check_finite=False)


def simulated_errors(
    means: Num[ArrayLike, "k d"],
    covariances: Num[ArrayLike, "k d d"],
    n: int,
    ridges: Sequence[float],
    key: Key,
    replicates: int,
    *,
    weights: Num[ArrayLike, " k"] | None = None,
    points: int = 128,
) -> Float[np.ndarray, "replicates ridges"]:
    """Test errors of least squares trained on n samples of the mixture, each exact given its weights: what
    ``asymptotic_error`` predicts.

    Replicate r draws its training set from ``stream(key, "simulated", r)``; all ridges of a replicate share it.

    Args:
        means, covariances, weights: the mixture, as for ``asymptotic_error``.
        n: training samples of all classes together, round(pi_k n) of class k.
        ridges: lambdas; 0 is min-norm.
        key: key of the draws.
        replicates: training sets.
        points: number of points of the integration over scores, see ``argmax_error``.

    Raises:
        InputError: no replicate, or a class without a sample.
    """
    key = threefry(key)
    mu, sigma = as_doubles("means", means), as_doubles("covariances", covariances)
    k, d = mu.shape
    require(replicates >= 1, "replicates", replicates, "at least 1")
    counts = np.round(class_weights(weights, k) * n).astype(int)
    require(bool(counts.min() >= 1), "n", n, "large enough for a sample of each class")
    roots = [_root(one) for one in sigma]
    labels = np.repeat(np.arange(k), counts)
    errors = np.empty((replicates, len(ridges)))
    for number in range(replicates):
        z = np.asarray(jax.random.normal(stream(key, "simulated", number), (len(labels), d)), np.float64)
        x = np.concatenate([mu[c] + z[labels == c] @ roots[c] for c in range(k)])
        for place, ridge in enumerate(ridges):
            w = least_squares_classifier(x, labels, k, ridge=ridge)
            errors[number, place] = classifier_error(w, mu, sigma, weights, points=points).error
    return errors


def _root(covariance: np.ndarray) -> np.ndarray:
    """R with R^T R = covariance, which may be singular."""
    values, vectors = scipy.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))).T
