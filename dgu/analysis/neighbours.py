"""Exact nearest neighbours in blocks: memory stays at a few blocks, whatever the number of rows.

A tile of scores ``|r|^2 - 2 q . r`` comes from one matrix product. On CPUs an argmin over the tile takes longer than the
product at small d, so only the minima of *groups* of 16 reference rows are kept, which vectorise. The k nearest rows lie
in the k groups of the smallest minima; the distances to the rows of those groups are then computed anew, as
``|q - r|``. A further group whose minimum is within rounding of the k-th is looked at too, so that rounding of the
product never decides between rows: copies are found at distance 0 exactly.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Num

from dgu.arrays import as_floats, checked_rows
from dgu.errors import require

_HIGHEST = jax.lax.Precision.HIGHEST
#: Reference rows in a group.
_GROUP = 16
#: Groups kept beyond the k wanted, against rounding of the product.
_SPARE = 2
#: Bytes of query rows held on the device at a time.
_PANEL_BYTES = 2**27
#: Differences ``q - r`` formed at a time when distances are computed anew.
_DIFFERENCES = 2**22


def k_nearest(
    queries: Num[ArrayLike, "..."],
    reference: Num[ArrayLike, "..."],
    k: int = 1,
    *,
    own: bool = False,
    block_size: int = 1024,
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Euclidean distances of each query to its k nearest reference rows, rising, and the numbers of those rows.

    Args:
        queries: ``(n, d)``.
        reference: ``(m, d)``.
        k: neighbours, at most the number of rows there are to find.
        own: the queries are the reference's rows, in order; none is its own neighbour (its exact copies are).
        block_size: rows of a block of queries and of reference rows.

    Returns:
        Distances and row numbers; of rows at equal distance the lower number comes first.

    Raises:
        InputError: no rows, rows of different width or not finite, ``k`` or ``block_size`` out of range, or ``own``
            with different numbers of rows.
    """
    queries, reference = checked_rows(queries=queries, reference=reference)
    require(block_size >= 1, "block_size", block_size, "1 or more")
    require(not own or len(queries) == len(reference), "own", own, "False unless queries are the reference's rows")
    require(1 <= k <= len(reference) - own, "k", k, f"1 to {len(reference) - own}, the number of other rows")
    groups = min(k + _SPARE, -(-len(reference) // _GROUP))
    minima = np.empty((len(queries), groups), np.result_type(queries, np.float32))
    places = np.empty((len(queries), groups), np.int32)
    centre = np.mean(reference, axis=0)
    for rows, blocks in _panels(queries, centre, block_size):
        best = [
            (jnp.full((groups, block.shape[0]), jnp.inf, block.dtype), jnp.zeros((groups, block.shape[0]), jnp.int32))
            for block in blocks
        ]
        size = blocks[0].shape[0]
        for start, block, norms in _reference_blocks(reference, centre, block_size):
            for number, panel in enumerate(blocks):
                offset = start - rows.start - number * size if own else _FAR
                best[number] = _merge_groups(best[number], panel, block, norms, jnp.int32(start), jnp.int32(offset))
            jax.block_until_ready(best)  # Else the blocks of all steps to come would be held at once.
        minima[rows] = np.concatenate([np.asarray(one[0]).T for one in best])[: rows.stop - rows.start]
        places[rows] = np.concatenate([np.asarray(one[1]).T for one in best])[: rows.stop - rows.start]
    return _refine(queries, reference, minima, places, centre, k, own)


def ball_counts(
    queries: Num[ArrayLike, "..."],
    centres: Num[ArrayLike, "..."],
    radii: Num[ArrayLike, "..."],
    *,
    block_size: int = 1024,
) -> Int[np.ndarray, "n"]:
    """How many of the balls ``|q - centre_i| <= radii_i`` hold each query, by products (edges to their rounding).

    Raises:
        InputError: as ``k_nearest``, or radii that are negative or not one for each centre.
    """
    queries, centres = checked_rows(queries=queries, centres=centres)
    radii = as_floats("radii", radii)
    require(radii.shape == (len(centres),), "radii.shape", radii.shape, f"({len(centres)},), one for each centre")
    require(bool((radii >= 0).all()), "radii", "negative or NaN", "0 or more")
    require(block_size >= 1, "block_size", block_size, "1 or more")
    counts = np.empty(len(queries), np.int32)
    middle = np.mean(centres, axis=0)
    for rows, blocks in _panels(queries, middle, block_size):
        held = [jnp.zeros(block.shape[0], jnp.int32) for block in blocks]
        for start, block, norms in _reference_blocks(centres, middle, block_size):
            inside = np.zeros(len(block), norms.dtype)
            inside[: len(radii) - start] = np.square(radii[start : start + len(block)])
            for number, panel in enumerate(blocks):
                held[number] = _count_balls(held[number], panel, block, norms, jnp.asarray(inside))
            jax.block_until_ready(held)
        counts[rows] = np.concatenate([np.asarray(one) for one in held])[: rows.stop - rows.start]
    return counts


#: An offset between the numbers of queries and of reference rows at which no two are the same row.
_FAR = np.iinfo(np.int32).min // 2


def _size(rows: int, block_size: int) -> int:
    """Rows of a block: whole groups, no more than there are rows."""
    return -(-min(block_size, rows) // _GROUP) * _GROUP


def _panels(queries: np.ndarray, centre: np.ndarray, block_size: int) -> Iterator[tuple[slice, list[Array]]]:
    """Query rows in panels that fit the device: their place, and their blocks, centred and padded with zeros."""
    size = _size(len(queries), block_size)
    per_panel = max(1, _PANEL_BYTES // (size * queries.shape[1] * queries.itemsize)) * size
    for first in range(0, len(queries), per_panel):
        last = min(first + per_panel, len(queries))
        yield (
            slice(first, last),
            [_block(queries, start, min(start + size, last), size, centre) for start in range(first, last, size)],
        )


def _reference_blocks(rows: np.ndarray, centre: np.ndarray, block_size: int) -> Iterator[tuple[int, Array, Array]]:
    """First row, centred rows and squared norms of each block; the norms of padding are infinite."""
    size = _size(len(rows), block_size)
    for start in range(0, len(rows), size):
        block = _block(rows, start, min(start + size, len(rows)), size, centre)
        yield start, block, _norms(block, np.int32(len(rows) - start))


def _block(rows: np.ndarray, start: int, stop: int, size: int, centre: np.ndarray) -> Array:
    block = np.zeros((size, rows.shape[1]), np.result_type(rows, np.float32))
    np.subtract(rows[start:stop], centre, out=block[: stop - start], casting="same_kind")
    return jnp.asarray(block)


@jax.jit
def _norms(block: Float[Array, "m d"], real: Int[ArrayLike, ""]) -> Float[Array, "m"]:
    squares = jnp.sum(jnp.square(block), axis=1)
    return jnp.where(jnp.arange(len(block)) < real, squares, jnp.full_like(squares, jnp.inf))


def _scores(queries: Float[Array, "n d"], block: Float[Array, "m d"], norms: Float[Array, "m"]) -> Float[Array, "m n"]:
    """``|r|^2 - 2 q . r``, reference rows first: reductions over them then run along the vector lanes."""
    return norms[:, None] - 2 * jnp.matmul(block, queries.T, precision=_HIGHEST)


@partial(jax.jit, donate_argnums=0)
def _merge_groups(
    best: tuple[Float[Array, "g n"], Int[Array, "g n"]],
    queries: Float[Array, "n d"],
    block: Float[Array, "m d"],
    norms: Float[Array, "m"],
    start: Int[Array, ""],
    offset: Int[Array, ""],
) -> tuple[Float[Array, "g n"], Int[Array, "g n"]]:
    """The groups of smallest minima, rising, of those so far and those of a block that begins at row ``start``."""
    scores = _scores(queries, block, norms)
    number = jnp.arange(len(block), dtype=jnp.int32)[:, None]
    same = number + offset == jnp.arange(len(queries), dtype=jnp.int32)[None]
    scores = jnp.where(same, jnp.inf, scores).reshape(-1, _GROUP, len(queries))
    lowest = jax.lax.optimization_barrier(scores.min(axis=1))  # read again and again below, computed once
    number = jnp.arange(len(lowest), dtype=jnp.int32)[:, None]
    values, places = [best[0]], [best[1]]
    for _ in range(len(best[0])):  # two passes each: an argmin does not vectorise
        value = lowest.min(axis=0, keepdims=True)
        place = jnp.where(lowest == value, number, np.int32(len(lowest) - 1)).min(axis=0, keepdims=True)
        values.append(value)
        places.append(start // _GROUP + place)
        lowest = jnp.where(number == place, jnp.inf, lowest)
    together = jnp.concatenate(values)
    order = jnp.argsort(together, axis=0)[: len(best[0])]
    return jnp.take_along_axis(together, order, axis=0), jnp.take_along_axis(jnp.concatenate(places), order, axis=0)


@partial(jax.jit, donate_argnums=0)
def _count_balls(
    held: Int[Array, "n"],
    queries: Float[Array, "n d"],
    block: Float[Array, "m d"],
    norms: Float[Array, "m"],
    squared_radii: Float[Array, "m"],
) -> Int[Array, "n"]:
    scores = _scores(queries, block, norms - squared_radii) + jnp.sum(jnp.square(queries), axis=1)[None]
    return held + jnp.sum(scores <= 0, axis=0, dtype=jnp.int32)


def _refine(
    queries: np.ndarray,
    reference: np.ndarray,
    minima: np.ndarray,
    places: np.ndarray,
    centre: np.ndarray,
    k: int,
    own: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of the groups found, by differences."""
    n, groups = minima.shape
    distances = np.empty((n, k), np.result_type(queries, np.float32))
    numbers = np.empty((n, k), np.int32)
    step = max(1, _DIFFERENCES // (groups * _GROUP * queries.shape[1]))
    for first in range(0, n, step):
        rows = slice(first, min(first + step, n))
        block = queries[rows]
        last = minima[rows, min(k, groups) - 1]
        # The product rounds by some eps of |q|^2 + |r|^2, which is at most 3 |q|^2 + 2 |q - r|^2.
        norms = np.square(block - centre).sum(axis=1)
        limit = last + 32 * np.finfo(minima.dtype).eps * (3 * norms + 2 * np.maximum(last + norms, 0))
        wanted: Bool[np.ndarray, "n groups"] = np.isfinite(minima[rows]) & (minima[rows] <= limit[:, None])
        which, group = np.nonzero(wanted)
        candidates = places[rows][which, group][:, None] * _GROUP + np.arange(_GROUP)
        there = candidates < len(reference)
        if own:
            there &= candidates != first + which[:, None]
        difference = reference[np.where(there, candidates, 0)] - block[which][:, None]
        squares = np.where(there, np.einsum("ngd,ngd->ng", difference, difference), np.inf)
        table = np.full((len(block), groups, _GROUP), np.inf, squares.dtype)
        names = np.full(table.shape, len(reference), np.int32)
        table[which, group], names[which, group] = squares, candidates
        order = np.lexsort((names.reshape(len(block), -1), table.reshape(len(block), -1)), axis=1)[:, :k]
        distances[rows] = np.sqrt(np.take_along_axis(table.reshape(len(block), -1), order, axis=1))
        numbers[rows] = np.take_along_axis(names.reshape(len(block), -1), order, axis=1)
    return distances, numbers
