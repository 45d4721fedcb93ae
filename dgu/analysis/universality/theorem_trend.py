"""How err_X - err_G of Theorem 1 goes with the dimension: signed means over pairs, and the power of d that they follow.

What the theorem says goes to 0 is the expected difference. The size of the difference of a single pair, ``|err_X -
err_G|``, falls like ``d^(-1/2)`` even if both distributions are the same, as each error concentrates: it tells nothing
of universality.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require

#: Exponents that are tried: -4 to 4, a step apart.
_REACH, _STEP = 4.0, 0.002


@short_repr
@dataclass(frozen=True)
class GapTrend:
    """How a gap goes with the dimension. Made by ``gap_trend``.

    Attributes:
        means: mean over pairs of err_X - err_G in each dimension, with t intervals.
        exponent: b of ``mean = a d^b``, see ``decay_exponent``; standard errors are widened by the ratio of t to normal
            quantiles.
        sizes: (D,) mean over pairs of |err_X - err_G|: how much single pairs fluctuate.
    """

    means: tuple[Estimate, ...]
    exponent: Estimate
    sizes: np.ndarray


def gap_trend(
    dimensions: Num[np.ndarray, " D"], gaps: Sequence[Num[np.ndarray, " _"]], *, largest: float | int = 1.0
) -> GapTrend:
    """The signed means of err_X - err_G over dimensions: they go to 0 where universality holds.

    Args:
        dimensions: d, increasing, at least 2.
        gaps: err_X - err_G of the pairs of training sets in each.
        largest: the largest error there can be, 1 or in percentage points 100: the intervals of means end there.

    Raises:
        InputError: fewer than 2 dimensions, another number of gaps, fewer than 2 pairs, or a gap above ``largest``.
    """
    require(len(dimensions) >= 2, "number of dimensions", len(dimensions), "at least 2")
    require(len(gaps) == len(dimensions), "number of gaps", len(gaps), f"{len(dimensions)}, one for each dimension")
    d_values, values = as_doubles("dimensions", dimensions), [as_doubles("gaps", gap) for gap in gaps]
    for d, gap in zip(d_values, values):
        require(len(gap) >= 2, f"gaps at d = {d:g}", len(gap), "at least 2")
        most = float(np.abs(gap).max())
        require(most <= largest, f"largest |gap| at d = {d:g}", most, f"at most largest = {largest:g}")
    means = tuple(t_interval(gap, bounds=(-largest, largest)) for gap in values)
    value, error = (np.array([getattr(mean, name) for mean in means], float) for name in ("value", "standard_error"))
    # As wide as t intervals are for so few pairs: the fit takes its errors as known.
    wider = scipy.stats.t.ppf(0.975, np.array([len(gap) - 1 for gap in values])) / scipy.stats.norm.ppf(0.975)
    sizes = np.array([np.abs(gap).mean() for gap in values])
    return GapTrend(means, decay_exponent(d_values, value, wider * error), sizes)


def decay_exponent(
    x: Num[np.ndarray, " k"], means: Num[np.ndarray, " k"], errors: Num[np.ndarray, " k"], *, confidence: float = 0.95
) -> Estimate:
    """b of ``means = a x^b`` with normal errors of known size, a of either sign: the magnitude falls if b < 0.

    Logarithms of means that may be of either sign do not exist, so a and b are fitted to the means themselves, by
    weighted least squares. With ``S(b) = min_a sum_k (m_k - a x_k^b)^2 / s_k^2`` the interval holds all b with ``S(b)
    - min S <= z^2``, z the normal quantile: the likelihood-ratio interval with one degree of freedom, or the shortest
    one that contains it where it has gaps. Exponents are looked for within [-4, 4]. Means that are all near 0 have no
    exponent: the interval is then wide, up to all of these, and so it is where an error is 0, as nothing is known of
    the spread then.

    Args:
        x: positive numbers, two different ones at least.
        means: the means.
        errors: their standard errors.
        confidence: of the interval.

    Raises:
        InputError: shapes that differ, fewer than 2 values of x, values of x that are not positive, or errors below 0.

    Pawitan, In All Likelihood, section 2.6 (intervals), section 3.4 (profile likelihood).
    """
    x, m, s = as_doubles("x", x), as_doubles("means", means), as_doubles("errors", errors)
    fits = x.ndim == 1 and x.shape == m.shape == s.shape
    require(fits, "shapes of x, means and errors", (x.shape, m.shape, s.shape), "one and the same, (k,)")
    different = len(np.unique(x)) >= 2 and bool((x > 0).all() & np.isfinite(x).all())
    require(different, "x", x.tolist(), "positive and finite, two different ones at least")
    require(bool(np.isfinite(m).all()), "means", m.tolist(), "finite")
    require(bool((s >= 0).all() & np.isfinite(s).all()), "errors", s.tolist(), "0 or more and finite")
    known = bool((s > 0).all())
    exponents = np.arange(-round(_REACH / _STEP), round(_REACH / _STEP) + 1) * _STEP
    squares = _residual(np.log(x), m, s if known else np.ones_like(s), exponents)
    best = int(np.argmin(squares))
    limit = float(scipy.stats.chi2.ppf(confidence, 1)) if known else np.inf
    inside = exponents[squares <= squares[best] + limit]
    ends = float(inside[0]), float(inside[-1])
    return Estimate(float(exponents[best]), *ends, confidence, "likelihood ratio of a power law", len(x))


def _residual(
    log_x: Float[np.ndarray, " k"], m: Float[np.ndarray, " k"], s: Float[np.ndarray, " k"], b: Float[np.ndarray, " b"]
) -> Float[np.ndarray, " b"]:
    """S of ``decay_exponent`` at every exponent."""
    powers = np.exp(b[:, None] * (log_x - log_x.mean())) / s
    shares = np.square(powers @ (m / s)) / np.sum(np.square(powers), axis=1)
    return np.sum(np.square(m / s)) - shares
