"""k-means with k-means++ starts: all restarts as one compiled program; and the nearest and the farthest pair of
clusters.

    centre_c <- mean of the points nearest to it,      inertia = sum_i min_c |x_i - centre_c|^2

(Lloyd 1982). A start draws its first centre among the points, and each next one with probability in proportion to the
squared distance to the centres drawn so far (Arthur and Vassilvitskii 2007). A cluster that is left without points
moves to the point that is farthest from its own centre, which cannot raise the inertia.

Products find the nearest centres; a point for which their rounding leaves more than one centre, as all those of
clusters far apart may be, is given its own by differences.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Integer, Num

from dgu.core.arrays import as_doubles, as_floats, as_jax_floats, as_labels, check_squares
from dgu.core.errors import require, require_whole
from dgu.core.exact_distances import rounding
from dgu.core.keys import threefry
from dgu.core.typing import Key
from dgu.data.splits import digests

_HIGHEST = jax.lax.Precision.HIGHEST
#: Differences ``x - centre`` formed at a time.
_DIFFERENCES = 2**20


class KMeans(NamedTuple):
    """The restart with the smallest inertia: NumPy arrays and numbers from ``kmeans``, JAX arrays from ``lloyd``.

    Attributes:
        centres: (k, *event).
        labels: (n,) number of the centre nearest to each point; arbitrary for points that are not present.
        inertia: sum over points of the squared distance to it.
        iterations: updates of the centres.
        converged: whether the centres moved by no more than the tolerance at the last one, or no point changed its
            cluster.
        reseeded: how many times a cluster of this restart was found empty and moved.
        inertias: (restarts,) of all restarts.
    """

    centres: Any
    labels: Any
    inertia: Any
    iterations: Any
    converged: Any
    reseeded: Any
    inertias: Any

    @property
    def sizes(self) -> np.ndarray:
        """(k,) points of each cluster."""
        return np.bincount(self.labels, minlength=len(self.centres))


def kmeans(
    points: Num[ArrayLike, " n *event"],
    clusters: int,
    key: Key,
    *,
    restarts: int = 10,
    tolerance: float = 1e-4,
    max_iterations: int = 300,
) -> KMeans:
    """The best of ``restarts`` runs of Lloyd's algorithm; run number r depends on ``(key, r)`` alone.

    A run ends when ``sum_c |move of centre c|^2 <= tolerance * (mean variance of a coordinate)``, when no point changes
    its cluster, or after ``max_iterations``. Memory: ``2 restarts n clusters`` numbers.

    Args:
        points: ``(n, *event)``, taken flat.
        clusters: k, at most the number of different points.
        key: key of the initial centres.
        restarts: 1 or more.
        tolerance: 0 or more; 0 goes on until no point changes its cluster.
        max_iterations: 1 or more.

    Raises:
        InputError: an argument out of range, points that are not finite or of which fewer than ``clusters`` differ.
    """
    key = threefry(key)
    shape = np.shape(points)
    rows = as_floats("points", points).reshape(shape[0], -1)
    for name, value in (("clusters", clusters), ("restarts", restarts), ("max_iterations", max_iterations)):
        require_whole(name, value)
    require(0 <= tolerance < float("inf"), "tolerance", tolerance, "0 or more and finite")
    require(bool(np.isfinite(rows).all()), "points", "non-finite", "finite")
    check_squares(points=rows)
    # Zeros of either sign are the same place.
    different = len(np.unique(digests(rows + 0.0)))
    require(clusters <= different, "clusters", clusters, f"at most {different}, the number of different points")
    # In float64 on the host: a common offset costs no digits.
    middle = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    centred = rows - middle
    still = tolerance * float(centred.var(axis=0).mean())
    at = centred, key, still, max_iterations
    found = KMeans(*(np.asarray(part) for part in _compiled(*at, clusters=clusters, restarts=restarts)))
    return found._replace(
        centres=(found.centres + middle).reshape(clusters, *shape[1:]),
        inertia=float(found.inertia),
        iterations=int(found.iterations),
        converged=bool(found.converged),
        reseeded=int(found.reseeded),
    )


@partial(jax.jit, static_argnames=("clusters", "restarts"))
def _compiled(x: Array, key: Key, still: Array, most: Array, *, clusters: int, restarts: int) -> KMeans:
    return lloyd(x, clusters, key, restarts=restarts, still=still, max_iterations=most)


def lloyd(
    points: Num[ArrayLike, "n d"],
    clusters: int,
    key: Key,
    *,
    present: Bool[Array, " n"] | None = None,
    restarts: int = 10,
    still: Num[ArrayLike, ""] | float = 0.0,
    max_iterations: Integer[Array, ""] | int = 30,
) -> KMeans:
    """What ``kmeans`` compiles: pure and unchecked, so that many small clusterings can be mapped in one program.

    All runs go on together, each until it ends by itself, and the program until the last of them ends.

    Args:
        points: ``(n, d)``.
        present: which points are data rather than padding; all by default.
        still: the squared moves at which a run ends.
    """
    key = threefry(key)
    points = as_jax_floats("points", points)
    weight = jnp.ones(points.shape[0], points.dtype) if present is None else present.astype(points.dtype)
    # About the mean: |x|^2 - 2 x c + |c|^2 loses the digits of a common offset.
    middle = jnp.matmul(weight, points, precision=_HIGHEST) / jnp.maximum(jnp.sum(weight), 1)
    x = points - middle[None]
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(restarts))
    runs = jax.vmap(lambda one: _run(x, weight, one, still, max_iterations, clusters))(keys)
    centres, labels, inertias, iterations, converged, reseeded = runs
    best = jnp.argmin(inertias)
    chosen = (
        centres[best] + middle[None],
        labels[best],
        inertias[best],
        iterations[best],
        converged[best],
        reseeded[best],
    )
    return KMeans(*chosen, inertias)


def _run(
    x: Float[Array, "n d"], weight: Float[Array, " n"], key: Key, still: Any, most: Any, clusters: int
) -> tuple[Array, ...]:
    """(centres, labels, inertia, iterations, converged, reseeded) of one run."""
    square = jnp.sum(jnp.square(x), axis=1)

    def assign(centres: Array) -> tuple[Array, Array]:
        """(n,) the nearest centre, and the squared distance to it by products."""
        product = jnp.matmul(x, centres.T, precision=_HIGHEST)
        squares = square[:, None] + jnp.sum(jnp.square(centres), axis=1)[None]
        found = jnp.maximum(squares - 2 * product, 0)
        labels = jnp.argmin(found, axis=1).astype(jnp.int32)
        relative, absolute = rounding(x.dtype, x.shape[1])
        slack = relative * squares + absolute
        possible = found - slack <= jnp.min(found + slack, axis=1, keepdims=True)
        unsure = (jnp.sum(possible, axis=1) > 1) & (weight > 0)
        return _by_differences(x, centres, labels, unsure), jnp.min(found, axis=1)

    def going(state: tuple[Any, ...]) -> Array:
        _, _, iterations, moved, _ = state
        return (moved > still) & (iterations < most)

    def update(state: tuple[Any, ...]) -> tuple[Any, ...]:
        centres, before, iterations, _, reseeded = state
        labels, squared = assign(centres)
        own = jax.nn.one_hot(labels, clusters, dtype=x.dtype) * weight[:, None]
        counts = jnp.sum(own, axis=0)
        means = jnp.matmul(own.T, x, precision=_HIGHEST) / jnp.maximum(counts, 1)[:, None]
        empty = counts == 0
        # The first empty cluster takes the farthest point, the next one the second farthest ...
        _, far = jax.lax.top_k(jnp.where(weight > 0, squared, -1), clusters)
        places = x[far[jnp.maximum(jnp.cumsum(empty) - 1, 0)]]
        new = jnp.where(empty[:, None], places, means)
        # Sums of the same points may round otherwise the next time: centres rest where no point has changed its
        # cluster.
        changed = jnp.any((labels != before) & (weight > 0)) | jnp.any(empty)
        moved = jnp.where(changed, jnp.sum(jnp.square(new - centres)), 0)
        return new, labels, iterations + 1, moved, reseeded + jnp.sum(empty, dtype=jnp.int32)

    nowhere = jnp.full(x.shape[0], -1, jnp.int32)
    first = (_start(x, key, clusters, weight), nowhere, jnp.int32(0), jnp.asarray(jnp.inf, x.dtype), jnp.int32(0))
    centres, _, iterations, moved, reseeded = jax.lax.while_loop(going, update, first)
    labels, _ = assign(centres)
    # From differences, for the figure that is reported: small clusters far from the mean keep their digits.
    inertia = jnp.sum(jnp.square(x - centres[labels]) * weight[:, None])
    return centres, labels, inertia, iterations, moved <= still, reseeded


def _by_differences(
    x: Float[Array, "n d"], centres: Float[Array, "k d"], labels: Int[Array, " n"], unsure: Bool[Array, " n"]
) -> Int[Array, " n"]:
    """The labels, those of unsure points anew: as many points at a time as need little memory."""
    n, d = x.shape
    size = max(1, min(n, _DIFFERENCES // (len(centres) * d)))
    places = jnp.nonzero(unsure, size=-(-n // size) * size, fill_value=n)[0]

    def some(state: tuple[Array, Array]) -> tuple[Array, Array]:
        start, labels = state
        chosen = jax.lax.dynamic_slice_in_dim(places, start, size)
        points = x.at[chosen].get(mode="clip")
        squared = jnp.sum(jnp.square(points[:, None] - centres[None]), axis=2)
        return start + size, labels.at[chosen].set(jnp.argmin(squared, axis=1).astype(labels.dtype), mode="drop")

    count = jnp.sum(unsure, dtype=jnp.int32)
    return jax.lax.while_loop(lambda state: state[0] < count, some, (jnp.int32(0), labels))[1]


def _start(x: Float[Array, "n d"], key: Key, clusters: int, weight: Float[Array, " n"]) -> Float[Array, "k d"]:
    """k-means++ centres: draw number c depends on ``(key, c)``."""
    first = jax.random.categorical(jax.random.fold_in(key, 0), jnp.log(weight))
    centres = jnp.zeros((clusters, x.shape[1]), x.dtype).at[0].set(x[first])

    def draw(number: Array, state: tuple[Any, ...]) -> tuple[Any, ...]:
        centres, nearest = state
        odds = nearest * weight
        # All points on chosen centres: any of them will do.
        odds = jnp.where(jnp.sum(odds) > 0, odds, weight)
        chosen = jax.random.categorical(jax.random.fold_in(key, number), jnp.log(odds))
        centre = x[chosen]
        return centres.at[number].set(centre), jnp.minimum(nearest, _squared(x, centre))

    return jax.lax.fori_loop(1, clusters, draw, (centres, _squared(x, x[first])))[0]


def _squared(x: Float[Array, "n d"], centre: Float[Array, " d"]) -> Float[Array, " n"]:
    return jnp.sum(jnp.square(x - centre[None]), axis=1)


@dataclass(frozen=True)
class ClusterPair:
    """Two clusters.

    Attributes:
        clusters: their numbers, rising.
        distance: of their centres.
        sizes: points of each.
    """

    clusters: tuple[int, int]
    distance: float
    sizes: tuple[int, int]


def cluster_pairs(
    centres: Num[ArrayLike, " k *event"],
    labels: Integer[np.ndarray, " n"],
    count: int,
    *,
    smallest: int = 0,
) -> tuple[ClusterPair, ClusterPair]:
    """The two clusters with the nearest centres, and the two with the farthest: of equal distances the lowest numbers.

    Args:
        centres: ``(k, *event)``.
        labels: (n,) cluster of each point.
        count: points that each of the clusters must have.
        smallest: clusters with fewer points are left aside; 0 takes all.

    Raises:
        InputError: fewer than two clusters left, labels that are not clusters, or a cluster of the pairs with fewer
            than ``count`` points.

    Li et al., arXiv 2311.01797, section 4.2: pairs of k-means clusters of MNIST.
    """
    shape = np.shape(centres)
    places = as_doubles("centres", centres).reshape(shape[0], -1)
    labels = as_labels("labels", labels)
    ends = (int(labels.min(initial=0)), int(labels.max(initial=0)))
    require(labels.size > 0 and ends[1] < len(places), "labels", ends, f"from 0 to {len(places) - 1}")
    sizes = np.bincount(labels, minlength=len(places))
    kept = np.flatnonzero(sizes >= smallest)
    require(len(kept) >= 2, f"clusters of {smallest} points or more", len(kept), "2 or more")
    first, second = np.triu_indices(len(kept), 1)
    distances = np.linalg.norm(places[kept[first]] - places[kept[second]], axis=1)
    pairs = []
    for kind, at in (("nearest", int(distances.argmin())), ("farthest", int(distances.argmax()))):
        numbers = int(kept[first[at]]), int(kept[second[at]])
        for cluster in numbers:
            name = f"points of cluster {cluster}, one of the {kind} pair,"
            require(
                int(sizes[cluster]) >= count,
                name,
                int(sizes[cluster]),
                f"at least {count}, as many as are asked of each",
            )
        pairs.append(ClusterPair(numbers, float(distances[at]), (int(sizes[numbers[0]]), int(sizes[numbers[1]]))))
    return pairs[0], pairs[1]
