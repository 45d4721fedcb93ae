"""How far estimated subspaces are from the true ones, up to the order of components: angles, projectors, recovery."""

from functools import partial
from itertools import permutations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer, Num

from dgu.core import linalg
from dgu.core.arrays import as_doubles, as_jax_floats
from dgu.core.errors import require

_HIGHEST = jax.lax.Precision.HIGHEST
#: All orders of more components than this are too many to try.
MAX_COMPONENTS = 7


class Recovery(NamedTuple):
    """Estimated subspaces against true ones, in the order of components that fits best.

    Attributes:
        order: ``(K,)``, the estimate that goes with each true subspace.
        distances: ``(K,)``, spectral norm of the difference of the two projectors.
        frobenius: ``(K,)``, its Frobenius norm.
        success: whether the mean of ``distances`` is at most the threshold.
    """

    order: Array
    distances: Array
    frobenius: Array
    success: Array


def principal_angles(first: Num[ArrayLike, "n p"], second: Num[ArrayLike, "n q"]) -> Float[Array, " m"]:
    """The principal angles between two column spaces, in radians, ascending, ``m = min(p, q)``; pure.

    Both have orthonormal columns. Angles below 45 degrees come from sines, the others from cosines, so that all have
    the precision of the dtype (Knyazev and Argentati 2002).
    """
    return _principal_angles(as_jax_floats("first", first), as_jax_floats("second", second))


@jax.jit
def _principal_angles(first: Array, second: Array) -> Array:
    narrow, wide = sorted((first, second), key=lambda basis: basis.shape[1])
    along = jnp.matmul(wide, jnp.matmul(wide.T, narrow, precision=_HIGHEST), precision=_HIGHEST)
    cosines, sines = jnp.clip(linalg.svdvals(jnp.stack([along, narrow - along])), 0, 1)
    return jnp.where(cosines > 0.5**0.5, jnp.arcsin(sines[::-1]), jnp.arccos(cosines))


def projector_distances(
    estimate: Num[ArrayLike, "K n r"], truth: Num[ArrayLike, "L n r"]
) -> tuple[Float[Array, "K L"], Float[Array, "K L"]]:
    """Spectral and Frobenius norms of ``U U^T - V V^T`` for each pair of subspaces of one rank; pure.

    Zero columns are padding, and there are equally many in both. For equal ranks the two norms are the largest sine of
    a principal angle, and the root of twice the sum of squared sines.
    """
    return _projector_distances(as_jax_floats("estimate", estimate), as_jax_floats("truth", truth))


@jax.jit
def _projector_distances(estimate: Array, truth: Array) -> tuple[Array, Array]:
    inner = jnp.einsum("knr,lns->klrs", estimate, truth, precision=_HIGHEST)
    off = truth[None] - jnp.einsum("knr,klrs->klns", estimate, inner, precision=_HIGHEST)
    gram = jnp.einsum("klnr,klns->klrs", off, off, precision=_HIGHEST)
    largest = linalg.eigvalsh(gram)[..., -1]
    total = jnp.trace(gram, axis1=-2, axis2=-1)
    return jnp.sqrt(jnp.maximum(largest, 0)), jnp.sqrt(2 * jnp.maximum(total, 0))


def recovery(estimate: Num[ArrayLike, "K n r"], truth: Num[ArrayLike, "K n r"], threshold: float = 0.5) -> Recovery:
    """Whether the subspaces are recovered: the mean over components of ``|U U^T - V V^T|_2``, in the order of
    components that makes it smallest, is at most ``threshold``. Pure; ``jax.vmap`` it over problems.

    Both have orthonormal columns, or zero columns as padding, as many in both.

    Raises:
        InputError: shapes that differ, or more than 7 components (all orders are tried).
    """
    estimate, truth = as_jax_floats("estimate", estimate), as_jax_floats("truth", truth)
    require(estimate.shape == truth.shape, "estimate.shape", estimate.shape, f"that of truth, {truth.shape}")
    count = estimate.shape[0]
    require(count <= MAX_COMPONENTS, "truth", f"{count} components", f"at most {MAX_COMPONENTS}")
    spectral, frobenius = projector_distances(estimate, truth)
    orders = jnp.asarray(np.asarray(list(permutations(range(count)))))
    along = jnp.arange(count)
    best = orders[jnp.argmin(jnp.sum(spectral[orders, along[None]], axis=1))]
    distances = spectral[best, along]
    return Recovery(best, distances, frobenius[best, along], jnp.mean(distances) <= threshold)


def orthonormalised(bases: Num[ArrayLike, "*k n r"]) -> Float[Array, "*k n r"]:
    """The orthonormal columns nearest to the given ones, ``P Q^T`` of the singular value decomposition ``P S Q^T``;
    pure.

    Zero columns stay zero.
    """
    bases = as_jax_floats("bases", bases)
    left, singular, right = linalg.svd(bases)
    rounding = 10 * bases.shape[-2] * jnp.finfo(bases.dtype).eps
    kept = (singular > rounding * singular[..., :1]).astype(bases.dtype)
    return jnp.matmul(left * kept[..., None, :], right, precision=_HIGHEST)


def principal_basis(rows: Num[ArrayLike, "m n"], rank: Integer[Array, ""] | int, width: int) -> Float[Array, "n width"]:
    """PCA (12): the ``rank`` leading right singular vectors of ``rows``, uncentred, and ``width - rank`` columns of 0;
    pure.

    From the rows themselves: their Gram matrix would square a small singular value out of float32. ``rank`` may be
    traced and is at most ``width``. Rows of 0 have no effect, so that sets of several sizes can be padded. With fewer
    rows than ``rank`` the last columns are arbitrary orthonormal ones, which the rows do not determine.
    """
    return _principal_basis(as_jax_floats("rows", rows), rank, width)


@partial(jax.jit, static_argnums=2)
def _principal_basis(rows: Array, rank: Integer[Array, ""] | int, width: int) -> Array:
    if rows.shape[0] > rows.shape[1]:
        rows = linalg.triangle(rows)  # The same right singular vectors, from a small matrix.
    vectors = linalg.left_vectors(rows.T) if rows.shape[0] < width else linalg.svd(rows.T)[0]
    return vectors[:, :width] * (jnp.arange(width) < rank).astype(rows.dtype)[None]


def subspace_distances(rows: Num[ArrayLike, " m *event"], bases: Num[ArrayLike, "..."]) -> Float[np.ndarray, "m K"]:
    """The Euclidean distance of each row to each of K subspaces through 0, ``|x - U_k U_k^T x|``, in float64.

    Args:
        rows: ``(m, *event)``.
        bases: orthonormal columns of each subspace, ``(K, *event, r)``; columns of 0 are not there.

    Raises:
        InputError: bases and rows of different events.
    """
    points, columns = as_doubles("rows", rows), as_doubles("bases", bases)
    fits = columns.ndim >= 3 and columns.shape[1:-1] == points.shape[1:]
    require(fits, "bases.shape", columns.shape, f"(K, *{points.shape[1:]}, r), the event that of the rows")
    points = points.reshape(len(points), -1)
    distances = []
    for basis in columns.reshape(len(columns), points.shape[1], -1):
        kept = np.ascontiguousarray(basis[:, basis.any(axis=0)])
        distances.append(np.linalg.norm(points - points @ kept @ kept.T, axis=1))
    return np.stack(distances, axis=1)


def adjusted_rand_index(first: Integer[np.ndarray, " n"], second: Integer[np.ndarray, " n"]) -> float:
    """Agreement of two clusterings of the same examples: 1 if they are the same, 0 on average by chance (Hubert and
    Arabie).
    """
    require(len(first) == len(second) >= 2, "second", f"{len(second)} labels", f"{len(first)}, two or more")
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    chance = rows * columns / pairs(np.asarray([float(len(a))]))
    most = (rows + columns) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)
