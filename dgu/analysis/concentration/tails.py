"""How heavy are the tails of Lipschitz functions of the data? Bounds, sub-Gaussian norms, tail indices, left-over mass.

Concentration of measure (Definition 1 of Ghane et al., arXiv 2501.07741), with the constants written out: x
concentrates with scale s if for every 1-Lipschitz f and every t > 0

    P(|f(x) - E f(x)| > t) <= 2 exp(-t^2 / (2 s^2)).

For x ~ N(mu, Sigma) it holds with ``s^2 = ||Sigma||_op``, whatever the dimension. Values come as ``(n, functions)``,
one column for each function (``dgu.analysis.concentration.lipschitz``). ``E f`` is replaced by the mean of the
column, which moves a centre by about ``std / sqrt(n)``. A calibrated test is ``dgu.analysis.tail_test``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf, log, sqrt
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Num

from dgu.analysis.stats.estimates import Estimate, normal_estimate
from dgu.analysis.stats.resampling import rounding
from dgu.core.arrays import as_doubles, as_floats, as_jax_floats, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key

_HIGHEST = jax.lax.Precision.HIGHEST
#: psi_2 norm of a standard normal variable: ``E exp(Z^2 / K^2) = (1 - 2 / K^2)^(-1/2) = 2`` at ``K^2 = 8 / 3``.
GAUSSIAN_PSI2 = sqrt(8 / 3)
#: Least values per function for estimates and curves.
MIN_VALUES = 20


def tail_bound(t: Num[ArrayLike, "..."], scale: float | int) -> Float[np.ndarray, "..."]:
    """``2 exp(-t^2 / (2 scale^2))``: what Definition 1 allows with C = 2; above 1 it says nothing.

    Raises:
        InputError: ``scale`` is not positive and finite.
    """
    require(0 < scale < inf, "scale", scale, "positive and finite")
    return 2 * np.exp(-np.square(as_doubles("t", t) / scale) / 2)


@short_repr
@dataclass(frozen=True)
class TailCurves:
    """Two-sided empirical tails, and the bound.

    Fields: ``t`` (levels,) deviations in the unit of the values; ``survival`` (functions, levels) fractions with
    ``|f - mean f| > t``; ``low`` and ``high`` their pointwise 95 % Clopper-Pearson intervals; ``bound`` (levels,) and
    ``scale``.
    """

    t: np.ndarray
    survival: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bound: np.ndarray
    scale: float


def tail_curves(
    values: Num[ArrayLike, "n functions"],
    scale: float | int,
    levels: Sequence[float | int] | Num[ArrayLike, " levels"] | None = None,
) -> TailCurves:
    """Log-survival curves of each function against ``2 exp(-t^2 / (2 scale^2))``.

    Args:
        values: (n, functions).
        scale: s of the bound, ``sqrt(||Sigma||_op)``.
        levels: deviations t in units of ``scale``; 0 to 6 in steps of 0.1 unless given.

    Raises:
        InputError: fewer than 20 values, non-finite ones, a function that is constant, or a scale that is not positive.
    """
    values = _checked(values)
    require(0 < scale < float("inf"), "scale", scale, "positive and finite")
    t = float(scale) * (np.linspace(0, 6, 61) if levels is None else as_doubles("levels", levels))
    counts = _exceedances(values, t)
    low, high = _clopper_pearson(counts, len(values), 0.05)
    return TailCurves(t, counts / len(values), low, high, tail_bound(t, scale), float(scale))


def left_over_mass(
    values: Num[ArrayLike, "n functions"], scale: float | int, *, confidence: float = 0.95, levels: int = 24
) -> Estimate:
    """The smallest delta in ``P(|f - E f| > t) <= 2 exp(-t^2 / (2 s^2)) + delta`` for all t: approximate concentration.

    The value of a function is the largest excess of its empirical tail over the bound at ``levels`` deviations t from s
    to 7 s. The interval holds for every function and all t at once, for any sample size: Clopper-Pearson limits,
    corrected (Bonferroni) for levels and functions, and between two levels the tail's upper limit at the lower one
    against the bound at the upper one. Even where no value lies beyond the bound its upper end is not 0, but about
    ``log(2 levels functions / 0.05) / n``.

    Args:
        values: (n, functions), independent rows.
        scale: s, known or estimated from other data; its own error is not in the interval.
        confidence: of the interval.
        levels: deviations looked at.

    Returns:
        An ``Estimate`` of arrays (functions,), in units of probability; the standard error is that of the tail where it
        exceeds most.

    Raises:
        InputError: as ``tail_curves``, or ``confidence`` outside (0, 1), or fewer than 2 levels.
    """
    values = _checked(values)
    require(0 < scale < float("inf"), "scale", scale, "positive and finite")
    require(0 < confidence < 1, "confidence", confidence, "strictly between 0 and 1")
    require(levels >= 2, "levels", levels, "2 or more")
    levels = int(levels)
    t = float(scale) * np.linspace(1.0, 7.0, levels)
    n, bound = len(values), tail_bound(t, scale)
    counts = _exceedances(values, t)
    low, high = _clopper_pearson(counts, n, (1 - confidence) / (levels * values.shape[1]))
    survival, following = counts / n, np.append(bound[1:], 0.0)
    excess = survival - bound
    worst = np.take_along_axis(survival, excess.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Estimate(
        np.maximum(excess.max(axis=1), 0.0),
        np.maximum((low - bound).max(axis=1), 0.0),
        np.maximum((high - following).max(axis=1), 0.0),
        confidence,
        "Clopper-Pearson",
        n,
        np.sqrt(worst * (1 - worst) / n),
    )


@dataclass(frozen=True)
class TailEstimates:
    """Measures of the tails of each function: ``Estimate`` fields with arrays (functions,).

    Attributes:
        std: standard deviation, in the unit of the values.
        psi2: sub-Gaussian norm ``inf{K : E exp((f - E f)^2 / K^2) <= 2}``; a Gaussian's is 1.633 times its standard
            deviation. The empirical one exists for any data; for Gaussian data ``exp(.)`` has no variance, so it
            converges slowly, from below.
        kurtosis: excess kurtosis, 0 for a Gaussian; its sampling deviation there is ``sqrt(24 / n)``.
        hill: Hill's estimate of the index a in ``P(|f - E f| > t) ~ t^-a``, from the ``floor(sqrt(n))`` largest
            deviations (or more, where these are tied: see ``hill_index``). It is 3 for Student-t with 3 degrees of
            freedom; for a Gaussian it grows with n without bound (about 7 at n = 2,000).
    """

    std: Estimate
    psi2: Estimate
    kurtosis: Estimate
    hill: Estimate


def tail_estimates(values: Num[ArrayLike, "n functions"], key: Key, resamples: int = 200) -> TailEstimates:
    """Estimates with 95 % intervals: percentiles of a bootstrap over rows, and ``a (1 -+ z / sqrt(k))`` for Hill's
    index.

    The bootstrap cannot see tails that the data do not contain: for heavy tails the intervals of psi_2 and kurtosis are
    too short.

    Raises:
        InputError: fewer than 20 values, non-finite ones, a constant function, one whose deviations ``hill_index``
            refuses, or fewer than 20 resamples.
    """
    key = threefry(key)
    values = _checked(values)
    require(resamples >= 20, "resamples", resamples, "20 or more")
    columns = as_jax_floats("values", values)
    point = np.asarray(_shape_statistics(columns, jnp.ones(len(values), columns.dtype)), np.float64)
    draws = np.asarray(_bootstrap_statistics(columns, key, resamples), np.float64)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    spread = draws.std(axis=0, ddof=1)
    std, psi2, kurtosis = (
        Estimate(point[i], low[i], high[i], method="bootstrap percentiles", n=len(values), standard_error=spread[i])
        for i in range(3)
    )
    index, used = _hill(values, int(sqrt(len(values))))
    hill = normal_estimate(index, index / np.sqrt(used))
    return TailEstimates(std, psi2, kurtosis, hill)


def sub_gaussian_norm(
    values: Num[ArrayLike, "n functions"], weights: Num[ArrayLike, " n"] | None = None
) -> Float[Array, " functions"]:
    """``inf{K : mean exp((f - mean f)^2 / K^2) <= 2}`` of each column, by bisection; pure.

    The root lies between ``max|f - mean f| / sqrt(log 2 n)`` and ``max|f - mean f| / sqrt(log 2)``, n the sum of the
    weights.

    Args:
        values: (n, functions).
        weights: multiplicity of each row, 1 unless given.
    """
    check_squares(values=values)
    values = as_jax_floats("values", values)
    weights = jnp.ones(values.shape[0], values.dtype) if weights is None else as_jax_floats("weights", weights)
    total = jnp.sum(weights)
    mean = (jnp.sum(weights[:, None] * values, axis=0) / total)[None, :]
    squares = jnp.where(weights[:, None] > 0, jnp.square(values - mean), jnp.zeros((), values.dtype))
    largest = jnp.max(squares, axis=0)
    floor = jnp.finfo(values.dtype).tiny

    def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        mass = jnp.sum(weights[:, None] * jnp.exp(squares / jnp.maximum(middle, floor)[None, :]), axis=0) / total
        above = mass > 2
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    bracket = largest / jnp.log(2 * total), largest / jnp.asarray(log(2.0), values.dtype)
    low, high = jax.lax.fori_loop(0, 24, halve, bracket)
    return jnp.sqrt((low + high) / 2)


def hill_index(values: Num[ArrayLike, "n functions"], count: int | None = None) -> Float[np.ndarray, " functions"]:
    """Hill's estimate ``1 / mean(log(y_(i) / y_(k+1)), i <= k)`` of the tail index of ``y = |f - mean f|`` in each
    column.

    Where the k + 1 largest deviations are tied (up to rounding, as for values that crowd at a bound) their mean
    logarithm is 0 and the estimate would be infinite. Then k grows to the number of deviations tied with the largest,
    so that ``y_(k+1)`` is the largest of the deviations below: with m of them at y and the next at z the estimate is
    ``1 / log(y / z)``, large, as for no tail at all.

    Source: Hill, Annals of Statistics 3 (1975).

    Args:
        values: (n, functions).
        count: k, ``floor(sqrt(n))`` unless given.

    Raises:
        InputError: as ``tail_curves``, ``count`` not from 2 to n - 1, or a column whose deviations are all equal (a
            fair coin's) or are 0 from the threshold on.
    """
    values = _checked(values)
    count = int(sqrt(len(values))) if count is None else count
    require(2 <= count < len(values), "count", count, f"from 2 to {len(values) - 1}")
    return _hill(values, count)[0]


def one_sized(values: Num[ArrayLike, "n functions"]) -> Bool[np.ndarray, " functions"]:
    """Which columns have deviations ``|f - mean f|`` that are all equal up to rounding: constants and fair coins,
    without a tail.
    """
    return _one_sized(*_deviations(as_floats("values", values)))


def _one_sized(deviations: np.ndarray, tied: np.ndarray) -> np.ndarray:
    return deviations[0] - deviations[-1] <= tied


def _deviations(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``|f - mean f|``, falling in each column, and the difference up to which two of a column count as tied."""
    exact = values.astype(np.float64)
    deviations = np.sort(np.abs(exact - exact.mean(axis=0)), axis=0)[::-1]
    return deviations, rounding(values) * np.abs(exact).max(axis=0)


def _hill(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The index of each column, and the number k of deviations that it comes from."""
    deviations, tied = _deviations(values)
    flat = np.flatnonzero(_one_sized(deviations, tied))
    require(flat.size == 0, "values", f"of one size about the mean in column {flat[:1].tolist()}", "of different sizes")
    # With the threshold below the largest deviation: at the count, or below the ties.
    used = np.maximum(count, (deviations >= deviations[0] - tied).sum(axis=0))
    threshold = np.take_along_axis(deviations, used[None], axis=0)
    none = np.flatnonzero(threshold[0] <= 0)
    require(none.size == 0, "count", f"{count}, with a deviation of 0 in column {none[:1].tolist()}", "smaller")
    # Columns without ties use fewer deviations than others: what lies at the threshold or below it adds a logarithm of
    # 0.
    logs = np.log(np.maximum(deviations[: used.max()], threshold) / threshold)
    return 1 / (logs.sum(axis=0) / used), used


def concentration_scale(rows: Num[ArrayLike, " n *event"], folds: int = 10) -> Estimate:
    """``sqrt(||Sigma||_op)`` of independent rows, cross-validated, with its 95 % interval.

    The largest eigenvalue of a sample covariance is too large, by a factor of ``(1 + sqrt(d / n))^2`` for white data.
    Here the variance of each fold is taken along the leading direction of the other folds: the mean of ``<u, x -
    mean>^2`` over all rows is unbiased for ``u^T Sigma u <= ||Sigma||_op``, short of it only by the error of u. Leading
    directions come from 100 power iterations.

    Args:
        rows: (n, ...), flattened.
        folds: consecutive parts, 2 to n.

    Raises:
        InputError: fewer than 20 rows, non-finite or constant ones, or folds out of range.
    """
    flat = as_floats("rows", rows).reshape(np.shape(rows)[0], -1)
    require(len(flat) >= MIN_VALUES, "rows", len(flat), f"{MIN_VALUES} or more")
    require(bool(np.isfinite(flat).all()), "rows", "non-finite", "finite")
    require(2 <= folds <= len(flat), "folds", folds, f"from 2 to {len(flat)}")
    check_squares(rows=flat)
    fold = (np.arange(len(flat)) * folds // len(flat)).astype(np.int32)
    squares = np.asarray(_held_out_squares(as_jax_floats("rows", flat), fold, folds), np.float64)
    value = squares.mean()
    require(value > 0, "rows", "constant", "rows that differ")
    error = squares.std(ddof=1) / sqrt(len(squares))
    mean = normal_estimate(float(value), float(error), n=len(squares), bounds=(0.0, np.inf))
    return replace(mean.map(np.sqrt), standard_error=float(error / (2 * np.sqrt(value))))


@partial(jax.jit, static_argnums=2)
def _held_out_squares(rows: Array, fold: Array, folds: int) -> Array:
    def one(number: Array) -> Array:
        kept = (fold != number).astype(rows.dtype)
        total = jnp.sum(kept)
        centred = rows - (jnp.sum(kept[:, None] * rows, axis=0) / total)[None, :]
        used = kept[:, None] * centred
        # A start that no direction is orthogonal to, but by accident: the row of largest length.
        start = used[jnp.argmax(jnp.sum(used**2, axis=1))]

        def iterate(_: Any, v: Array) -> Array:
            v = jnp.matmul(used.T, jnp.matmul(used, v, precision=_HIGHEST), precision=_HIGHEST)
            return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)

        direction = jax.lax.fori_loop(0, 100, iterate, start / jnp.maximum(jnp.linalg.norm(start), 1e-30))
        # The mean is estimated, too: the squared distance to it is larger by 1 + 1 / total.
        squares = jnp.square(jnp.matmul(centred, direction, precision=_HIGHEST)) * total / (total + 1)
        return jnp.where(fold == number, squares, jnp.zeros((), rows.dtype))

    return jnp.sum(jax.vmap(one)(jnp.arange(folds, dtype=fold.dtype)), axis=0)


def _shape_statistics(values: Array, weights: Array) -> Array:
    """Standard deviation, psi_2 and excess kurtosis of weighted rows: (3, functions)."""
    total = jnp.sum(weights)
    centred = values - (jnp.sum(weights[:, None] * values, axis=0) / total)[None, :]
    second = jnp.sum(weights[:, None] * centred**2, axis=0) / total
    fourth = jnp.sum(weights[:, None] * centred**4, axis=0) / total
    kurtosis = fourth / jnp.maximum(second**2, jnp.finfo(values.dtype).tiny) - 3
    return jnp.stack([jnp.sqrt(second * total / (total - 1)), sub_gaussian_norm(values, weights), kurtosis])


@partial(jax.jit, static_argnums=2)
def _bootstrap_statistics(values: Array, key: Key, resamples: int) -> Array:
    size = values.shape[0]
    # In units of each column's spread: a fourth power of small numbers would underflow.
    spread = jnp.std(values, axis=0)
    scaled = (values - jnp.mean(values, axis=0)[None, :]) / spread[None, :]

    def one(key: Array) -> Array:
        chosen = jax.random.randint(key, (size,), 0, size)
        weights = jnp.zeros(size, values.dtype).at[chosen].add(jnp.ones((), values.dtype))
        found = _shape_statistics(scaled, weights)
        return jnp.stack([found[0] * spread, found[1] * spread, found[2]])

    return jax.lax.map(one, jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(resamples)))


def _exceedances(values: np.ndarray, t: np.ndarray) -> np.ndarray:
    """How many rows have ``|f - mean f| > t``: (functions, levels)."""
    deviations = np.sort(np.abs(values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)), axis=0)
    return np.stack([len(values) - np.searchsorted(column, t, side="right") for column in deviations.T])


def _clopper_pearson(counts: np.ndarray, n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact two-sided limits of binomial fractions, error ``level`` in all."""
    low = np.where(counts > 0, scipy.stats.beta.ppf(level / 2, np.maximum(counts, 1), n - counts + 1), 0.0)
    high = np.where(counts < n, scipy.stats.beta.ppf(1 - level / 2, counts + 1, np.maximum(n - counts, 1)), 1.0)
    return low, high


def _checked(values: ArrayLike) -> np.ndarray:
    values = as_floats("values", values)
    require(values.ndim == 2, "values.shape", values.shape, "(n, functions)")
    require(len(values) >= MIN_VALUES, "values", f"{len(values)} of each function", f"{MIN_VALUES} or more")
    require(bool(np.isfinite(values).all()), "values", "non-finite", "finite")
    constant = np.flatnonzero(np.ptp(values, axis=0) == 0)
    require(constant.size == 0, "values", f"constant in column {constant[:1].tolist()}", "different from row to row")
    return values
