"""Entries of estimates of arrays, for claims and figures."""

from typing import Any

import numpy as np

from dgu.analysis.stats.estimate import Estimate, as_estimate

#: An index of an array; ``()`` for a number.
Place = Any


def entry(found: object, place: Place = ()) -> Estimate:
    """One entry of an estimate of arrays (of any of the types that analyses return), as plain numbers."""
    whole = as_estimate(found)
    value, low, high = (float(np.asarray(part)[place]) for part in (whole.value, whole.low, whole.high))
    return Estimate(value, low, high)


def values(found: object) -> np.ndarray:
    """The values of an estimate of arrays."""
    return np.asarray(as_estimate(found).value)


def triple(found: object, place: Place = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and both ends of the intervals, for a figure."""
    whole = as_estimate(found)
    value, low, high = (np.asarray(part)[place] for part in (whole.value, whole.low, whole.high))
    return value, low, high
