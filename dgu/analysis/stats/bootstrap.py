"""The interval of any statistic from redraws of its samples."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.stats.estimates import Estimate
from dgu.core.arrays import as_floats
from dgu.core.errors import require, require_whole


def bootstrap_interval(
    statistic: Callable[..., Any],
    *samples: Sequence[float | int] | Num[ArrayLike, "..."],
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic of one or several independent samples, with the 95 % percentile interval of its bootstrap.

    Every sample is redrawn with replacement by itself, ``resamples`` times; the ends are the 2.5 % and the 97.5 %
    quantile of the statistic over these, moved outwards where they leave its value out.

    Args:
        statistic: ``statistic(*samples, axis=0)`` reduces the first axis of each sample, as ``np.median`` does. All
            redrawn samples are given to it at once, with the redraws as the second axis.
        samples: one observation per entry of the first axis.
        resamples: number of redraws.
        seed: of the redraws.

    Raises:
        InputError: an empty sample, values that are not finite, fewer than 1 redraw, a seed that is no whole number, or
            a statistic that does not give one finite number for each redraw.

    Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
    """
    require_whole("resamples", resamples)
    require_whole("seed", seed, 0)
    require(len(samples) > 0, "samples", samples, "one or more")
    arrays = [as_floats("samples", sample) for sample in samples]
    for array in arrays:
        require(array.ndim >= 1 and len(array) >= 1, "samples.shape", array.shape, "(n, ...), n at least 1")
        require(bool(np.isfinite(array).all()), "samples", "non-finite", "finite")
    rng = np.random.default_rng(int(seed))
    value = np.asarray(statistic(*arrays, axis=0))
    redrawn = [array[rng.integers(0, len(array), (len(array), int(resamples)))] for array in arrays]
    values = np.asarray(statistic(*redrawn, axis=0))
    shapes = value.shape, values.shape
    require(shapes == ((), (int(resamples),)), "shapes of the statistic", shapes, f"(), and ({resamples},) of redraws")
    sound = bool(np.isfinite(value)) and bool(np.isfinite(values).all())
    require(sound, "statistic", float(value), "finite, of each redraw as well")
    low, high = np.quantile(values, [0.025, 0.975])
    ends = min(float(low), float(value)), max(float(high), float(value))
    return Estimate(float(value), *ends, method="bootstrap percentiles")
