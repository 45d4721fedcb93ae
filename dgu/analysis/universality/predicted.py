"""Predicted learning curves: the asymptotic error of least squares on a mixture against training size, without
training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num
from threadpoolctl import threadpool_limits

from dgu.analysis.universality.theory import asymptotic_error, best_ridge
from dgu.core.arrays import as_doubles, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import InputError, require

#: Sobol points a shift: an integration error of about 1e-4, less than a line is wide.
_POINTS = 64
#: Matrices up to this size are decomposed on one thread: BLAS threads that wait for each other cost six times the work.
_ONE_THREAD = 512


@short_repr
@dataclass(frozen=True)
class PredictedCurve:
    """Asymptotic test errors of least squares, averaged over subsets of classes.

    Attributes:
        n: (Z,) training examples of all classes together.
        min_norm: (Z,) error without a ridge; NaN at the interpolation threshold, where it has no limit.
        ridge: (Z,) error with the best ridge of each size.
        best: (Z,) the best ridge of each size.
    """

    n: np.ndarray
    min_norm: np.ndarray
    ridge: np.ndarray
    best: np.ndarray


def class_moments(
    rows: Num[ArrayLike, "classes n d"],
) -> tuple[Float[np.ndarray, "classes d"], Float[np.ndarray, "classes d d"]]:
    """Mean and covariance (``ddof=1``) of each class in float64: those of the mixture that ``fit_gaussian`` fits."""
    x = as_doubles("rows", rows)
    check_squares(np.float64, rows=x)
    means = x.mean(axis=1)
    centred = x - means[:, None]
    return means, np.swapaxes(centred, 1, 2) @ centred / (x.shape[1] - 1)


def size_grid(smallest: int, largest: int, points: int = 10) -> Float[np.ndarray, " sizes"]:
    """Sizes evenly spaced on a logarithmic axis, both ends included.

    Raises:
        InputError: ``smallest`` below 1 or above ``largest``, fewer than 2 points.
    """
    require(1 <= smallest <= largest, "smallest", smallest, f"from 1 to largest = {largest}")
    require(points >= 2, "points", points, "at least 2")
    return np.geomspace(smallest, largest, points)


def predicted_curve(
    means: Num[ArrayLike, "classes d"],
    covariances: Num[ArrayLike, "classes d d"],
    subsets: Integer[np.ndarray, "subsets k"],
    sizes: Sequence[float | int] | Num[np.ndarray, " sizes"],
) -> PredictedCurve:
    """Errors of one-vs-all least squares on each subset of the classes at each size, averaged over the subsets.

    Each is ``dgu.analysis.asymptotic_error``; equal subsets are computed once. The ridge of a size is the best one for
    the first subset.

    Args:
        means, covariances: of all classes.
        subsets: (S, k) classes to tell apart, k at least 2; a subset that occurs twice counts twice.
        sizes: training examples of all classes of a subset together.

    Raises:
        InputError: as ``dgu.analysis.asymptotic_error``, but for sizes at the interpolation threshold.
    """
    mu, sigma = as_doubles("means", means), as_doubles("covariances", covariances)
    unique, counts = np.unique(np.sort(subsets, axis=1), axis=0, return_counts=True)
    share = counts / counts.sum()
    first = unique[0]
    n = as_doubles("sizes", sizes)
    min_norm, ridge, best = np.empty((len(unique), len(n))), np.empty((len(unique), len(n))), np.empty(len(n))
    with threadpool_limits(1 if mu.shape[1] <= _ONE_THREAD else None):
        for place, size in enumerate(n.tolist()):
            best[place] = best_ridge(mu[first], sigma[first], size, points=_POINTS).ridge
            for row, chosen in enumerate(unique):
                at = mu[chosen], sigma[chosen], size
                ridge[row, place] = asymptotic_error(*at, ridge=float(best[place]), points=_POINTS).error
                min_norm[row, place] = _min_norm(*at)
    return PredictedCurve(n, share @ min_norm, share @ ridge, best)


def _min_norm(mu: np.ndarray, sigma: np.ndarray, size: float) -> float:
    """The error without a ridge; NaN where the weights diverge or where classes pass the threshold one by one."""
    try:
        return asymptotic_error(mu, sigma, size, points=_POINTS).error
    except InputError as error:
        if str(error).startswith(("n = ", "ridge = 0.0")):
            return np.nan
        raise
