"""How good are generated images? Distances to held-out images, each with an interval, on features of one's choice.

Features are plain arrays ``(n, d)``: pixels, or what a network makes of images (``extract_features``). All pairwise
work runs in blocks of fixed size, so that memory stays at blocks times blocks whatever the number of images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Integer, Num, Shaped

from dgu.analysis.quality.balls import ball_counts
from dgu.analysis.quality.neighbours import nearest, nearest_rows
from dgu.analysis.stats.estimates import Estimate, proportion
from dgu.analysis.stats.resampling import sample_deviation, t_interval
from dgu.core.arrays import as_floats, as_labels, check_squares, checked_rows, to_device
from dgu.core.brief import short_repr
from dgu.core.chunks import check_chunk
from dgu.core.errors import InputError, require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Key, Labels

_HIGHEST = jax.lax.Precision.HIGHEST
#: Cubes of it, and squares of those, are far below the largest float64.
_MAX_SQUARE = 1e45
#: Variance of redrawn rows, in those of all, that is none but for rounding in single precision.
_NO_VARIANCE = 1e-6


@short_repr
@dataclass(frozen=True)
class Neighbours:
    """Nearest training images of samples beside those of held-out images.

    Attributes:
        sample_distance, heldout_distance: Euclidean distance of each to its nearest training row.
        sample_index: row of the training set nearest to each sample.
        median_ratio: median distance of samples over that of held-out images; below 1, samples lie closer.
        tail_ratio: the same of the first percentiles: the closest samples against the closest held-out images.
        closer: fraction of samples closer than the first percentile of held-out distances: 0.01 for images that are as
            far as held-out ones, 1 for copies.
    """

    sample_distance: np.ndarray
    heldout_distance: np.ndarray
    sample_index: np.ndarray
    median_ratio: Estimate
    tail_ratio: Estimate
    closer: Estimate


def extract_features(
    images: Num[ArrayLike, " n *event"],
    features: Callable[[Array], ArrayLike] | None = None,
    block_size: int = 512,
) -> Float[np.ndarray, "n d"]:
    """Features of images in blocks of fixed size (the last one padded, so a jitted ``features`` compiles once).

    Args:
        images: ``(n, *event)``.
        features: ``(block, *event) -> (block, d)``; by default the flattened images.
        block_size: images a call.

    Raises:
        InputError: no images, features of another number of rows, or non-finite features.
    """
    images = as_floats("images", images)
    require(len(images) > 0, "images", len(images), "1 or more")
    check_chunk("block_size", block_size, images.shape[1:], images.dtype)
    if features is None:
        rows = images.reshape(len(images), -1)
    else:
        parts = []
        for start in range(0, len(images), block_size):
            block = images[start : start + block_size]
            padded = np.concatenate([block, np.repeat(block[-1:], block_size - len(block), axis=0)])
            part = as_floats("features", features(to_device(padded)))
            require(part.shape[:1] == (block_size,), "features", part.shape, f"an array of {block_size} rows")
            parts.append(part.reshape(block_size, -1)[: len(block)])
        rows = np.concatenate(parts)
    require(bool(np.isfinite(rows).all()), "features", "non-finite", "finite")
    return rows


def kernel_distance(a: Num[ArrayLike, "n d"], b: Num[ArrayLike, "m e"], key: Key, *, block_size: int = 500) -> Estimate:
    """KID: the unbiased squared MMD with kernel ``k(x, y) = (x . y / d + 1)^3``, averaged over disjoint random blocks.

    In a block of ``s`` rows of each,
    ``sum_{i != j} [k(a_i, a_j) + k(b_i, b_j)] / (s (s - 1)) - 2 sum_ij k(a_i, b_j) / s^2``. Blocks share no row, so the
    t interval over them holds. 0 in expectation for equal distributions; may be negative.

    Products and sums are in float64 on the host: the kernel is not that of differences, so features cannot be centred,
    and of features with a large mean the terms are much larger than what is left of them. With ``M = max |x|^2 / d``
    rounding changes an estimate by less than ``sqrt(d) u (M + 1)^3 / 2``, ``u = 1.1e-16`` (a tenth of it was measured:
    roundings of either sign, not the worst case). Where that is more than 1 % of the estimate and of its standard
    error, the larger of them (and more than 1e-9), it is refused: that begins at means of some 3e5 spreads.

    Args:
        a, b: features; rows are shuffled, those beyond a whole number of blocks are left out.
        key: key of the shuffle.
        block_size: rows of each set in a block.

    Raises:
        InputError: fewer than two blocks, features of different width, or such whose kernels are rounded too much.

    Binkowski et al., Demystifying MMD GANs, ICLR 2018; Zaremba et al., B-tests, NIPS 2013.
    """
    key = threefry(key)
    a, b = checked_rows(a=a, b=b)
    require(block_size >= 2, "block_size", block_size, "2 or more")
    blocks = min(len(a), len(b)) // block_size
    require(blocks >= 2, "rows", (len(a), len(b)), f"at least {2 * block_size}: two blocks of {block_size}")
    with np.errstate(over="ignore"):
        square = max(float(np.einsum("ij,ij->i", x, x, dtype=np.float64).max()) for x in (a, b)) / a.shape[1]
    require(square < _MAX_SQUARE, "largest mean square of a row of features", square, f"below {_MAX_SQUARE:g}")
    orders = [
        np.asarray(jax.random.permutation(jax.random.fold_in(key, number), len(rows)))[: blocks * block_size]
        for number, rows in enumerate((a, b))
    ]
    chosen = zip(*(order.reshape(blocks, block_size) for order in orders))
    found = t_interval(np.array([_block_mmd(a[of_a], b[of_b]) for of_a, of_b in chosen]))
    rounded = a.shape[1] ** 0.5 / 4 * float(np.finfo(np.float64).eps) * (square + 1) ** 3
    if rounded > max(0.01 * abs(float(found.value)), 0.01 * float(found.standard_error), 1e-9):
        raise InputError(
            f"features: have a mean square of up to {square:.3g} a row, so that rounding may change the kernel "
            "distance "
            f"{float(found.value):.3g} by {rounded:.2g}; must have a mean that is not as large beside their spread"
        )
    return found


def precision_recall(
    generated: Num[ArrayLike, "n d"], real: Num[ArrayLike, "m e"], *, k: int = 3, block_size: int = 1024
) -> tuple[Estimate, Estimate]:
    """Improved precision and recall: the fraction of each set on the k-nearest-neighbour manifold of the other.

    A row lies on a manifold if it is within the k-th neighbour distance of any of its rows (itself not counted), at
    that distance included; distances are compared in float64 (``ball_counts``). Both grow with the number of rows:
    compare numbers of equal sizes only. Intervals are Wilson's, given the manifold.

    Args:
        generated, real: features.
        k: neighbours.
        block_size: rows a block.

    Returns:
        Precision (generated on the manifold of real) and recall (real on the manifold of generated).

    Raises:
        InputError: ``k`` not between 1 and the number of rows minus 1, or features of different width.

    Kynkaanniemi et al., Improved precision and recall metric, NeurIPS 2019.
    """
    generated, real = checked_rows(generated=generated, real=real)
    require(1 <= k < min(len(generated), len(real)), "k", k, "1 or more, below the number of rows")
    found = []
    for queries, manifold in ((generated, real), (real, generated)):
        radii = nearest_rows(manifold, manifold, k, own=True, block_size=block_size)[0][:, -1]
        found.append(proportion(ball_counts(queries, manifold, radii, block_size=block_size) > 0))
    return found[0], found[1]


def nearest_neighbours(
    samples: Num[ArrayLike, "n d"],
    train: Num[ArrayLike, "m e"],
    heldout: Num[ArrayLike, "l f"],
    key: Key,
    *,
    replicates: int = 1000,
    block_size: int = 1024,
) -> Neighbours:
    """Are samples closer to the training set than held-out images are? Ratios of distances with bootstrap intervals.

    Raises:
        InputError: features of different width, fewer than 2 replicates, or so many held-out rows that are also
            training rows that ratios to their distances do not exist.
    """
    key = threefry(key)
    require_whole("replicates", replicates, 2)
    sample_distance, sample_index = nearest(samples, train, block_size)
    heldout_distance, _ = nearest(heldout, train, block_size)
    quantiles = np.asarray([0.5, 0.01], sample_distance.dtype)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.quantile(sample_distance, quantiles) / np.quantile(heldout_distance, quantiles)
    draws = np.asarray(
        _quantile_ratios(sample_distance, heldout_distance, quantiles, jax.random.split(key, replicates)), np.float64
    )
    same = f"{int((heldout_distance == 0).sum())} of {len(heldout_distance)} rows that are in the training set"
    require(bool(np.isfinite(value).all() and np.isfinite(draws).all()), "heldout", same, "rows that are not, or fewer")
    ratios = [_bootstrap(float(value[i]), draws[:, i]) for i in range(2)]
    closer = proportion(sample_distance < np.quantile(heldout_distance, 0.01))
    return Neighbours(sample_distance, heldout_distance, sample_index, ratios[0], ratios[1], closer)


def variance_ratio(
    samples: Num[ArrayLike, "n d"],
    labels: Labels,
    reference: Num[ArrayLike, "m e"],
    reference_labels: Integer[ArrayLike, " m"],
    key: Key,
    *,
    replicates: int = 1000,
) -> Estimate:
    """Total variance (trace of the covariance, ``ddof = 1``) of each class's samples over that of its reference images.

    Args:
        samples, reference: features.
        labels, reference_labels: classes; the result follows the sorted classes of ``reference_labels``.
        key: key of the bootstrap, which redraws rows within each class of each set.
        replicates: number of bootstrap replicates.

    A class whose samples are all equal has the ratio 0, with an interval without width, which does not mean certainty.

    Raises:
        InputError: a class with fewer than 2 rows, reference rows of a class that do not vary (up to rounding) or so
            few that redrawn ones may not, labels that do not fit, features of different width.
    """
    key = threefry(key)
    require_whole("replicates", replicates, 2)
    samples, reference = checked_rows(samples=samples, reference=reference)
    check_squares(samples=samples, reference=reference)
    labels = as_labels("labels", labels, len(samples))
    reference_labels = as_labels("reference_labels", reference_labels, len(reference))
    classes = np.unique(reference_labels)
    traces = []
    for number, (rows, row_labels) in enumerate(((samples, labels), (reference, reference_labels))):
        counts = np.array([np.sum(row_labels == label) for label in classes])
        require(
            int(counts.min()) >= 2, "rows of a class", int(counts.min()), f"2 or more in each of {classes.tolist()}"
        )
        padded = np.zeros((len(classes), counts.max(), rows.shape[1]), rows.dtype)
        for place, label in enumerate(classes):
            members = rows[row_labels == label]
            # Exactly 0 where a feature is constant: its mean is rounded.
            same = members.min(axis=0) == members.max(axis=0)
            padded[place, : len(members)] = np.where(same, 0, members - members.mean(axis=0))
            if number and not sample_deviation(members.T).any():
                raise InputError(
                    f"reference rows of class {label}: are all equal; must vary, to be a measure of others"
                )
        keys = jax.random.split(jax.random.fold_in(key, number), len(classes))
        draws = _bootstrap_traces(padded, counts, keys, replicates)
        traces.append(((padded.astype(np.float64) ** 2).sum(axis=(1, 2)) / (counts - 1), np.asarray(draws, np.float64)))
    (value, draws), (reference_value, reference_draws) = traces
    single = np.flatnonzero((reference_draws <= _NO_VARIANCE * reference_value[:, None]).any(axis=1))
    if single.size:
        raise InputError(
            f"reference rows of class {classes[single[0]]}: are all equal when redrawn; must be more rows that differ"
        )
    return _bootstrap(value / reference_value, (draws / reference_draws).T)


def _bootstrap(value: float | np.ndarray, draws: np.ndarray) -> Estimate:
    """Percentile interval over the leading axis of ``draws``."""
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    results = (value, low, high, draws.std(axis=0, ddof=1))
    value, low, high, error = (float(x) if np.ndim(x) == 0 else np.asarray(x) for x in results)
    return Estimate(value, low, high, method="bootstrap percentiles", n=len(draws), standard_error=error)


def _block_mmd(x: Float[np.ndarray, "s d"], y: Float[np.ndarray, "s d"]) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    size, width = x.shape
    # Not ** 3, which takes longer than the product.
    xx, yy, xy = (
        base * base * base for base in (left @ right.T / width + 1 for left, right in ((x, x), (y, y), (x, y)))
    )
    within, between = xx + yy, xy + xy.T
    # The kernels' means are nearly equal, so they are subtracted entry by entry. The cross term of the unbiased
    # estimate keeps its diagonal, hence the small second term.
    off = within - between
    np.fill_diagonal(off, 0)
    diagonal = (between.mean() - np.trace(between) / size) / (size - 1)
    return float(off.sum() / (size * (size - 1)) + diagonal)


@jax.jit
def _quantile_ratios(
    a: Float[Array, " n"], b: Float[Array, " m"], quantiles: Float[Array, " q"], keys: Shaped[Array, "replicates ..."]
) -> Float[Array, "replicates q"]:
    def one(key: Key) -> Array:
        first, second = jax.random.split(key)
        drawn = [jax.random.choice(place, side, side.shape) for place, side in ((first, a), (second, b))]
        return jnp.quantile(drawn[0], quantiles) / jnp.quantile(drawn[1], quantiles)

    return jax.lax.map(one, keys)


@partial(jax.jit, static_argnames="replicates")
def _bootstrap_traces(
    rows: Float[Array, "classes n d"],
    counts: Int[Array, " classes"],
    keys: Shaped[Array, "classes ..."],
    replicates: int,
) -> Float[Array, "classes replicates"]:
    """Trace of the covariance of resampled rows, from the counts of each row: ``sum w |x|^2 / n - |sum w x / n|^2``."""

    def per_class(item: tuple[Array, Array, Array]) -> Array:
        x, count, key = item
        places = jnp.arange(len(x))
        size = count.astype(x.dtype)

        def weights(place: Key) -> Array:
            drawn = jax.random.randint(place, (len(x),), 0, count)
            return jnp.zeros(len(x), x.dtype).at[drawn].add((places < count).astype(x.dtype))

        w = jax.lax.map(weights, jax.random.split(key, replicates)) / size
        means = jnp.matmul(w, x, precision=_HIGHEST)
        squares = jnp.matmul(w, jnp.sum(x**2, axis=1), precision=_HIGHEST)
        return (squares - jnp.sum(means**2, axis=1)) * size / (size - 1)

    return jax.lax.map(per_class, (rows, counts, keys))
