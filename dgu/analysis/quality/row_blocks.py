"""Blocks of rows for distances by matrix products: in the range of the device's precision, centred, padded to one size.

The scores ``|r|^2 - 2 q . r`` of a block of queries and a block of reference rows order the reference rows by their
distance to each query. They are rounded: what uses them must decide close cases by differences.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from dgu.core.exact_distances import scaled

#: Reference rows in a group; a block holds whole groups.
GROUP = 16
#: Bytes of query rows held on the device at a time.
_PANEL_BYTES = 2**27
#: Sizes of numbers are kept within 2 to this power.
_RANGE = 40


def in_range(queries: np.ndarray, reference: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """The rows for products, and the power of two that they were divided by where squares would leave the range of
    float32.

    Rows much smaller than the largest may become 0: then the products leave everything open, and differences of the
    rows themselves decide.
    """
    largest = max(float(np.abs(end)) for side in (queries, reference) for end in (side.min(), side.max()))
    if largest == 0 or 2.0**-_RANGE < largest < 2.0**_RANGE:
        return (queries, reference), 0
    exponent = int(np.frexp(largest)[1])
    return (scaled(queries, -exponent), scaled(reference, -exponent)), exponent


def device_dtype(queries: np.ndarray, reference: np.ndarray) -> np.dtype:
    """The precision of the products: that of the rows, float32 at least, and as wide as JAX is set to."""
    return jax.dtypes.canonicalize_dtype(np.result_type(queries, reference, np.float32))


def _size(rows: int, block_size: int) -> int:
    """Rows of a block: whole groups, no more than there are rows."""
    return -(-min(block_size, rows) // GROUP) * GROUP


def query_panels(
    queries: np.ndarray, centre: np.ndarray, dtype: np.dtype, block_size: int
) -> Iterator[tuple[slice, list[Array]]]:
    """Query rows in panels that fit the device: their place, and their blocks, centred and padded with zeros."""
    size = _size(len(queries), block_size)
    per_panel = max(1, _PANEL_BYTES // (size * queries.shape[1] * dtype.itemsize)) * size
    for first in range(0, len(queries), per_panel):
        last = min(first + per_panel, len(queries))
        starts = range(first, last, size)
        blocks = [_block(queries[start : min(start + size, last)], size, centre, dtype) for start in starts]
        yield slice(first, last), blocks


def reference_blocks(
    rows: np.ndarray, centre: np.ndarray, dtype: np.dtype, block_size: int
) -> Iterator[tuple[int, Array, Array]]:
    """First row, centred rows and squared norms of each block; the norms of padding are infinite."""
    size = _size(len(rows), block_size)
    for start in range(0, len(rows), size):
        block = _block(rows[start : start + size], size, centre, dtype)
        yield start, block, _norms(block, np.int32(len(rows) - start))


def _block(rows: np.ndarray, size: int, centre: np.ndarray, dtype: np.dtype) -> Array:
    block = np.zeros((size, rows.shape[1]), dtype)
    np.subtract(rows, centre, out=block[: len(rows)], casting="same_kind")
    return jax.device_put(block)  # The memory is its own: jnp.asarray would compile a program that copies it.


@jax.jit
def _norms(block: Float[Array, "m d"], real: Int[ArrayLike, ""]) -> Float[Array, " m"]:
    squares = jnp.sum(jnp.square(block), axis=1)
    return jnp.where(jnp.arange(len(block)) < real, squares, jnp.full_like(squares, jnp.inf))


def scores(queries: Float[Array, "n d"], block: Float[Array, "m d"], norms: Float[Array, " m"]) -> Float[Array, "m n"]:
    """``|r|^2 - 2 q . r``, reference rows first: reductions over them then run along the vector lanes."""
    return norms[:, None] - 2 * jnp.matmul(block, queries.T, precision=jax.lax.Precision.HIGHEST)
