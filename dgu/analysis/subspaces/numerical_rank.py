"""Numerical rank of a denoiser's Jacobian: the intrinsic dimension that a network sees in its data."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from dgu.analysis.linearity.jacobians import singular_triplets
from dgu.analysis.subspaces.energy_share import share_wanted
from dgu.core.arrays import as_doubles, as_floats, to_device
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, check_range, denoise
from dgu.core.errors import InputError, require, require_whole
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images
from dgu.core.typing import Denoiser, Key, Scalar

Method = Literal["dense", "products"]


def numerical_rank(
    values: Num[ArrayLike, "*batch k"],
    *,
    eta: float = 0.99,
    rule: str = "code",
    energy: Num[ArrayLike, "*batch"] | None = None,
) -> Int[np.ndarray, "*batch"]:
    """The least r with ``sum_{i <= r} s_i^2 > share * energy``; ``k + 1`` where all the values given do not reach it.

    Args:
        values: singular values, falling.
        eta: see ``share_wanted``; 0.99 in the paper.
        rule: which of the two conventions, see ``share_wanted``; they differ by a few per cent of the energy.
        energy: ``sum_i s_i^2`` over all singular values, where ``values`` are the leading ones only.

    Returns:
        Ranks from 0 (no energy at all) to k, or k + 1.

    Raises:
        InputError: ``eta`` or ``rule`` out of range, values that are negative, not finite, or do not fall.

    arXiv 2409.02426, equation 51.
    """
    values = as_doubles("values", values)
    sound = bool(np.isfinite(values).all()) and bool((values >= 0).all())
    require(sound and values.shape[-1] >= 1, "values", values.shape, "one or more, finite, 0 or more")
    require(bool((np.diff(values, axis=-1) <= 1e-6 * values[..., :1]).all()), "values", "rising", "falling")
    # In units of a power of two, which rounds nothing: squares of the largest and the smallest numbers have no room.
    unit = np.frexp(values[..., :1])[1]
    squares = np.cumsum(np.square(np.ldexp(values, -unit)), axis=-1)
    total = squares[..., -1] if energy is None else np.ldexp(as_doubles("energy", energy), -2 * unit[..., 0])
    reached = squares > share_wanted(eta, rule) * total[..., None]
    ranks = np.where(reached.any(axis=-1), reached.argmax(axis=-1) + 1, values.shape[-1] + 1)
    return np.where(total > 0, ranks, 0)


@short_repr
@dataclass(frozen=True, eq=False)
class JacobianRanks:
    """Numerical ranks at b points. Make it with ``jacobian_ranks``.

    Attributes:
        rank: ``(b,)``; where the values found do not hold the share, the least rank that they allow.
        low, high: ends of the 95 % interval of the rank, ``(b,)``: equal to ``rank`` where the values are exact.
        values: leading singular values, falling, ``(b, k)``; all of them with ``method="dense"``.
        energy: squared Frobenius norm, ``(b,)``.
        energy_error: its standard error, ``(b,)``; 0 where it is exact.
        is_bound: where the values found do not hold the share, so that ``rank`` is a lower bound, ``(b,)``.
    """

    rank: np.ndarray
    low: np.ndarray
    high: np.ndarray
    values: np.ndarray
    energy: np.ndarray
    energy_error: np.ndarray
    is_bound: np.ndarray


def jacobian_ranks(
    denoiser: Denoiser,
    x: Num[ArrayLike, " b *event"],
    sigma: Num[ArrayLike, " b"] | Num[ArrayLike, ""],
    *,
    eta: float = 0.99,
    rule: str = "code",
    method: str = "dense",
    count: int = 32,
    probes: int = 32,
    key: Key | None = None,
    tolerance: float = 1e-3,
    max_rounds: int = 20,
    batch_size: int = 8,
) -> JacobianRanks:
    """Numerical rank of ``J = dD(x, sigma) / dx`` at noisy images.

    Dense, J is formed by d products ``J e_i`` and decomposed in float64. By products, only the ``count`` leading
    triplets are found (``singular_triplets``), and the energy that they leave is estimated by Hutchinson's rule on what
    is orthogonal to the right vectors V, which is exact in expectation whatever their accuracy:

        |J|_F^2 = |J V|_F^2 + E |J (I - V V^T) z|^2,    z standard normal.

    The rank is then known to the interval of that energy: ``low`` and ``high`` are the ranks at its two ends.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        x: noisy images.
        sigma: the noise level of each, or of all.
        eta, rule: see ``numerical_rank``.
        method: ``"dense"`` takes memory of d x d at a time, ``"products"`` of d x count.
        count: triplets, with ``"products"``.
        probes: number of vectors z for each point, 2 or more, with ``"products"``.
        key: key of z and of the vectors that the iteration starts from, with ``"products"``.
        tolerance, max_rounds: of ``singular_triplets``.
        batch_size: points at a time.

    Raises:
        InputError: a value out of range, no key with ``"products"``, or a Jacobian that is not finite.

    arXiv 2409.02426, equations 49 to 51; Hutchinson (1990); Meyer et al., Hutch++ (2021), for the projection.
    """
    key = None if key is None else threefry(key)
    points = checked_images(x, 1, "x")
    size = points[0].size
    levels = np.broadcast_to(as_floats("sigma", sigma).astype(points.dtype), (len(points),))
    check_range(denoiser, "sigma", levels)
    share = share_wanted(eta, rule)
    require(method in get_args(Method), "method", method, f"one of {', '.join(get_args(Method))}")
    require_whole("batch_size", batch_size)
    model = as_pytree(denoiser)
    if method == "dense":
        values = np.concatenate([_dense(model, *at) for at in _batches(points, levels, batch_size)])[: len(points)]
        energy = np.square(values).sum(axis=1)
        rank = numerical_rank(values, eta=eta, rule=rule)
        exact = np.zeros(len(points))
        return JacobianRanks(rank, rank, rank, values, energy, exact, exact.astype(bool))

    require(key is not None, "key", None, "given with method 'products'")
    require_whole("probes", probes, 2)
    found = singular_triplets(
        denoiser, points, levels, count, key,  # type: ignore[arg-type]
        tolerance=tolerance, max_rounds=max_rounds, batch_size=batch_size,
    )  # fmt: skip
    draws = jax.random.split(jax.random.fold_in(key, 1), len(points))  # type: ignore[arg-type]
    parts = []
    for places in np.array_split(np.arange(len(points)), range(batch_size, len(points), batch_size)):
        rows = np.pad(places, (0, min(batch_size, len(points)) - len(places)), mode="edge")
        at = to_device(points[rows]), to_device(levels[rows]), to_device(found.right[rows].astype(points.dtype))
        left_over = _residual(model, *at, draws[rows], int(probes))
        parts.append(np.asarray(left_over, np.float64)[: len(places)])
    residual = np.concatenate(parts)
    if not np.isfinite(residual).all():
        raise InputError("denoiser: non-finite product with its Jacobian: must be finite")
    known = np.square(found.values).sum(axis=1)
    energy, error = known + residual.mean(axis=1), residual.std(axis=1, ddof=1) / np.sqrt(probes)
    half = scipy.stats.t.ppf(0.975, probes - 1) * error

    def rank_at(total: np.ndarray) -> np.ndarray:
        """At an energy; beyond the values found, the least rank if all further values equalled the last."""
        ranks = numerical_rank(found.values, eta=eta, rule=rule, energy=total)
        last = np.maximum(np.square(found.values[:, -1]), np.finfo(float).tiny)
        further = count + np.minimum(np.ceil((share * total - known) / last), size)
        return np.minimum(np.where(ranks > count, np.maximum(further, count), ranks), size).astype(int)

    low, high = rank_at(np.maximum(energy - half, known)), rank_at(energy + half)
    # Beyond the values found nothing bounds the rank from above.
    high = np.where(share * (energy + half) >= known, size, high)
    beyond = numerical_rank(found.values, eta=eta, rule=rule, energy=energy) > count
    return JacobianRanks(rank_at(energy), low, high, found.values, energy, error, beyond)


def _batches(points: np.ndarray, levels: np.ndarray, batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches of one size, the last filled up with the last point."""
    size = min(batch_size, len(points))
    rows = [np.minimum(np.arange(at, at + size), len(points) - 1) for at in range(0, len(points), size)]
    return [(points[row], levels[row]) for row in rows]


def _dense(denoiser: Any, x: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """All singular values at a batch of points, in float64."""
    matrices = np.asarray(_jacobians(denoiser, x, sigma), np.float64)
    if not np.isfinite(matrices).all():
        raise InputError("denoiser: non-finite Jacobian: must be finite")
    return np.linalg.svd(matrices, compute_uv=False)


@jax.jit
def _jacobians(denoiser: Denoiser, x: Float[Array, " b *event"], sigma: Float[Array, " b"]) -> Float[Array, "b d d"]:
    """Transposed Jacobians, a row for each ``J e_i``: they have the same singular values."""

    def one(x: Array, sigma: Scalar) -> Array:
        push = jax.linearize(lambda y: denoise(denoiser, y, sigma), x)[1]
        units = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
        return jax.vmap(push)(units).reshape(x.size, x.size)

    return jax.vmap(one)(x, sigma)


def _residual(
    denoiser: Any, x: Array, sigma: Array, right: Float[Array, "b k *event"], keys: Array, probes: int
) -> Float[Array, "b p"]:
    draws = jax.vmap(lambda key: jax.random.normal(key, (probes, x[0].size), x.dtype))(keys)
    return _energies(denoiser, x, sigma, right, draws)


@jax.jit
def _energies(
    denoiser: Denoiser,
    x: Float[Array, " b *event"],
    sigma: Float[Array, " b"],
    right: Array,
    draws: Float[Array, "b p d"],
) -> Float[Array, "b p"]:
    """``|J (I - V V^T) z|^2`` of every draw."""

    def one(x: Array, sigma: Scalar, right: Array, draws: Array) -> Array:
        basis = right.reshape(right.shape[0], -1)
        inside = jnp.matmul(draws, basis.T, precision=jax.lax.Precision.HIGHEST)
        rest = draws - jnp.matmul(inside, basis, precision=jax.lax.Precision.HIGHEST)
        push = jax.linearize(lambda y: denoise(denoiser, y, sigma), x)[1]
        return jnp.sum(jnp.square(jax.vmap(push)(rest.reshape(-1, *x.shape)).reshape(draws.shape)), axis=1)

    return jax.vmap(one)(x, sigma, right, draws)
