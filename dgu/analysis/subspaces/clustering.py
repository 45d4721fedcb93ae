"""K-subspaces with spectral initialisation, to which training the hard-max network is equivalent (Theorem 3)."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Integer, Num

from dgu.analysis.subspaces.distances import principal_basis
from dgu.analysis.subspaces.kmeans import lloyd
from dgu.core import linalg
from dgu.core.arrays import as_jax_floats
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key

_HIGHEST = jax.lax.Precision.HIGHEST


class SubspaceClusters(NamedTuple):
    """A clustering of points by subspaces.

    Attributes:
        bases: ``(K, n, width)`` orthonormal columns, 0 beyond the rank.
        labels: ``(m,)`` the subspace of each row.
        objective: ``sum_i |U_k(i)^T z_i|^2`` over the normalised rows z, or the rows as they are.
        iterations: updates made.
        reseeded: how many times an emptied subspace was given rows again.
    """

    bases: Array
    labels: Array
    objective: Array
    iterations: Array
    reseeded: Array


def clustering_objective(
    bases: Num[ArrayLike, "K n r"], rows: Num[ArrayLike, "m n"]
) -> tuple[Float[Array, ""], Int[Array, " m"]]:
    """The objective (17) of subspace clustering, ``(1 / m) sum_k sum_{i in C_k} |U_k^T x_i|^2``, and the cluster of
    each row: the subspace with its longest projection, the first on ties; pure.

    Args:
        bases: orthonormal columns; columns of 0 are not there.
        rows: the points, as they are.

    Wang et al., arXiv 2409.02426, Theorem 3.
    """
    bases, rows = as_jax_floats("bases", bases), as_jax_floats("rows", rows)
    energy = jnp.sum(jnp.square(jnp.einsum("mn,knr->mkr", rows, bases, precision=_HIGHEST)), axis=2)
    return jnp.mean(jnp.max(energy, axis=1)), jnp.argmax(energy, axis=1)


def normalised(rows: Float[Array, "m n"]) -> Float[Array, "m n"]:
    """Rows scaled to unit length; zero rows stay zero."""
    norms = jnp.sqrt(jnp.sum(jnp.square(rows), axis=1, keepdims=True))
    return rows / jnp.where(norms > 0, norms, jnp.ones_like(norms))


def spectral_labels(
    key: Key,
    rows: Num[ArrayLike, "m n"],
    present: Bool[Array, " m"],
    clusters: int,
    threshold: Num[ArrayLike, ""] | float,
) -> Int[Array, " m"]:
    """Clusters by thresholded inner products (TIPS): k-means, best of 40, of the rows of the leading eigenvectors of A;
    pure.

    ``A_ij = 1`` where ``|<z_i, z_j>| >= threshold``, i and j differ, for unit rows z, else 0; the eigenvectors are
    those of its ``clusters`` algebraically largest eigenvalues (by modulus, -1 of a pair of points would come first).
    Rows that are not present are left out. Wang et al., "Convergence and recovery guarantees of the K-subspaces
    method", ICML 2022.
    """
    key = threefry(key)
    rows = as_jax_floats("rows", rows)
    units = normalised(rows)
    inner = jnp.abs(jnp.matmul(units, units.T, precision=_HIGHEST))
    kept = present[:, None] & present[None] & ~jnp.eye(rows.shape[0], dtype=bool)
    graph = jnp.where(kept, (inner >= threshold).astype(rows.dtype), 0)
    # Absent rows would bring eigenvalues of 0: they are sent below all others.
    graph = graph - jnp.diag(jnp.where(present, 0, 2 * rows.shape[0]).astype(rows.dtype))
    _, vectors = linalg.eigh(graph)
    return lloyd(vectors[:, -clusters:], clusters, key, present=present, restarts=40, max_iterations=20).labels


def k_subspaces(
    rows: Num[ArrayLike, "m n"],
    labels: Integer[Array, " m"],
    present: Bool[Array, " m"],
    rank: Integer[Array, ""] | int,
    *,
    clusters: int,
    width: int,
    iterations: int = 15,
    unit: bool = True,
) -> SubspaceClusters:
    """K-subspaces from initial labels: PCA of the unit rows of each cluster, then each row goes to the subspace on
    which its projection is longest, and so on; pure.

    It ends when no label changes, or after ``iterations`` updates. A subspace that lost all its rows is given the one
    worst explained and those at the smallest angles with it, ``rank`` in all, and that is counted. ``jax.vmap`` it, or
    ``jax.lax.map`` it, over problems; ``rank`` may be traced.

    Args:
        labels: initial labels, such as those of ``spectral_labels``.
        present: which rows are data rather than padding.
        rank: dimension of every subspace, at most ``width``.
        unit: whether rows are scaled to unit length, as in the source; as they are, no update lowers
            ``clustering_objective``.

    Raises:
        InputError: more clusters than rows, or ``width`` above the dimension.
    """
    rows = as_jax_floats("rows", rows)
    require(jnp.issubdtype(labels.dtype, jnp.integer), "labels.dtype", str(labels.dtype), "an integer type")
    labels = jnp.asarray(labels, jnp.int32)
    m, n = rows.shape
    require(1 <= clusters <= m, "clusters", clusters, f"from 1 to the number of rows {m}")
    require(1 <= width <= n, "width", width, f"from 1 to the dimension {n}")
    units = jnp.where(present[:, None], normalised(rows) if unit else rows, 0)
    fit = jax.vmap(partial(principal_basis, rank=rank, width=width))

    def fitted(labels: Array) -> tuple[Array, Array]:
        member = (labels[None] == jnp.arange(clusters)[:, None]) & present[None]
        bases = fit(jnp.where(member[:, :, None], units[None], 0))
        return bases, jnp.sum(jnp.square(jnp.einsum("mn,knr->mkr", units, bases, precision=_HIGHEST)), axis=2)

    def reseed(cluster: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        labels, best, count = state
        empty = ~jnp.any((labels == cluster) & present)
        worst = units[jnp.argmin(jnp.where(present, best, jnp.inf))]
        cosines = jnp.where(present, jnp.abs(jnp.matmul(units, worst, precision=_HIGHEST)), -1)
        nearest = jax.lax.top_k(cosines, min(width, m))[1]
        given = empty & (jnp.arange(len(nearest)) < rank)
        labels = labels.at[nearest].set(jnp.where(given, cluster, labels[nearest]))
        # Rows that were given away are not given away again.
        best = best.at[nearest].set(jnp.where(given, jnp.inf, best[nearest]))
        return labels, best, count + empty

    def update(state: tuple[Any, ...]) -> tuple[Any, ...]:
        labels, bases, energy, step, _, reseeded = state
        assigned = jnp.argmax(energy, axis=1).astype(labels.dtype)
        assigned, _, reseeded = jax.lax.fori_loop(0, clusters, reseed, (assigned, jnp.max(energy, axis=1), reseeded))
        bases, energy = fitted(assigned)
        changed = jnp.any((assigned != labels) & present)
        return assigned, bases, energy, step + 1, changed, reseeded

    start, _, emptied = jax.lax.fori_loop(
        0, clusters, reseed, (labels, jnp.arange(m, dtype=rows.dtype), jnp.zeros((), jnp.int32))
    )
    bases, energy = fitted(start)
    state = start, bases, energy, jnp.zeros((), jnp.int32), jnp.asarray(True), emptied
    state = jax.lax.while_loop(lambda state: state[4] & (state[3] < iterations), update, state)
    labels, bases, energy, step, _, reseeded = state
    own = jnp.take_along_axis(energy, labels[:, None], axis=1)[:, 0]
    return SubspaceClusters(bases, labels, jnp.sum(own), step, reseeded)
