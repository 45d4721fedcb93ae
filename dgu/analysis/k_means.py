"""k-means with the k-means++ start: pure and masked, so that many small clusterings are one compiled program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from dgu.typing import Key


class KMeans(NamedTuple):
    """A clustering.

    Attributes:
        labels: ``(n,)`` cluster of each point; of points that are not present, any.
        centres: ``(K, d)``.
        inertia: sum of squared distances of points to their centres.
        reseeded: how many times an emptied cluster was put on the point farthest from its centre.
    """

    labels: Array
    centres: Array
    inertia: Array
    reseeded: Array


def k_means(
    key: Key,
    points: Float[Array, "n d"],
    clusters: int,
    *,
    present: Bool[Array, "n"] | None = None,
    replicates: int = 10,
    iterations: int = 30,
) -> KMeans:
    """The best of ``replicates`` runs of Lloyd's algorithm, each from a k-means++ start of its own; pure.

    Every run makes exactly ``iterations`` steps. An emptied cluster is put on the point farthest from its centre.

    Args:
        present: points that count; all by default.
    """
    kept = jnp.ones(points.shape[0], bool) if present is None else present
    runs = jax.vmap(lambda k: _lloyd(k, points, kept, clusters, iterations))(jax.random.split(key, replicates))
    best = jnp.argmin(runs.inertia)
    chosen = jax.tree.map(lambda leaf: leaf[best], runs)
    return chosen._replace(reseeded=runs.reseeded[best])


def plus_plus(
    key: Key, points: Float[Array, "n d"], clusters: int, present: Bool[Array, "n"]
) -> Float[Array, "clusters d"]:
    """Points as starting centres: each with odds of its squared distance to those chosen (Arthur and Vassilvitskii 2007)."""
    keys = jax.random.split(key, clusters)
    far = jnp.full(points.shape[0], jnp.finfo(points.dtype).max ** 0.5, points.dtype)

    def choose(nearest: Array, step_key: Array) -> tuple[Array, Array]:
        odds = jnp.where(present, nearest, 0)
        # All points on chosen ones: any of them will do.
        odds = jnp.where(jnp.sum(odds) > 0, odds, present.astype(points.dtype))
        centre = points[jax.random.categorical(step_key, jnp.log(odds))]
        return jnp.minimum(nearest, jnp.sum(jnp.square(points - centre[None]), axis=1)), centre

    return jax.lax.scan(choose, far, keys)[1]


def _squares(points: Array, centres: Array) -> Array:
    """(n, K) squared distances, from differences."""
    return jnp.sum(jnp.square(points[:, None] - centres[None]), axis=2)


def _lloyd(key: Key, points: Array, present: Array, clusters: int, iterations: int) -> KMeans:
    weight = present.astype(points.dtype)

    def step(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        centres, reseeded = state
        squares = _squares(points, centres)
        member = jax.nn.one_hot(jnp.argmin(squares, axis=1), clusters, dtype=points.dtype) * weight[:, None]
        counts = jnp.sum(member, axis=0)
        means = jnp.matmul(member.T, points, precision=jax.lax.Precision.HIGHEST) / jnp.maximum(counts, 1)[:, None]
        farthest = points[jnp.argmax(jnp.where(present, jnp.min(squares, axis=1), -1))]
        empty = counts == 0
        # One at a time: two clusters on one point would be empty again.
        first = empty & (jnp.cumsum(empty) == 1)
        centres = jnp.where(first[:, None], farthest[None], jnp.where(empty[:, None], centres, means))
        return centres, reseeded + jnp.any(empty).astype(jnp.int32)

    start = plus_plus(key, points, clusters, present), jnp.zeros((), jnp.int32)
    centres, reseeded = jax.lax.fori_loop(0, iterations, step, start)
    squares = _squares(points, centres)
    inertia = jnp.sum(jnp.min(squares, axis=1) * weight)
    return KMeans(jnp.argmin(squares, axis=1), centres, inertia, reseeded)
