"""Does a curve over training time have a minimum followed by a rise? Asked of many seeds, never of one.

The minimum of a noisy curve lies below its end in any case, so that comparing the two on the curves that chose the
minimum always finds a rise. Here one half of the seeds chooses the time of the minimum, by the median of its smoothed
curves, and the other half is compared between that time and the end; then the halves change roles. Each seed's
difference is thus free of the selection. With few seeds, ``least_of_others`` chooses for each on all others.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require


@short_repr
@dataclass(frozen=True)
class EarlyStopping:
    """The result of ``early_stopping``: whether curves rise after their minimum.

    Attributes:
        rise: mean of the seeds' differences, smoothed value at the end minus smoothed value at the time that the other
            half chose, with its t interval over seeds; where both halves chose the end it is 0 without width, which
            decides nothing.
        differences: that difference for each seed.
        minimum: index in time of the minimum of the median of all seeds' smoothed curves.
        apparent: end minus minimum of ``median``: 0 or more by construction, for comparison.
        median: the median over all seeds of the smoothed curves.
    """

    rise: Estimate
    differences: np.ndarray
    minimum: int
    apparent: float
    median: np.ndarray


def smoothed(curves: Num[np.ndarray, "*r e"], window: int) -> Float[np.ndarray, "*r e"]:
    """Centred running mean over ``window`` (odd) measurements, over fewer at the ends.

    Raises:
        InputError: an even window or one below 1.
    """
    require(window == int(window) and window >= 1 and window % 2 == 1, "window", window, "odd, 1 or more")
    curves = as_doubles("curves", curves)
    length, half = curves.shape[-1], window // 2
    sums = np.concatenate([np.zeros((*curves.shape[:-1], 1)), np.cumsum(curves, axis=-1)], axis=-1)
    low = np.maximum(np.arange(length) - half, 0)
    high = np.minimum(np.arange(length) + half + 1, length)
    return (sums[..., high] - sums[..., low]) / (high - low)


def early_stopping(curves: Num[np.ndarray, "r e"], *, window: int = 5) -> EarlyStopping:
    """Test the rise after the minimum over seeds, each a curve of E measurements.

    Args:
        curves: one row a seed, independent of each other.
        window: measurements of the running mean, odd.

    Raises:
        InputError: fewer than 4 seeds, values that are not finite (leave diverged runs out and say so), an even window.
    """
    curves = as_doubles("curves", curves)
    require(curves.ndim == 2 and len(curves) >= 4, "curves.shape", curves.shape, "(R, E), at least 4 seeds")
    require(bool(np.isfinite(curves).all()), "curves", "non-finite", "finite")
    smooth = smoothed(curves, window)
    differences = np.empty(len(curves))
    for half in (0, 1):
        at = int(np.argmin(np.median(smooth[half::2], axis=0)))
        others = smooth[1 - half :: 2]
        differences[1 - half :: 2] = others[:, -1] - others[:, at]
    median = np.median(smooth, axis=0)
    minimum = int(np.argmin(median))
    return EarlyStopping(t_interval(differences), differences, minimum, float(median[-1] - median[minimum]), median)


def least_of_others(curves: Num[np.ndarray, "r e"]) -> Int[np.ndarray, " r"]:
    """For each curve, the place at which the median of all the others is least (the first, of several).

    A curve's own value there may lie above or below its value anywhere else. At its own least place it lies below by
    construction, so that a comparison of the two finds a minimum in any noise.

    Args:
        curves: one row a seed, independent of each other, at least 2.

    Raises:
        InputError: fewer than 2 curves, no places, or values that are not finite.
    """
    curves = as_doubles("curves", curves)
    fits = curves.ndim == 2 and len(curves) >= 2 and curves.shape[1] >= 1
    require(fits, "curves.shape", curves.shape, "(R, E), at least 2 curves and 1 place")
    require(bool(np.isfinite(curves).all()), "curves", "non-finite", "finite")
    return np.array([np.median(np.delete(curves, row, axis=0), axis=0).argmin() for row in range(len(curves))])
