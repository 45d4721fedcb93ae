"""The exponent of a power law of covariance eigenvalues, with an interval of the stated coverage.

The logarithms of n rows' sample eigenvalues lie about a line of another slope than the truth's: eigenvalues repel each
other, the large come out too large, the small too small, by fractions of order k / n at rank k, and neighbours' errors
are correlated. A line fitted by least squares with its textbook interval is wrong on both counts. Here the bias and the
spread of the slope are those found by fitting the same line to simulated data.

**Range of ranks** (rule, unless given): from ``max(2, r^(1/4))``, r = min(n - 1, d), rounded up, which leaves out the
leading directions whose eigenvalues have a cause of their own, to ``min(d / 2, n / 4)``, which leaves out the end of
the spectrum and what n rows cannot tell from it. The rule looks at n and d alone, never at the spectrum.

**Interval**: the hypothesis behind it is that the power law holds at *all* d ranks. With ``b`` the slope found,
    ``draws`` Gaussian samples of n rows with eigenvalues ``k^-b`` give its bias; once more with the corrected slope;
    the deviation of the second set's slopes is the standard error for Gaussian data. Other data's may be larger: the
    influence of row i on the slope is ``sum_k w_k z_ik^2``, with z the standardised principal scores and w the weights
    of the line, of variance ``2 sum_k w_k^2`` for Gaussian rows; where the data's is larger the standard error grows by
    the root of the ratio. 95 % intervals are those of Student t with draws - 1 degrees of freedom, as the standard
    error comes from so many draws; the tests count how many cover.
"""

from dataclasses import dataclass
from functools import partial
from math import ceil, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.core import linalg
from dgu.core.arrays import as_floats, as_jax_floats, check_squares
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key

_HIGHEST = jax.lax.Precision.HIGHEST
#: Fewest ranks that a line is fitted to.
MIN_RANKS = 5


@short_repr
@dataclass(frozen=True)
class PowerLawFit:
    """``eigenvalue ~ prefactor * rank^-exponent`` on ranks ``first`` to ``last``.

    Attributes:
        exponent: the corrected exponent, with standard error and 95 % interval.
        bend: exponent of the upper half of the range (in log rank) minus that of the lower half, 0 for a power law; an
            interval that excludes 0 says that the spectrum does not follow a power law.
        line: slope of the least-squares line before the correction, as ``dgu.analysis.power_law`` gives it.
        prefactor: prefactor of the line.
        residual: root mean square of the line's residuals in log eigenvalue.
        first, last: the range, counted from 1, both included.
        inflation: factor on the standard error for rows that are not Gaussian, 1 or more.
        spectrum: (r,) covariance eigenvalues, descending.
    """

    exponent: Estimate
    bend: Estimate
    line: float
    prefactor: float
    residual: float
    first: int
    last: int
    inflation: float
    spectrum: np.ndarray


def power_law_range(n: int, d: int) -> tuple[int, int]:
    """First and last rank of the fit for n rows of d numbers, by the rule of the module.

    Raises:
        InputError: n or d leaves fewer than 5 ranks: about 28 rows or 13 numbers.
    """
    first, last = max(2, ceil(max(min(n - 1, d), 1) ** 0.25)), min(d // 2, n // 4)
    require(last - first + 1 >= MIN_RANKS, "(n, d)", (n, d), f"large enough for a range of {MIN_RANKS} ranks")
    return first, last


def power_law_fit(
    rows: Num[ArrayLike, " n *event"],
    key: Key,
    *,
    first: int | None = None,
    last: int | None = None,
    draws: int = 64,
) -> PowerLawFit:
    """Fit a power law to the covariance spectrum of independent rows.

    Cost: one singular value decomposition of the rows and ``2 draws`` eigenvalue problems of size min(n - 1, d).

    Args:
        rows: (n, ...), flattened to d numbers.
        key: key of the simulated spectra.
        first: first rank, by the rule of the module unless given.
        last: last rank, by the rule of the module unless given.
        draws: simulated spectra in each of the two rounds.

    Raises:
        InputError: a range outside the spectrum or of fewer than 5 ranks, an eigenvalue in it that is zero up to
            rounding, non-finite rows, or fewer than 10 draws.
    """
    key = threefry(key)
    flat = as_floats("rows", rows).reshape(np.shape(rows)[0], -1)
    n, d = flat.shape
    require(draws >= 10, "draws", draws, "10 or more")
    require(bool(np.isfinite(flat).all()), "rows", "non-finite", "finite")
    check_squares(rows=flat)
    if first is None or last is None:
        rule = power_law_range(n, d)
        first, last = rule[0] if first is None else first, rule[1] if last is None else last
    rank = min(n - 1, d)
    fits = 1 <= first and last - first + 1 >= MIN_RANKS and last <= rank
    require(fits, "(first, last)", (first, last), f"{MIN_RANKS} ranks or more from 1 to {rank}")
    spectrum, scores = (np.asarray(part, np.float64) for part in _principal(as_jax_floats("rows", flat), last))
    spectrum = spectrum[:rank]
    floor = 1e-10 * spectrum[0]
    require(
        bool(spectrum[last - 1] > floor),
        f"eigenvalue {last} of {first} to {last}",
        spectrum[last - 1],
        f"above {floor:.2g}",
    )

    lines = _lines(first, last)
    log = np.log(spectrum[first - 1 : last])
    found = -lines @ log
    slope, errors = found, np.zeros(2)
    for step in range(2):
        simulated = np.asarray(_simulate(jax.random.fold_in(key, step), slope[0], n, d, last, draws), np.float64)
        slopes = -np.log(simulated[:, first - 1 :]) @ lines.T
        law = np.array([slope[0], 0.0])
        slope = found - (slopes.mean(axis=0) - law)
        errors = slopes.std(axis=0, ddof=1) * sqrt(1 + 1 / draws)
    influence = (scores[:, first - 1 :] ** 2 @ lines.T).var(axis=0, ddof=1)
    inflation = np.sqrt(np.maximum(influence / (2 * np.sum(lines**2, axis=1)), 1.0))
    errors = errors * inflation
    half = scipy.stats.t.ppf(0.975, draws - 1) * errors
    estimates = [
        Estimate(float(b), float(b - h), float(b + h), method="parametric bootstrap", n=draws, standard_error=float(e))
        for b, e, h in zip(slope, errors, half)
    ]
    log_rank = np.log(np.arange(first, last + 1))
    centre = log.mean() + found[0] * log_rank.mean()
    residual = log - centre + found[0] * log_rank
    return PowerLawFit(
        exponent=estimates[0],
        bend=estimates[1],
        line=float(found[0]),
        prefactor=float(np.exp(centre)),
        residual=float(np.sqrt(np.mean(residual**2))),
        first=first,
        last=last,
        inflation=float(inflation[0]),
        spectrum=spectrum,
    )


def planted_exponents(
    key: Key, n: int, d: int, exponent: float | int, *, sets: int, draws: int = 64
) -> Float[np.ndarray, "sets 3"]:
    """Exponents that ``power_law_fit`` finds in Gaussian sets with the eigenvalues ``k^-exponent``, k = 1 .. d: does
    the interval cover?

    Args:
        key: of the sets and of their fits.
        n: rows of a set.
        d: numbers of a row.
        exponent: the truth.
        sets: number of sets, 1 or more.
        draws: of ``power_law_fit``.

    Returns:
        Value, low and high of each set.

    Raises:
        InputError: as ``power_law_fit``, or no set.
    """
    key = threefry(key)
    require(sets >= 1, "sets", sets, "1 or more")
    scales = np.arange(1, d + 1) ** (-exponent / 2)
    normal = np.asarray(jax.random.normal(key, (sets, n, d)))
    fits = [
        power_law_fit((rows * scales).astype(np.float32), stream(key, number), draws=draws).exponent
        for number, rows in enumerate(normal)
    ]
    return np.stack([fit.stacked() for fit in fits])


def _lines(first: int, last: int) -> np.ndarray:
    """Weights (2, ranks) that give from log eigenvalues the slope of their line, and slope above minus slope below the
    middle.
    """
    log_rank = np.log(np.arange(first, last + 1, dtype=np.float64))

    def slope(chosen: np.ndarray) -> np.ndarray:
        centred = np.where(chosen, log_rank - log_rank[chosen].mean(), 0.0)
        return centred / np.sum(centred**2)

    everything = np.ones(log_rank.size, bool)
    below = log_rank <= (log_rank[0] + log_rank[-1]) / 2
    below[:2] = True
    return np.stack([slope(everything), slope(~below) - slope(below)])


@partial(jax.jit, static_argnames="last")
def _principal(rows: Array, last: int) -> tuple[Array, Array]:
    """Covariance eigenvalues (``ddof=1``) and the scores on the first ``last`` eigenvectors, of variance 1: (n,
    last).
    """
    n = rows.shape[0]
    centred = rows - jnp.mean(rows, axis=0, keepdims=True)
    left, singular, _ = linalg.svd(centred)
    return singular**2 / (n - 1), left[:, :last] * jnp.asarray(sqrt(n - 1), rows.dtype)


@partial(jax.jit, static_argnames=("n", "d", "last", "draws"))
def _simulate(key: Key, exponent: Array | float, n: int, d: int, last: int, draws: int) -> Array:
    """Largest ``last`` covariance eigenvalues of ``draws`` Gaussian sets of n rows with variances ``k^-exponent``, k =
    1 .. d.
    """
    rank = jnp.arange(1, d + 1).astype(jnp.result_type(float))
    scales = rank ** (-jnp.asarray(exponent, rank.dtype) / 2)

    def one(key: Key) -> Array:
        below, diagonal = jax.random.split(key)
        if n - 1 >= d:
            # Bartlett (1934): the scatter of n white rows is L L^T with normal entries below a diagonal of chi
            # variables.
            freedom = (n - 1 - jnp.arange(d)).astype(rank.dtype)
            root = jnp.tril(jax.random.normal(below, (d, d), rank.dtype), -1)
            root = (root + jnp.diag(jnp.sqrt(jax.random.chisquare(diagonal, freedom)))) * scales[:, None]
        else:
            root = jax.random.normal(below, (n - 1, d), rank.dtype) * scales[None, :]
        gram = jnp.matmul(root, root.T, precision=_HIGHEST)
        return linalg.eigvalsh(gram)[::-1][:last] / (n - 1)

    found = jax.lax.map(one, jax.random.split(key, draws))
    return jnp.maximum(found, jnp.finfo(found.dtype).tiny)
