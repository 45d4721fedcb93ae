"""Entries of estimates of arrays, for figures."""

from typing import Any

import numpy as np

from dgu.analysis.stats.estimates import Estimate


def triple(found: Estimate, place: Any = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and both ends of the intervals of some entries, for a figure."""
    value, low, high = (np.asarray(part)[place] for part in (found.value, found.low, found.high))
    return value, low, high
