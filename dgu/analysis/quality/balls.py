"""How many balls hold each row, exactly: close to the edge of a ball, products of rows never decide."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Num

from dgu.analysis.quality.distinct_rows import distinct
from dgu.analysis.quality.row_blocks import device_dtype, in_range, query_panels, reference_blocks, scores
from dgu.core.arrays import as_floats, checked_rows
from dgu.core.errors import require, require_whole
from dgu.core.exact_distances import Balls, below_overflow, rounding


def ball_counts(
    queries: Num[ArrayLike, "..."],
    centres: Num[ArrayLike, "..."],
    radii: Num[ArrayLike, "..."],
    *,
    block_size: int = 1024,
) -> Int[np.ndarray, " n"]:
    """How many of the balls ``|q - centre_i| <= radii_i`` hold each query; rows at the edge are inside.

    Exact for any data: the distance is that of ``k_nearest``, computed by differences in float64 and rounded to the
    dtype of the radii, wherever a product does not prove on which side of the edge the query lies. So a row at the
    distance that ``k_nearest`` gave as the radius is inside. Time: a matrix product of queries and centres, with what
    ``k_nearest`` takes beyond it for the pairs that remain.

    Raises:
        InputError: as ``k_nearest``, or radii that are negative or not one for each centre.
    """
    queries, centres = checked_rows(queries=queries, centres=centres)
    radii = as_floats("radii", radii)
    require(radii.shape == (len(centres),), "radii.shape", radii.shape, f"({len(centres)},), one for each centre")
    require(bool((radii >= 0).all()), "radii", "negative or NaN", "0 or more")
    require_whole("block_size", block_size)
    (queries, centres), shift = below_overflow(queries, centres)
    asked = distinct(queries)
    return _ball_counts(asked.rows, centres, radii, shift, int(block_size))[asked.number]


def _ball_counts(
    exact: np.ndarray, exact_centres: np.ndarray, radii: np.ndarray, shift: int, block_size: int
) -> np.ndarray:
    """``ball_counts`` of rows in units of ``2**shift``, that are not near the largest number."""
    (queries, centres), exponent = in_range(exact, exact_centres)
    balls = Balls(exact_centres, centres, radii, shift, exponent)
    counts = np.zeros(len(queries), np.int32)
    dtype = device_dtype(queries, centres)
    relative, absolute = rounding(dtype, queries.shape[1])
    for rows, blocks in query_panels(queries, balls.middle, dtype, block_size):
        size = blocks[0].shape[0]
        held = [jnp.zeros(size, jnp.int32) for _ in blocks]
        for start, block, norms in reference_blocks(centres, balls.middle, dtype, block_size):
            squares, edges = np.zeros((2, len(block)), dtype)
            with np.errstate(over="ignore"):  # Infinite ones leave all to the differences.
                squares[: len(radii) - start] = balls.squares[start : start + len(block)]
                edges[: len(radii) - start] = balls.edges[start : start + len(block)] + absolute
            for number, panel in enumerate(blocks):
                held[number], unsure = _count_balls(held[number], panel, block, norms, squares, edges, relative)
                first = rows.start + number * size
                pairs = np.asarray(unsure)[: len(centres) - start, : rows.stop - first].T
                if pairs.any():
                    here = slice(first, first + size)
                    counts[here] += balls.count(exact[here], queries[here], start, pairs).astype(np.int32)
        counts[rows] += np.concatenate([np.asarray(one) for one in held])[: rows.stop - rows.start]
    return counts


@partial(jax.jit, donate_argnums=0)
def _count_balls(
    held: Int[Array, " n"],
    queries: Float[Array, "n d"],
    block: Float[Array, "m d"],
    norms: Float[Array, " m"],
    squared_radii: Float[ArrayLike, " m"],
    edges: Float[ArrayLike, " m"],
    relative: Float[ArrayLike, ""],
) -> tuple[Int[Array, " n"], Bool[Array, "m n"]]:
    """The counts with those of a block whose balls certainly hold a query, and the pairs that rounding leaves open."""
    squares = jnp.sum(jnp.square(queries), axis=1)
    beyond = scores(queries, block, norms - squared_radii) + squares[None]
    # Of padding, whose norms are infinite, no pair is open.
    slack = edges + relative * jnp.where(jnp.isfinite(norms), norms + squared_radii, 0)
    slack = slack[:, None] + relative * squares[None]
    return held + jnp.sum(beyond < -slack, axis=0, dtype=jnp.int32), jnp.abs(beyond) <= slack
