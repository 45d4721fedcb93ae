"""The error of a linear classifier on Gaussian classes, exactly: Gaussian scores and the argmax rule.

On an example of class i the K scores of a linear classifier are jointly Gaussian, N(m, S). The example is classified
correctly if all K - 1 differences ``s_i - s_l`` are positive: a Gaussian orthant probability. For K = 2 it is
``Phi(a / sqrt(V))``; beyond, it is integrated after Genz's separation of variables (J. Comput. Graph. Stat. 1, 1992),
which turns the orthant into a product of normal probabilities over the unit cube of K - 2 dimensions, on a Sobol
sequence with random shifts. The spread over the shifts is the standard error of the integration.
"""

from dataclasses import dataclass

import jax
import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import seeded, threefry
from dgu.core.typing import Key

#: Independent shifts of the Sobol points: enough for a standard error, few enough for long sequences.
SHIFTS = 8
#: Added to the diagonal of correlation matrices: scores may depend on each other linearly.
JITTER = 1e-12


@short_repr
@dataclass(frozen=True)
class ClassificationError:
    """The error of a classifier on a mixture of classes.

    Attributes:
        error: probability that an example of the mixture is misclassified.
        standard_error: standard error of ``error``, from the numerical integration alone; 0 for two classes.
        class_errors: (K,) probability that an example of each class is misclassified.
    """

    error: float
    standard_error: float
    class_errors: np.ndarray


def argmax_error(
    means: Num[ArrayLike, "k k"],
    covariances: Num[ArrayLike, "k k k"],
    weights: Num[ArrayLike, " k"] | None = None,
    *,
    key: Key | None = None,
    points: int = 512,
) -> ClassificationError:
    """``sum_i pi_i P(i != argmax_l s_l)`` with scores ``s ~ N(means[i], covariances[i])`` on class i.

    Args:
        means: mean score of output l (column) on class i (row).
        covariances: covariance of the K scores on class i (first axis).
        weights: pi, positive, summing to 1; equal by default.
        key: key of the random shifts, ``jax.random.key(0)`` by default: calls with one key share their integration
            points, so that differences between them are smooth. Class i uses the address ``fold_in(key, i)``.
        points: Sobol points for each of 8 shifts, a power of 2. The standard error falls about as 1 / points.

    Raises:
        InputError: shapes that do not fit, non-finite values, weights that are not probabilities, ``points`` not a
            power of 2.
    """
    key = None if key is None else threefry(key)
    means, covariances = as_doubles("means", means), as_doubles("covariances", covariances)
    k = len(means)
    require(k >= 2, "number of classes", k, "at least 2")
    require(bool(np.isfinite(means).all() and np.isfinite(covariances).all()), "scores", "non-finite", "finite")
    require(points >= 1 and points & (points - 1) == 0, "points", points, "a power of 2")
    pi = class_weights(weights, k)
    key = seeded(0) if key is None else key
    nodes = None if k == 2 else _sobol(points, k - 2)
    found = []
    for label in range(k):
        others = np.delete(np.arange(k), label)
        differences = np.zeros((k - 1, k))
        differences[:, label] = 1
        differences[np.arange(k - 1), others] = -1
        margin, spread = differences @ means[label], differences @ covariances[label] @ differences.T
        found.append(_orthant(margin, spread, nodes, jax.random.fold_in(key, label)))
    right, errors = np.asarray(found).T
    return ClassificationError(
        error=float(pi @ (1 - right)), standard_error=float(np.linalg.norm(pi * errors)), class_errors=1 - right
    )


def classifier_error(
    classifier: Num[ArrayLike, "d k"],
    means: Num[ArrayLike, "k d"],
    covariances: Num[ArrayLike, "k d d"],
    weights: Num[ArrayLike, " k"] | None = None,
    *,
    key: Key | None = None,
    points: int = 512,
) -> ClassificationError:
    """The test error of ``argmax_l (x W)_l`` on the mixture of N(mu_i, Sigma_i), without test examples.

    The scores on class i are N(mu_i W, W^T Sigma_i W); see ``argmax_error``, also for the other arguments and errors.

    Args:
        classifier: W (d, K).
        means: mu (K, d).
        covariances: Sigma (K, d, d).
    """
    key = None if key is None else threefry(key)
    w, mu = as_doubles("classifier", classifier), as_doubles("means", means)
    spread = np.stack([w.T @ sigma @ w for sigma in as_doubles("covariances", covariances)])
    return argmax_error(mu @ w, spread, weights, key=key, points=points)


def class_weights(weights: Float[ArrayLike, " k"] | None, k: int) -> Float[np.ndarray, " k"]:
    """Class proportions, checked; equal ones for None."""
    if weights is None:
        return np.full(k, 1 / k)
    pi = as_doubles("weights", weights)
    sound = pi.shape == (k,) and bool((pi > 0).all()) and abs(float(pi.sum()) - 1) < 1e-6
    require(sound, "weights", pi.tolist(), f"{k} positive numbers that sum to 1")
    return pi / pi.sum()


def _sobol(points: int, dimension: int) -> np.ndarray:
    return scipy.stats.qmc.Sobol(dimension, scramble=False).random_base2(points.bit_length() - 1)


def _orthant(mean: np.ndarray, covariance: np.ndarray, nodes: np.ndarray | None, key: Key) -> tuple[float, float]:
    """P(all of N(mean, covariance) positive) and the standard error of the integration."""
    scale = np.sqrt(np.maximum(np.diag(covariance), np.finfo(float).tiny))
    limits = mean / scale
    if nodes is None:
        return float(scipy.special.ndtr(limits[0])), 0.0
    # The least likely condition first: it leaves the least variance to the rest (Genz and Bretz, 2009, sec. 4.1.3).
    order = np.argsort(limits)
    limits = limits[order]
    correlation = (covariance / scale[:, None] / scale[None, :])[np.ix_(order, order)]
    root = np.linalg.cholesky(correlation + JITTER * np.eye(len(limits)))
    shifts = np.asarray(jax.random.uniform(key, (SHIFTS, nodes.shape[1])), np.float64)
    u = (nodes[None] + shifts[:, None]) % 1.0
    drawn = np.empty((*u.shape[:2], len(limits) - 1))
    product = np.ones(u.shape[:2])
    for row in range(len(limits)):
        at = (limits[row] - drawn[..., :row] @ root[row, :row]) / root[row, row]
        probability = scipy.special.ndtr(at)
        product *= probability
        if row < drawn.shape[-1]:
            inside = np.clip(u[..., row] * probability, np.finfo(float).tiny, 1 - np.finfo(float).eps)
            drawn[..., row] = scipy.special.ndtri(inside)
    means = product.mean(axis=1)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(SHIFTS))
