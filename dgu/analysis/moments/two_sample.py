"""Do two sets of rows have the same mean, the same second moments, the same spectrum? Differences with intervals.

All in float64 on the host. Plain plug-in distances of moments are biased upwards by sampling noise (for 4,000 rows of
some 20 effective dimensions by 0.5 % of the total variance); these are unbiased, and so may come out negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.quality.frechet import FeatureMoments, frechet_distance
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import check_squares, checked_rows
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key


@dataclass(frozen=True)
class MomentDistances:
    """Squared distances between the first two moments of two sets, relative to the reference.

    Attributes:
        mean: ``|mu_a - mu_b|^2 / tr Sigma_b``.
        second: ``|M_a - M_b|_F^2 / |Sigma_b|_F^2``, M the second moments about the mean of b.
        variance_ratio: ``tr Sigma_a / tr Sigma_b``.
    """

    mean: Estimate
    second: Estimate
    variance_ratio: Estimate


def moment_distances(
    a: Num[ArrayLike, "n d"], b: Num[ArrayLike, "m e"], key: Key, *, blocks: int = 10
) -> MomentDistances:
    """Unbiased squared distances of means and of second moments, averaged over disjoint random blocks.

    In a block of s rows of a and t of b, about the mean of all of b,

        |x_mean - y_mean|^2 - tr S_x / s - tr S_y / t,      U_x + U_y - 2 <M_x, M_y>

    with ``U_x = (s^2 |M_x|^2 - sum |x_i|^4) / (s (s - 1))``, unbiased for the squared Frobenius norm of the expected
    ``M_x = mean x x^T``. Blocks share no rows, so the t interval over them holds; for equal sets the values are skewed,
    and it covers 0 in some 90 % of cases, most of the others below.

    Args:
        a: rows compared.
        b: reference rows.
        key: key of the shuffle.
        blocks: number of equal blocks that each set is dealt into; rows beyond them are left out.

    Raises:
        InputError: fewer than two rows a block in either set, fewer than two blocks, constant reference rows, or rows
            of different width.
    """
    key = threefry(key)
    a, b = checked_rows(a=a, b=b)
    check_squares(np.float64, power=4, a=a, b=b)
    require(blocks >= 2, "blocks", blocks, "2 or more")
    require(
        min(len(a), len(b)) >= 2 * blocks, "rows", (len(a), len(b)), f"{2 * blocks} or more: {blocks} blocks of two"
    )
    centre = b.mean(axis=0, dtype=np.float64)
    sides = []
    for number, rows in enumerate((a, b)):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, number), len(rows)))
        size = len(rows) // blocks
        sides.append([order[place * size : (place + 1) * size] for place in range(blocks)])
    covariance = np.zeros((b.shape[1], b.shape[1]))
    means, seconds, ratios = [], [], []
    for rows_a, rows_b in zip(*sides):
        x, y = a[rows_a].astype(np.float64) - centre, b[rows_b].astype(np.float64) - centre
        (mean_x, spread_x, second_x, norm_x), (mean_y, spread_y, second_y, norm_y) = _parts(x), _parts(y)
        means.append(np.square(mean_x - mean_y).sum() - spread_x / len(x) - spread_y / len(y))
        seconds.append(norm_x + norm_y - 2 * np.vdot(second_x, second_y))
        ratios.append(spread_x / spread_y if spread_y > 0 else np.inf)
        covariance += second_y / blocks
    scale = float(np.trace(covariance))
    require(scale > 0 and bool(np.isfinite(ratios).all()), "b", "constant rows", "rows that vary in every block")
    return MomentDistances(
        t_interval(np.asarray(means) / scale),
        t_interval(np.asarray(seconds) / np.square(covariance).sum()),
        t_interval(np.asarray(ratios), bounds=(0, np.inf)),
    )


def _parts(x: np.ndarray) -> tuple[np.ndarray, float, np.ndarray, float]:
    """Mean, trace of the covariance, second moments, and the unbiased squared norm of the expected second moments."""
    size, mean, second = len(x), x.mean(axis=0), x.T @ x / len(x)
    squares = np.square(x).sum(axis=1)
    spread = float(squares.sum() - size * np.square(mean).sum()) / (size - 1)
    return (
        mean,
        spread,
        second,
        float(size**2 * np.square(second).sum() - np.square(squares).sum()) / (size * (size - 1)),
    )


def frechet_interval(a: Num[ArrayLike, "n d"], b: Num[ArrayLike, "m e"], key: Key, *, blocks: int = 10) -> Estimate:
    """``frechet_distance`` of two sets of rows with the t interval of a delete-a-block jackknife over both.

    The interval is of the sampling noise alone: the distance is biased upwards by some ``tr Sigma`` times columns over
    rows, so compare sets of equal sizes.

    Raises:
        InputError: fewer than ``2 * blocks`` rows, or rows of different width.
    """
    key = threefry(key)
    a, b = checked_rows(a=a, b=b)
    check_squares(np.float64, a=a, b=b)
    require(blocks >= 2, "blocks", blocks, "2 or more")
    require(min(len(a), len(b)) >= 2 * blocks, "rows", (len(a), len(b)), f"{2 * blocks} or more")
    number = [
        np.asarray(jax.random.permutation(jax.random.fold_in(key, side), len(rows))) % blocks
        for side, rows in enumerate((a, b))
    ]

    def distance(without: int) -> float:
        parts = (FeatureMoments.from_features(rows[of != without]) for rows, of in zip((a, b), number))
        return frechet_distance(*parts)

    value = distance(-1)
    draws = np.asarray([distance(block) for block in range(blocks)])
    error = float(np.sqrt((blocks - 1) * np.square(draws - draws.mean()).mean()))
    half = float(scipy.stats.t.ppf(0.975, blocks - 1)) * error
    ends, freedom = (max(0.0, value - half), value + half), blocks - 1
    return Estimate(value, *ends, method="jackknife", n=blocks, standard_error=error, freedom=freedom)


@short_repr
@dataclass(frozen=True)
class SpectrumComparison:
    """Covariance eigenvalues of two sets with equally many rows.

    Attributes:
        eigenvalues, reference_eigenvalues: descending, equally many of each.
        ranks: the ranks compared, from 0.
        ratios: eigenvalue over reference eigenvalue at those ranks, with 95 % intervals.
    """

    eigenvalues: np.ndarray
    reference_eigenvalues: np.ndarray
    ranks: np.ndarray
    ratios: Estimate


def compare_spectra(
    a: Num[ArrayLike, "n d"],
    b: Num[ArrayLike, "m e"],
    key: Key,
    *,
    quantiles: Sequence[float | int] = (0.0, 0.25, 0.5, 0.75, 0.9),
    blocks: int = 10,
) -> SpectrumComparison:
    """Ratios of the covariance eigenvalues of two sets at some ranks, from equally many rows of each.

    Sample eigenvalues are spread by the number of rows, so only equal numbers compare. The interval is that of a
    delete-a-block jackknife of the log ratio: ``se^2 = (B - 1) / B sum_b (theta_b - mean)^2``, t with B - 1 degrees.

    Args:
        a: rows compared.
        b: reference rows.
        key: of the choice of rows and of the blocks.
        quantiles: of the rank, from 0 (largest eigenvalue) to 1.
        blocks: B.

    Raises:
        InputError: fewer than ``2 * blocks`` rows, constant rows, quantiles outside [0, 1], or rows of different width.
    """
    key = threefry(key)
    a, b = checked_rows(a=a, b=b)
    check_squares(np.float64, a=a, b=b)
    require(blocks >= 2, "blocks", blocks, "2 or more")
    size = min(len(a), len(b)) // blocks * blocks
    require(size >= 2 * blocks, "rows", (len(a), len(b)), f"{2 * blocks} or more")
    require(all(0 <= q <= 1 for q in quantiles), "quantiles", tuple(quantiles), "in [0, 1]")
    orders = [
        np.asarray(jax.random.permutation(jax.random.fold_in(key, i), len(x)))[:size] for i, x in enumerate((a, b))
    ]
    whole, without = [], []
    for rows, order in zip((a, b), orders):
        x = rows[order].astype(np.float64)
        x -= x.mean(axis=0)
        parts = x.reshape(blocks, size // blocks, -1)
        sums, products = parts.sum(axis=1), np.einsum("bsi,bsj->bij", parts, parts, optimize=True)
        total = products.sum(axis=0)
        rank = min(size * (blocks - 1) // blocks - 1, x.shape[1])
        whole.append(_eigenvalues(total, sums.sum(axis=0), size, rank))
        left = size - size // blocks
        without.append([_eigenvalues(total - product, -part, left, rank) for product, part in zip(products, sums)])
    floor = 1e-12 * whole[1][0]
    require(whole[1][0] > 0 and whole[0][0] > 0, "rows", "constant", "rows that vary")
    numerical = int(np.count_nonzero((whole[0] > floor) & (whole[1] > floor)))
    ranks = np.unique(np.rint(np.asarray(quantiles) * (numerical - 1)).astype(int))
    log_ratio = np.log(whole[0][ranks] / whole[1][ranks])
    draws = np.log(np.stack(without[0])[:, ranks] / np.stack(without[1])[:, ranks])
    error = np.sqrt((blocks - 1) * np.square(draws - draws.mean(axis=0)).mean(axis=0))
    half = scipy.stats.t.ppf(0.975, blocks - 1) * error
    value = np.exp(log_ratio)
    low, high = np.exp(log_ratio - half), np.exp(log_ratio + half)
    ratios = Estimate(value, low, high, method="jackknife", n=blocks, standard_error=value * error, freedom=blocks - 1)
    return SpectrumComparison(whole[0], whole[1], ranks, ratios)


def _eigenvalues(products: np.ndarray, total: np.ndarray, count: int, rank: int) -> np.ndarray:
    """The largest eigenvalues, descending, of the covariance of ``count`` rows with these sums."""
    covariance = (products - np.outer(total, total) / count) / (count - 1)
    return np.maximum(scipy.linalg.eigvalsh(covariance)[::-1][:rank], 0)
