"""Streaming, mergeable mean and covariance of a set of images.

The state holds the count, the mean and the scatter matrix ``S = sum_i (x_i - mean)(x_i - mean)^T`` about the *current*
mean, and two states combine by the pairwise rule of Chan, Golub and LeVeque (1979; The American Statistician 37(3),
1983): sums of raw squares, which lose every digit when the mean is large, are never formed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_jax_floats, check_squares
from dgu.core.errors import require

_HIGHEST = jax.lax.Precision.HIGHEST


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MomentState:
    """Count, mean and scatter of the images seen so far: a pytree, so it goes through ``jit``, ``vmap``, checkpoints.

    Fields: ``count`` int32 scalar, ``mean`` of the event's shape, ``scatter`` ``(d, d)`` with d the flattened size.
    States made per chunk, per process or per device merge in any order, to rounding:

    ``state = MomentState.zeros(shape); for batch in batches: state = state.update(batch)``
    """

    count: Any
    mean: Any
    scatter: Any

    @classmethod
    def zeros(cls, shape: Sequence[int], dtype: DTypeLike | None = None) -> "MomentState":
        """The state before any image; ``shape`` is one image's, ``dtype`` JAX's default float unless given.

        Raises:
            InputError: ``shape`` has a dimension below 1, or ``dtype`` is not a floating type.
        """
        shape = tuple(shape)
        require(all(size >= 1 for size in shape), "shape", shape, "the shape of one image, no dimension below 1")
        dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
        wide = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 4
        require(wide, "dtype", str(dtype), "a floating type of 32 bits or more, in which squares do not overflow")
        size = prod(shape)
        return cls(jnp.zeros((), jnp.int32), jnp.zeros(shape, dtype), jnp.zeros((size, size), dtype))

    def update(self, batch: Num[ArrayLike, " n *event"]) -> "MomentState":
        """The state after the images of ``batch`` ``(n, *event)`` are added; each batch shape compiles once.

        Raises:
            InputError: the images of ``batch`` have another shape than the state's.
        """
        shape = np.shape(batch)
        require(shape[1:] == self.mean.shape, "batch.shape", shape, f"(n, {', '.join(map(str, self.mean.shape))})")
        check_squares(batch=batch)
        return _update(self, as_jax_floats("batch", batch)) if shape[0] else self

    def merge(self, other: "MomentState") -> "MomentState":
        """The state of both sets of images together.

        Raises:
            InputError: ``other`` is of images of another shape.
        """
        require(other.mean.shape == self.mean.shape, "other.mean.shape", other.mean.shape, str(self.mean.shape))
        return _merge(self, other)

    def covariance(self, ddof: int = 1) -> Float[Array, "d d"]:
        """``scatter / (count - ddof)``: the unbiased covariance for ``ddof=1``, as ``numpy.cov``.

        Raises:
            InputError: the state holds no more than ``ddof`` images (not checked under a trace).
        """
        if not isinstance(self.count, jax.core.Tracer):
            count = np.asarray(self.count)
            require(bool((count > ddof).all()), "count", count.tolist(), f"above ddof = {ddof}")
        return self.scatter / (self.count - ddof).astype(self.scatter.dtype)


@jax.jit
def _merge(a: MomentState, b: MomentState) -> MomentState:
    """Chan's rule: with delta = mean_b - mean_a and w = n_b / (n_a + n_b), the mean moves by w delta and the scatter
    gains ``n_a w delta delta^T``."""
    count = a.count + b.count
    dtype = a.mean.dtype
    weight = b.count.astype(dtype) / jnp.maximum(count, 1).astype(dtype)
    delta = b.mean.astype(dtype) - a.mean
    flat = delta.ravel()
    between = a.count.astype(dtype) * weight * jnp.outer(flat, flat)
    return MomentState(count, a.mean + weight * delta, a.scatter + b.scatter.astype(dtype) + between)


@jax.jit
def _update(state: MomentState, batch: Array) -> MomentState:
    dtype = state.mean.dtype
    rows = batch.astype(dtype).reshape(batch.shape[0], -1)
    # The second pass removes the first one's rounding: a float32 mean of many rows is otherwise off by sqrt(n) ulp.
    mean = jnp.mean(rows, axis=0, keepdims=True)
    mean = mean + jnp.mean(rows - mean, axis=0, keepdims=True)
    centred = rows - mean
    scatter = jnp.matmul(centred.T, centred, precision=_HIGHEST)
    chunk = MomentState(jnp.asarray(batch.shape[0], jnp.int32), mean.reshape(state.mean.shape), scatter)
    return _merge(state, chunk)


def moments(images: Num[ArrayLike, " n *event"], dtype: DTypeLike | None = None) -> MomentState:
    """Mean and covariance state of ``images`` ``(n, *event)``, n at least 1, with any event shape.

    ``moments(images).mean`` and ``moments(images).covariance()`` equal ``numpy.mean(axis=0)`` and ``numpy.cov`` of the
    flattened images. Integer images (uint8) are taken as numbers.

    Args:
        images: the images; for sets that do not fit in memory use ``MomentState.zeros(shape).update(batch)``.
        dtype: of the state: the images' own floating type unless given, JAX's default float for integers.

    Raises:
        InputError: there are no images, an image is empty, or ``dtype`` is not a floating type.
    """
    shape = np.shape(images)
    require(shape[0] >= 1, "images.shape", shape, "(n, ...) with n at least 1")
    images = as_jax_floats("images", images)
    return MomentState.zeros(shape[1:], images.dtype if dtype is None else dtype).update(images)
