"""Matrix decompositions that never wait for each other: ``jax.vmap`` and leading axes included.

On CPU, XLA's kernel for a batch of matrices hands them to the pool of threads that it runs on itself, and waits. Two
such kernels side by side (two batches in one program, or one batch on each of several devices) can take all threads of
the pool and wait for ever. Here a batch on CPU is decomposed one matrix after the other, by the same LAPACK routine and
to the same bits; on other platforms it is the one batched kernel, as ever. Real matrices only.

All functions are pure and differentiable, as those of ``jax.numpy.linalg`` are: forward and in reverse, in programs
that map them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def eigh(matrix: Float[Array, "*k n n"]) -> tuple[Float[Array, "*k n"], Float[Array, "*k n n"]]:
    """Eigenvalues, ascending, and eigenvectors, in columns, of symmetric matrices; those of ``(A + A^T) / 2``
    otherwise.
    """
    return _over_leading_axes(_eigh, matrix)


def eigvalsh(matrix: Float[Array, "*k n n"]) -> Float[Array, "*k n"]:
    """Eigenvalues of symmetric matrices, ascending."""
    return eigh(matrix)[0]


def svd(matrix: Float[Array, "*k m n"]) -> tuple[Float[Array, "*k m r"], Float[Array, "*k r"], Float[Array, "*k r n"]]:
    """The thin decomposition ``U diag(s) V^T``, ``r = min(m, n)``, as ``(U, s, V^T)`` with s descending."""
    return _over_leading_axes(_svd, matrix)


def svdvals(matrix: Float[Array, "*k m n"]) -> Float[Array, "*k r"]:
    """Singular values, descending."""
    return _over_leading_axes(_svdvals, matrix)


def left_vectors(matrix: Float[Array, "*k m n"]) -> Float[Array, "*k m m"]:
    """All m left singular vectors, in columns: those of positive singular values come first. Not differentiable."""
    return _over_leading_axes(_left_vectors, matrix)


def qr(matrix: Float[Array, "*k m n"]) -> tuple[Float[Array, "*k m n"], Float[Array, "*k n n"]]:
    """``(Q, R)`` of tall matrices, ``m >= n``: orthonormal columns and an upper triangle."""
    return _over_leading_axes(_qr, matrix)


def triangle(matrix: Float[Array, "*k m n"]) -> Float[Array, "*k n n"]:
    """The R of ``qr`` without the work for Q."""
    return _over_leading_axes(_triangle, matrix)


def solve_triangular(upper: Float[Array, "n n"], right: Float[Array, " n *p"], *, transposed: bool = False) -> Array:
    """The x with ``R x = right``, or ``R^T x = right``; R is the upper triangle of ``upper``."""
    upper, right = _unsplit(upper, 2), _unsplit(right, right.ndim)
    triangle = jnp.triu(upper)
    return jax.lax.custom_linear_solve(
        lambda x: _dot(triangle.T if transposed else triangle, x),
        right,
        lambda _, b: (_solve_transposed if transposed else _solve)(upper, b),
        lambda _, b: (_solve if transposed else _solve_transposed)(upper, b),
    )


def _unsplit(array: Array, count: int) -> Array:
    """The array with its last ``count`` axes in one piece: products along axes that are split by their type are
    refused.
    """
    placed = jax.typeof(array).sharding
    kept = placed.spec[: array.ndim - count]
    if placed.spec[len(kept) :] == (None,) * count:
        return array
    return jax.sharding.reshard(array, NamedSharding(placed.mesh, PartitionSpec(*kept)))


def _over_leading_axes(function: Callable[..., Any], matrix: Array) -> Any:
    matrix = _unsplit(matrix, 2)
    for _ in range(matrix.ndim - 2):
        function = jax.vmap(function)
    return function(matrix)


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` of arrays, which ``jax.vmap`` turns into a loop on CPU and maps elsewhere."""
    alone = jax.custom_batching.custom_vmap(function)

    @alone.def_vmap
    def rule(axis_size: int, batched: list[bool], *args: Array) -> tuple[Any, Any]:
        whole = [a if there else jnp.broadcast_to(a, (axis_size, *a.shape)) for a, there in zip(args, batched)]
        placed = jax.typeof(whole[0]).sharding
        explicit = any(part is not None for part in placed.spec)
        if explicit:  # A loop cannot run along an axis that is split by its type.
            whole = [jax.sharding.reshard(a, NamedSharding(placed.mesh, PartitionSpec())) for a in whole]
        found = jax.lax.platform_dependent(
            *whole, cpu=lambda *each: jax.lax.map(lambda one: alone(*one), each), default=jax.vmap(function)
        )
        if explicit:
            split = NamedSharding(placed.mesh, PartitionSpec(placed.spec[0]))
            found = jax.tree.map(lambda leaf: jax.sharding.reshard(leaf, split), found)
        return found, jax.tree.map(lambda _: True, found)

    return jax.jit(alone)


_plain_eigh = _one_by_one(lambda a: tuple(jnp.linalg.eigh(a)))
_plain_svd = _one_by_one(lambda a: tuple(jnp.linalg.svd(a, full_matrices=False)))
_plain_svdvals = _one_by_one(lambda a: jnp.linalg.svd(a, compute_uv=False))
_left_vectors = _one_by_one(lambda a: jnp.linalg.svd(a, full_matrices=True)[0])
_plain_qr = _one_by_one(lambda a: tuple(jnp.linalg.qr(a)))
_plain_triangle = _one_by_one(lambda a: jnp.linalg.qr(a, mode="r"))
_solve = _one_by_one(lambda r, b: jax.scipy.linalg.solve_triangular(r, b))
_solve_transposed = _one_by_one(lambda r, b: jax.scipy.linalg.solve_triangular(r, b, trans="T"))

# The derivatives are those of jax.numpy.linalg (Giles, An extended collection of matrix derivative results, 2008),
# which cannot be had from a function with a rule of its own for vmap. Eigenvalues or singular values that are equal
# have none.
_eigh, _svd, _svdvals = (jax.custom_jvp(function) for function in (_plain_eigh, _plain_svd, _plain_svdvals))
_qr, _triangle = jax.custom_jvp(_plain_qr), jax.custom_jvp(_plain_triangle)


@_eigh.defjvp
def _eigh_jvp(primals: Any, tangents: Any) -> Any:
    values, vectors = _eigh(*primals)
    change = (tangents[0] + tangents[0].T) / 2
    inner = _dot(_dot(vectors.T, change), vectors)
    eye = jnp.eye(len(values), dtype=values.dtype)
    inverse_gaps = 1 / (eye + values[None, :] - values[:, None]) - eye
    return (values, vectors), (jnp.diagonal(inner), _dot(vectors, inverse_gaps * inner))


@_svd.defjvp
def _svd_jvp(primals: Any, tangents: Any) -> Any:
    (a,), (da,) = primals, tangents
    u, s, vt = _svd(a)
    eye, (m, n) = jnp.eye(len(s), dtype=s.dtype), a.shape
    inner = _dot(_dot(u.T, da), vt.T)
    gaps = (s[None, :] + s[:, None]) * (s[None, :] - s[:, None])
    inverse_gaps = 1 / (gaps + eye) - eye
    by_columns, by_rows = s[None, :] * inner, s[:, None] * inner
    du = _dot(u, inverse_gaps * (by_columns + by_columns.T))
    dv = _dot(vt.T, inverse_gaps * (by_rows + by_rows.T))
    if m > n:
        outside = _dot(da, vt.T)
        du = du + (outside - _dot(u, _dot(u.T, outside))) / s[None, :]
    if n > m:
        outside = _dot(da.T, u)
        dv = dv + (outside - _dot(vt.T, _dot(vt, outside))) / s[None, :]
    return (u, s, vt), (du, jnp.diagonal(inner), dv.T)


@_svdvals.defjvp
def _svdvals_jvp(primals: Any, tangents: Any) -> Any:
    u, s, vt = _svd(*primals)
    return s, jnp.diagonal(_dot(_dot(u.T, tangents[0]), vt.T))


@_qr.defjvp
def _qr_jvp(primals: Any, tangents: Any) -> Any:
    q, r = _qr(*primals)
    scaled = solve_triangular(r, tangents[0].T, transposed=True).T  # dA R^-1
    inner = _dot(q.T, scaled)
    below = jnp.tril(inner, -1)
    turn = below - below.T
    return (q, r), (_dot(q, turn - inner) + scaled, _dot(inner - turn, r))


@_triangle.defjvp
def _triangle_jvp(primals: Any, tangents: Any) -> Any:
    (_, r), (_, dr) = _qr_jvp(primals, tangents)
    return r, dr
