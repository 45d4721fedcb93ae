"""Algorithm 1 on the hard-max network: SGD on the denoising loss, many problems of subspace recovery side by side.

The noisy example enters the network only by its inner products with the subspaces, so that the loss of a batch is a
function of ``V^T x0`` for the few distinct examples and of ``V^T eps``. Problems that share the draws of noise
therefore need one large matrix product a step where each on its own would need many small ones.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_jax_floats, as_number
from dgu.core.chunks import check_chunk
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.parallel import data_mesh, own_devices
from dgu.core.typing import Key
from dgu.training.subspaces.problems import Problems

_HIGHEST = jax.lax.Precision.HIGHEST


class TimeGrid(NamedTuple):
    """Scales s_t and noise levels gamma_t of ``x_t = s_t x0 + gamma_t eps`` at the times of a grid, each ``(T,)``."""

    scale: Any
    noise: Any


def vp_grid(steps: int = 64, beta_min: float = 0.1, beta_max: float = 20.0) -> TimeGrid:
    """The variance-preserving process at times ``1 / steps, 2 / steps, ..., 1``.

    ``s_t = exp(-(beta_max - beta_min) t^2 / 4 - beta_min t / 2)``, ``gamma_t^2 = 1 - s_t^2``.

    Raises:
        InputError: ``steps`` below 1, or betas that are not ``0 <= beta_min <= beta_max``, the larger above 0.
    """
    steps, beta_min, beta_max = map(as_number, (steps, beta_min, beta_max))
    require(steps >= 1, "steps", steps, "1 or more")
    require(0 <= beta_min <= beta_max and beta_max > 0, "beta_max", beta_max, f"positive, at least beta_min {beta_min}")
    time = np.arange(1, steps + 1) / steps
    log_scale = -(beta_max - beta_min) * time**2 / 4 - beta_min * time / 2
    return TimeGrid(np.exp(log_scale), np.sqrt(-np.expm1(2 * log_scale)))


def exact_loss(bases: Num[ArrayLike, "n r"], rows: Num[ArrayLike, "m n"], grid: TimeGrid) -> Float[Array, ""]:
    """The denoising loss of the network ``zeta_t U U^T x_t`` (11), free of noise: the mean over rows and times of

        |x0|^2 - 2 zeta s |U^T x0|^2 + zeta^2 s^2 |U U^T x0|^2 + zeta^2 gamma^2 |U U^T|_F^2,   zeta = s / (s^2 +
        gamma^2),

    which is ``E |zeta U U^T (s x0 + gamma eps) - x0|^2`` whatever U; for orthonormal columns the third term joins the
    second and the last is ``zeta^2 gamma^2 r``, so that PCA minimises it (Theorem 1). Pure.
    """
    return _exact_loss(as_jax_floats("bases", bases), as_jax_floats("rows", rows), grid)


@jax.jit
def _exact_loss(bases: Float[Array, "n r"], rows: Float[Array, "m n"], grid: TimeGrid) -> Float[Array, ""]:
    scale, noise = (jnp.asarray(part, rows.dtype) for part in grid)
    zeta = scale / (jnp.square(scale) + jnp.square(noise))
    inside = jnp.matmul(rows, bases, precision=_HIGHEST)
    gram = jnp.matmul(bases.T, bases, precision=_HIGHEST)
    energy = jnp.mean(jnp.sum(jnp.square(inside), axis=1))
    output = jnp.mean(jnp.einsum("mr,rs,ms->m", inside, gram, inside, precision=_HIGHEST))
    size = jnp.mean(jnp.sum(jnp.square(rows), axis=1))
    spread = jnp.sum(jnp.square(gram))
    of_time = -2 * zeta * scale * energy + jnp.square(zeta * scale) * output + jnp.square(zeta * noise) * spread
    return size + jnp.mean(of_time)


class Batch(NamedTuple):
    """The draws of one step: ``where`` in [0, 1) picks examples; ``scale`` and ``noise`` are those of their times."""

    where: Array  # (M,)
    scale: Array  # (M,)
    noise: Array  # (M,)
    eps: Array  # (M, n)


def draw_batch(key: Key, grid: TimeGrid, size: int, dimension: int) -> Batch:
    """Uniform examples, uniform times of the grid and standard normal noise, by the key of the step."""
    key = threefry(key)
    first, second = jax.random.split(key)
    scale, noise = (jnp.asarray(part, float) for part in grid)
    where, when = jax.random.uniform(first, (2, size))
    time = jnp.floor(when * len(grid.scale)).astype(jnp.int32)
    eps = jax.random.normal(second, (size, dimension))
    return Batch(where, scale[time], noise[time], eps)


def batch_loss(
    bases: Float[Array, "n P K r"], rows: Float[Array, "P m n"], counts: Float[Array, " P"], batch: Batch
) -> Float[Array, " P"]:
    """Each problem's denoising loss of the hard-max network (15, 16) on a batch, but for the mean of ``|x0|^2``; pure.

    Example j of problem p is row ``floor(where_j counts_p)``; rows that count come first. With ``c = U_k^T x_t`` and
    ``c0 = U_k^T x0``, the loss of an example is ``zeta^2 |U_k c|^2 - 2 zeta c0 . c``, which holds for any columns.
    """
    known = jnp.einsum("pmn,npkr->pmkr", rows, bases, precision=_HIGHEST)
    energy = jax.lax.stop_gradient(jnp.sum(jnp.square(known), axis=3))
    chosen = jax.nn.one_hot(jnp.argmax(energy, axis=2), bases.shape[2], dtype=rows.dtype)
    known = known * chosen[..., None]
    # Rows are few: a product with their indicators is faster than a gather, and far faster than its transpose.
    row = jnp.floor(batch.where[None] * counts[:, None])
    picked = (row[..., None] == jnp.arange(rows.shape[1], dtype=row.dtype)[None, None]).astype(rows.dtype)
    clean = jnp.einsum("pjm,pmkr->pjkr", picked, known, precision=_HIGHEST)
    share = jnp.einsum("pjm,pmk->pjk", picked, chosen, precision=_HIGHEST)
    drawn = jnp.einsum("jn,npkr->pjkr", batch.eps, bases, precision=_HIGHEST) * share[..., None]
    noisy = batch.scale[None, :, None, None] * clean + batch.noise[None, :, None, None] * drawn
    zeta = (batch.scale / (jnp.square(batch.scale) + jnp.square(batch.noise)))[None, :, None, None]
    gram = jnp.einsum("npkr,npks->pkrs", bases, bases, precision=_HIGHEST)
    second = jnp.einsum("pjkr,pjks->pkrs", zeta * noisy, zeta * noisy, precision=_HIGHEST)
    return (jnp.sum(gram * second, axis=(1, 2, 3)) - 2 * jnp.sum(zeta * clean * noisy, axis=(1, 2, 3))) / len(
        batch.where
    )


def train_subspaces(
    keys: Key,
    problems: Problems,
    starts: Num[ArrayLike, "T P K n r"],
    *,
    grid: TimeGrid | None = None,
    steps: int = 5000,
    batch_size: int = 128,
    learning_rate: float = 0.1,
) -> Float[Array, "T P K n r"]:
    """Algorithm 1: plain SGD on the denoising loss, of T groups of P problems; the bases after ``steps``, as they are.

    Nothing keeps them orthonormal: ``orthonormalised`` does, which the test of success needs (the raw projector shrinks
    directions). Nor does anything keep them finite: the loss is of fourth order, and SGD may diverge on a few long
    examples. Such a problem has bases that are not finite, and no others are touched by it. The problems of a group
    share their draws of times, noise and positions; groups share none. Groups are spread over the devices of this
    process, one after the other on each; one compiled program.

    Args:
        keys: ``(T,)``, one for each group.
        problems: leaves with leading axes ``(T, P)``.
        starts: initial bases; zero columns stay zero.
        grid: scales and noise levels, ``vp_grid()`` by default.
        learning_rate: eta, of the mean loss of a batch.

    Raises:
        InputError: ``steps`` or ``batch_size`` below 1, ``learning_rate`` not positive and finite; no keys, or not T.
    """
    require(steps >= 1, "steps", steps, "1 or more")
    require(0 < learning_rate < np.inf, "learning_rate", learning_rate, "positive and finite")
    starts = as_jax_floats("starts", starts)
    mesh = data_mesh(own_devices())  # Every process computes all of it, and so reads all of it.
    groups = starts.shape[0]
    check_chunk("batch_size", batch_size, problems.rows.shape[-1:], starts.dtype)
    keys = threefry(keys, "keys", shape=(groups,))
    packed, padding = (keys, problems.rows, problems.present, starts), -groups % mesh.size
    if padding:
        fill = np.concatenate([np.arange(groups), np.zeros(padding, int)])
        packed = jax.tree.map(lambda leaf: jnp.asarray(leaf)[fill], packed)
    levels = TimeGrid(*(np.asarray(part, float) for part in (grid or vp_grid())))
    trained = _train(*packed, levels, np.asarray(learning_rate, float), steps, batch_size, mesh)
    return trained[:groups] if padding else trained


@partial(jax.jit, static_argnames=("steps", "batch_size", "mesh"))
def _train(
    keys: Array,
    rows: Array,
    present: Array,
    starts: Array,
    grid: TimeGrid,
    rate: Array,
    steps: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> Array:
    def group(given: tuple[Array, Array, Array, Array], grid: TimeGrid, rate: Array) -> Array:
        key, rows, present, start = given
        order = jnp.argsort(~present, axis=1, stable=True)
        first = jnp.take_along_axis(rows, order[:, :, None], axis=1)
        counts = jnp.sum(present, axis=1).astype(rows.dtype)

        def step(bases: Array, number: Array) -> tuple[Array, None]:
            batch = draw_batch(jax.random.fold_in(key, number), grid, batch_size, rows.shape[2])
            slope = jax.grad(lambda v: jnp.sum(batch_loss(v, first, counts, batch)))(bases)
            return bases - rate * slope, None

        # The space's axis first: the noise meets all bases in one product.
        bases, _ = jax.lax.scan(step, jnp.moveaxis(start, 2, 0), jnp.arange(steps))
        return jnp.moveaxis(bases, 0, 2)

    split, whole = PartitionSpec("data"), PartitionSpec()
    local = jax.shard_map(
        lambda given, grid, rate: jax.lax.map(lambda one: group(one, grid, rate), given),
        mesh=mesh,
        in_specs=(split, whole, whole),
        out_specs=split,
        check_vma=False,
    )
    return local((keys, rows, present, starts), grid, rate)
