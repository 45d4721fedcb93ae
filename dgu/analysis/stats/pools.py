"""Intervals of a mean over replicates that split one pool of images, with the variation between pools in them.

Given its pool, replicates (random splits, draws, orders) are independent, so that the mean of J of them has the
variance ``S^2 / J`` about the pool's own value. Another pool has another value: its variance ``V`` cannot be seen in
one pool. It is estimated from pools drawn anew (by a bootstrap of the images, or by sampling again) to which a cheaper
version of the same measurement is applied: ``SE^2 = S^2 / J + V``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float, Int, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import sample_deviation
from dgu.core.arrays import as_doubles, as_floats, check_squares, is_number
from dgu.core.brief import short_repr
from dgu.core.errors import require


@short_repr
@dataclass(frozen=True)
class PoolVariance:
    """The variance between pools of what a measurement gives on average over the splits of a pool.

    Attributes:
        value: the unbiased estimate v, which may be below 0.
        variance: the sampling variance s^2 of the estimate, as if mean squares were those of normal values.
        freedom: degrees of freedom of the mean square of the pools.
    """

    value: float | np.ndarray
    variance: float | np.ndarray
    freedom: int

    @property
    def expected(self) -> float | np.ndarray:
        """``E max(0, X)`` of X normal about v with the variance s^2: ``v Phi(v / s) + s phi(v / s)``.

        It is v where v is well known, and above it, and above 0, where it is not: an estimate that happens to lie near
        or below 0 is no evidence that pools do not differ.
        """
        value, spread = np.asarray(self.value, float), np.sqrt(np.asarray(self.variance, float))
        ratio = value / np.where(spread > 0, spread, 1.0)
        mean = value * scipy.special.ndtr(ratio) + spread * scipy.stats.norm.pdf(ratio)
        return np.where(spread > 0, mean, np.maximum(value, 0.0))


def no_pool_variance(shape: tuple[int, ...]) -> PoolVariance:
    """A variance of zero, for statements about the pools at hand alone."""
    return PoolVariance(np.zeros(shape), np.zeros(shape), 1)


def pool_variance(values: Num[np.ndarray, "*batch P J"]) -> PoolVariance:
    """The variance between pools, from P pools on each of which the same J splits were measured.

    By the two-way analysis of variance: with row means m_p, ``v = var(m) - M / J``, M the mean square of what neither
    the pool nor the split explains, with (P - 1) (J - 1) degrees of freedom, and ``s^2 = 2 var(m)^2 / (P - 1) + 2 (M /
    J)^2 / ((P - 1) (J - 1))``. What split number j does to every pool alike (its noise, its subset of classes) is part
    of neither.

    Args:
        values: by pool and split, P and J at least 2.

    Raises:
        InputError: fewer than two pools or splits, or values that are not finite.
    """
    values = as_doubles("values", values)
    require(values.ndim >= 2, "values.shape", values.shape, "(..., pools, splits)")
    pools, splits = values.shape[-2:]
    require(pools >= 2, "pools", pools, "at least 2")
    require(splits >= 2, "splits", splits, "at least 2")
    require(bool(np.isfinite(values).all()), "values", "non-finite", "finite")
    check_squares(np.float64, values=values)
    rows = values.mean(axis=-1)
    rest = values - rows[..., None] - values.mean(axis=-2, keepdims=True) + values.mean(axis=(-2, -1), keepdims=True)
    between = rows.var(axis=-1, ddof=1)
    freedom = (pools - 1) * (splits - 1)
    within = np.square(rest).sum(axis=(-2, -1)) / freedom / splits
    variance = 2 * between**2 / (pools - 1) + 2 * within**2 / freedom
    return PoolVariance(between - within, variance, pools - 1)


def pooled_interval(
    values: Num[np.ndarray, "*batch J"],
    between: PoolVariance,
    *,
    pool_of: Sequence[int] | Int[np.ndarray, " J"] | None = None,
    confidence: float = 0.95,
    bounds: tuple[float | int, float | int] = (-np.inf, np.inf),
) -> Estimate:
    """``mean +- t sqrt(S^2 / J + V / G)`` of J replicates that split G pools, equally many each.

    S^2 is the variance of replicates within their pool, V that between pools, ``between.expected``: its estimate cut at
    0 would leave it out in the very cases in which it came out too small. The degrees of freedom of t are
    Satterthwaite's, ``f = SE^4 / ((S^2 / J)^2 / (J - G) + (V / G)^2 / freedom)``, V with those of the mean square of
    the pools. Replicates that agree up to rounding show no spread: their standard error is 0 and the interval has no
    width, whatever V is.

    Args:
        values: one result per replicate along the last axis.
        between: the variance between pools, of the same batch; see ``pool_variance``.
        pool_of: number of the pool of each replicate, 0 to G - 1; by default all share one.
        confidence: two-sided.
        bounds: the range of what is estimated, to which the interval is cut.

    Raises:
        InputError: no two replicates of a pool, pools of unequal numbers of replicates, values that are not finite, a
            confidence outside (0, 1), or bounds that do not rise.
    """
    given, values = values, as_doubles("values", values)
    require(values.ndim >= 1 and values.size > 0, "values.shape", values.shape, "(..., J), one or more of each")
    count = values.shape[-1]
    pool = np.zeros(count, int) if pool_of is None else np.asarray(pool_of)
    require(pool.shape == (count,), "pool_of.shape", pool.shape, f"({count},), one for each replicate")
    numbers, sizes = np.unique(pool, return_counts=True)
    alike = bool((sizes == sizes[0]).all()) and sizes[0] >= 2
    require(alike, "replicates of each pool", sizes.tolist(), "equally many, 2 or more")
    require(bool(np.isfinite(values).all()), "values", "non-finite", "finite")
    require(is_number(confidence) and 0 < confidence < 1, "confidence", confidence, "strictly between 0 and 1")
    require(bounds[0] < bounds[1], "bounds", bounds, "(low, high) with low < high")
    inside = np.stack([values[..., pool == number].var(axis=-1, ddof=1) for number in numbers]).mean(axis=0) / count
    outside = np.asarray(between.expected) / len(numbers)
    squared = inside + outside
    known = sample_deviation(given) > 0
    inverse = inside**2 / (count - len(numbers)) + outside**2 / between.freedom
    freedom = np.where(known, squared**2 / np.where(inverse > 0, inverse, 1.0), 1.0)
    error = np.where(known, np.sqrt(squared), 0.0)
    half = scipy.stats.t.ppf((1 + confidence) / 2, freedom) * error
    centre = values.mean(axis=-1)
    ends = np.clip(centre - half, *bounds), np.clip(centre + half, *bounds)
    mean, low, high, spread = (float(x) if np.ndim(x) == 0 else x for x in (centre, *ends, error))
    method = "t, variance within and between pools"
    single = None if np.ndim(freedom) else float(freedom)
    return Estimate(mean, low, high, float(confidence), method, count, spread, freedom=single)


def smoothed_bootstrap(
    rows: Num[np.ndarray, "classes n d"], rng: np.random.Generator, bandwidth: float
) -> Float[np.ndarray, "classes n d"]:
    """A pool drawn anew: for each class n of its rows with replacement, each moved by noise of the class's covariance.

    With class mean m, ``x = m + (x_i - m + h e) / sqrt(1 + h^2)``, where i is drawn and e has the covariance of the
    class's rows: mean and covariance stay, and no two rows are equal. Source: Silverman
    and Young, Biometrika 74, 1987, section 2 (the shrunk smoothed bootstrap).

    Args:
        rows: the pool, by class.
        rng: source of the draws.
        bandwidth: h, positive; the larger, the nearer to a Gaussian.

    Raises:
        InputError: a bandwidth that is not positive and finite.
    """
    require(is_number(bandwidth) and 0 < bandwidth < np.inf, "bandwidth", bandwidth, "positive and finite")
    rows = as_floats("rows", rows)
    require(rows.ndim == 3, "rows.shape", rows.shape, "(classes, n, d)")
    out = np.empty_like(rows)
    for label, pool in enumerate(rows):
        mean = pool.mean(axis=0)
        centred = pool - mean
        chosen = centred[rng.integers(len(pool), size=len(pool))]
        # R^T R is the covariance, with the divisor n.
        root = np.linalg.qr(centred, mode="r") / np.sqrt(len(pool))
        noise = rng.standard_normal((len(pool), len(root))).astype(rows.dtype) @ root
        out[label] = mean + (chosen + bandwidth * noise) / np.sqrt(1 + bandwidth**2)
    return out
