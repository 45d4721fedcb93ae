"""The min-norm interpolator: the linear classifier that long training on raw logits converges to."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core import linalg
from dgu.core.arrays import as_jax_floats
from dgu.core.errors import require

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


@jax.jit
def _interpolate(x: Array, targets: Array, initial: Array, rcond: Array) -> Array:
    left, values, right = linalg.svd(x)
    keep = values > rcond * values[0]
    inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1), jnp.zeros_like(values))
    residual = targets - _dot(x, initial)
    return initial + _dot(right.T, inverse[:, None] * _dot(left.T, residual))


def min_norm_interpolator(
    x: Num[ArrayLike, "n d"],
    targets: Num[ArrayLike, "n k"],
    initial: Num[ArrayLike, "d k"] | None = None,
    *,
    rcond: float | None = None,
) -> Float[Array, "d k"]:
    """``argmin ||W - W0||_F`` subject to ``X W = Y``: ``W0 + X^+ (Y - X W0)`` (arXiv 2501.07741, Theorem 1).

    SGD on ``||Y - X W||^2`` from W0 never leaves ``W0 + rowspace(X)``, so this is its limit. Where ``X W = Y`` has no
    solution (n > d, or repeated rows with unlike targets) it is the least-squares solution nearest to W0. Composes with
    ``jax.vmap``; an all-zero row with a zero target changes nothing, so that runs of unlike size can be padded.

    Args:
        x: (n, d) training rows.
        targets: (n, K), one-hot labels as a rule.
        initial: W0 (d, K); zero by default.
        rcond: singular values of X below ``rcond`` times the largest count as zero: directions in which W stays at W0.
            By default ``max(n, d)`` times the dtype's epsilon, as for ``numpy.linalg.matrix_rank``.

    Raises:
        InputError: ``rcond`` outside of [0, 1).
    """
    require(rcond is None or 0.0 <= rcond < 1.0, "rcond", rcond, "in [0, 1)")
    x, targets = as_jax_floats("x", x), as_jax_floats("targets", targets)
    cutoff = max(x.shape) * jnp.finfo(x.dtype).eps if rcond is None else rcond
    start = jnp.zeros((x.shape[1], targets.shape[1]), x.dtype) if initial is None else as_jax_floats("initial", initial)
    return _interpolate(x, targets, start, jnp.asarray(cutoff, x.dtype))
