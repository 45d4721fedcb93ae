"""A measured value with its uncertainty: the one type that analyses return, and claims, tables and plots take."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from dgu.core.arrays import is_number
from dgu.core.errors import require


@dataclass(frozen=True)
class Estimate:
    """A value and its two-sided interval: floats, or arrays of one shape for several values at once.

    Attributes:
        value: the point estimate.
        low, high: ends of the interval. An interval without width is no certainty, unless ``exact``: it comes from replicates that
            all agree.
        level: probability with which the interval is meant to cover the true value.
        method: how the interval was made, such as ``"t over replicates"``.
        n: how many observations or replicates it rests on; None where that is not one number.
        standard_error: of the value, where the method has one.
        exact: the value has no sampling error: a closed form, a count, or the one result of a deterministic computation.
    """

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    level: float = 0.95
    method: str = ""
    n: int | None = None
    standard_error: float | np.ndarray | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        require(is_number(self.level) and 0 < self.level < 1, "level", self.level, "strictly between 0 and 1")
        unordered = np.asarray(self.low) > np.asarray(self.high)
        require(not bool(unordered.any()), "interval", (self.low, self.high), "(low, high) with low <= high")


def exactly(value: float) -> Estimate:
    """An ``Estimate`` of a value that is known exactly."""
    return Estimate(value, value, value, method="exact", exact=True)


def normal_estimate(
    value: float | np.ndarray,
    standard_error: float | np.ndarray,
    *,
    level: float = 0.95,
    n: int | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """``value +- z standard_error`` with the normal quantile z, for a value that is nearly normal; cut to ``bounds``.

    Args:
        value: the point estimate.
        standard_error: its standard error, 0 or more.
        level: probability of the two-sided interval.
        n: how many observations it rests on.
        bounds: range of what is estimated: ``(0, 1)`` for a share, ``(-1, 1)`` for a correlation.
    """
    half = stats.norm.ppf((1 + level) / 2) * np.asarray(standard_error)
    low, high = np.clip(value - half, *bounds), np.clip(value + half, *bounds)
    if np.ndim(value) == 0:
        low, high = float(low), float(high)
    return Estimate(value, low, high, level, "normal", n, standard_error)


def as_estimate(found: object) -> Estimate:
    """An ``Estimate`` of what an older analysis returns, which has ``low``, ``high`` and ``estimate`` or ``value``."""
    if isinstance(found, Estimate):
        return found
    value = found.estimate if hasattr(found, "estimate") else found.value  # type: ignore[attr-defined]
    return Estimate(value, found.low, found.high, standard_error=getattr(found, "standard_error", None))  # type: ignore[attr-defined]
