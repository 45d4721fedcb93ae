"""Curves with bands: how panels take a mean with two ends, and the mean and range of replicates."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.stats.estimates import Estimate
from dgu.core.arrays import as_floats
from dgu.core.errors import require

#: A curve of a panel: an estimate at each place, its mean with both ends of a band, or values without a band.
Curve: TypeAlias = Estimate | tuple[np.ndarray, np.ndarray, np.ndarray] | np.ndarray


def ends(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high of a curve, in whichever of its forms it was given; without a band all three are the same."""
    if isinstance(curve, Estimate):
        return np.asarray(curve.value), np.asarray(curve.low), np.asarray(curve.high)
    return (curve, curve, curve) if isinstance(curve, np.ndarray) else curve


def mean_and_range(
    values: Sequence[Any] | Num[ArrayLike, "..."], axis: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, minimum and maximum over one axis, such as that of seeds: a curve whose band is the range of replicates.

    Args:
        values: replicates along ``axis``.
        axis: the axis that is taken away.

    Raises:
        InputError: no replicate, or values that are no real numbers.
    """
    found = as_floats("values", values)
    require(found.ndim > 0 and found.shape[axis] > 0, "values.shape", found.shape, "one replicate or more")
    return found.mean(axis=axis), found.min(axis=axis), found.max(axis=axis)
