"""A value with its standard error and 95 % interval, and the interval of a proportion."""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped
from scipy import stats

from dgu.core.errors import require


@dataclass(frozen=True)
class Estimate:
    """A value, its standard error and its 95 % interval: floats, or arrays with one entry per class."""

    value: float | np.ndarray
    standard_error: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray


def proportion(hits: Shaped[ArrayLike, "..."]) -> Estimate:
    """A fraction of independent cases, ``(n,)`` of truth values, with Wilson's 95 % interval.

    Raises:
        InputError: no cases, or an array of something else than truth values.
    """
    hits = np.asarray(hits)
    what = f"{hits.dtype} of shape {hits.shape}"
    require(
        hits.dtype == np.bool_ and hits.ndim == 1 and hits.size > 0, "hits", what, "(n,) of truth values, n 1 or more"
    )
    count, total = int(hits.sum()), len(hits)
    value = count / total
    low, high = wilson(value, total)
    return Estimate(value, float(np.sqrt(value * (1 - value) / total)), float(low), float(high))


def wilson(
    share: float | int | Float[np.ndarray, "..."], cases: float | int, confidence: float = 0.95
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Wilson's interval of a share of ``cases`` independent cases, which need be no whole number of them; in [0, 1]."""
    z2 = stats.norm.ppf((1 + confidence) / 2) ** 2
    share = np.asarray(share, np.float64)
    centre = (share + z2 / (2 * cases)) / (1 + z2 / cases)
    half = np.sqrt(z2 * (share * (1 - share) / cases + z2 / (4 * cases**2))) / (1 + z2 / cases)
    # Exactly 0 and 1 at the ends, where the two terms cancel but for rounding.
    low, high = np.where(share == 0, 0.0, centre - half), np.where(share == 1, 1.0, centre + half)
    return low, high
