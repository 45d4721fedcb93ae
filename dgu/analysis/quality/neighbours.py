"""Exact nearest neighbours in blocks: memory stays at a few blocks, whatever the number of rows.

A tile of scores ``|r|^2 - 2 q . r`` comes from one matrix product. On CPUs an argmin over the tile takes longer than
the product at small d, so only the minima of *groups* of 16 reference rows are kept, which vectorise. The k nearest
rows lie in the k groups of the smallest minima, and rounding of the product is bounded (``dgu.core.exact_distances``):
the distances to the rows of every group that may hold one of them are computed anew, by differences. Where more groups
may than were kept (rows of many equal distances, clusters far apart) the query goes to a second pass, which leaves out
no row
unproven: products in float64, and differences wherever these do not settle it. Nor do products ever decide whether a
row is inside a ball.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Num

from dgu.analysis.quality.distinct_rows import distinct, spread_out
from dgu.core.arrays import as_floats, checked_rows
from dgu.core.errors import require, require_whole
from dgu.core.exact_distances import (
    DIFFERENCE_ERROR,
    Balls,
    below_overflow,
    differences,
    mean_row,
    rounding,
    scaled,
    squared_bounds,
)

_HIGHEST = jax.lax.Precision.HIGHEST
#: Reference rows in a group.
_GROUP = 16
#: Groups kept beyond the k wanted, against rounding of the product.
_SPARE = 2
#: Bytes of query rows held on the device at a time.
_PANEL_BYTES = 2**27
#: Distances in a table on the host.
_TABLE = 2**22
#: Sizes of numbers are kept within 2 to this power.
_RANGE = 40


def k_nearest(
    queries: Num[ArrayLike, "..."],
    reference: Num[ArrayLike, "..."],
    k: int = 1,
    *,
    own: bool = False,
    block_size: int = 1024,
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Euclidean distances of each query to its k nearest reference rows, rising, and the numbers of those rows.

    Exact for any data: distances are computed by differences in float64 and rounded to the dtype of the rows, and no
    row is left out without a proof that it is farther. Equal rows are searched once. Time: a matrix product of queries
    and reference; some ten times that where it proves nothing (rows at many equal distances, or norms about the mean of
    the reference that are 1,000 and more times the distances in float32), and ``n m d`` differences in float64 at the
    worst, where products in float64 prove nothing either.

    Args:
        queries: ``(n, d)``.
        reference: ``(m, d)``.
        k: neighbours, at most the number of rows there are to find.
        own: the queries are the reference's rows, in order; none is its own neighbour (its exact copies are).
        block_size: rows of a block of queries and of reference rows.

    Returns:
        Distances and row numbers; of rows at equal distance (before it is rounded) the lower number comes first.

    Raises:
        InputError: no rows, rows of different width or not finite, ``k`` or ``block_size`` out of range, or ``own``
            with different numbers of rows.
    """
    queries, reference = checked_rows(queries=queries, reference=reference)
    distances, numbers = nearest_rows(queries, reference, k, own=own, block_size=block_size)
    with np.errstate(over="ignore"):  # A distance above the largest float32 is infinite there.
        return distances.astype(np.result_type(queries, reference, np.float32)), numbers


def nearest_rows(
    queries: Float[np.ndarray, "n d"],
    reference: Float[np.ndarray, "m d"],
    k: int = 1,
    *,
    own: bool = False,
    block_size: int = 1024,
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """``k_nearest`` of checked rows with the distances in float64, not rounded: what balls and their edges need.

    Equal queries are asked once, and equal reference rows are looked at once.
    """
    require_whole("block_size", block_size)
    require(not own or len(queries) == len(reference), "own", own, "False unless queries are the reference's rows")
    require_whole("k", k, 1, len(reference) - own)  # The number of other rows.
    k, block_size = int(k), int(block_size)
    (queries, reference), shift = below_overflow(queries, reference)
    asked = distinct(queries)
    there = asked if own else distinct(reference)
    if there.repeated or (asked.repeated and not own):
        most = min(k + own, len(there.rows))
        distances, numbers = _nearest(asked.rows, there.rows, most, False, block_size)
        distances, numbers = spread_out(distances, numbers, asked, there, k, own)
    else:
        distances, numbers = _nearest(queries, reference, k, own, block_size)
    with np.errstate(over="ignore"):  # A distance above the largest float64 is infinite.
        return np.ldexp(distances, shift), numbers


def _nearest(
    rows_of_queries: np.ndarray, rows_of_reference: np.ndarray, k: int, own: bool, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """``nearest_rows`` of rows that are not near the largest number: products are of rows in range, differences of the
    rows.
    """
    exact = rows_of_queries, rows_of_reference
    (queries, reference), exponent = _in_range(*exact)
    centre, dtype = mean_row(reference), _device_dtype(queries, reference)
    groups = min(k + _SPARE, -(-len(reference) // _GROUP))
    minima = np.empty((len(queries), groups), dtype)
    places = np.empty((len(queries), groups), np.int32)
    for rows, blocks in _panels(queries, centre, dtype, block_size):
        best = [
            (jnp.full((groups, block.shape[0]), jnp.inf, block.dtype), jnp.zeros((groups, block.shape[0]), jnp.int32))
            for block in blocks
        ]
        size = blocks[0].shape[0]
        for start, block, norms in _reference_blocks(reference, centre, dtype, block_size):
            for number, panel in enumerate(blocks):
                offset = start - rows.start - number * size if own else _FAR
                best[number] = _merge_groups(best[number], panel, block, norms, jnp.int32(start), jnp.int32(offset))
            jax.block_until_ready(best)  # Else the blocks of all steps to come would be held at once.
        minima[rows] = np.concatenate([np.asarray(one[0]).T for one in best])[: rows.stop - rows.start]
        places[rows] = np.concatenate([np.asarray(one[1]).T for one in best])[: rows.stop - rows.start]
    distances, numbers, proven = _refine(exact, queries, minima, places, centre, k, own, exponent)
    _search(exact, queries, reference, np.flatnonzero(~proven), centre, own, distances, numbers)
    return distances, numbers


def ball_counts(
    queries: Num[ArrayLike, "..."],
    centres: Num[ArrayLike, "..."],
    radii: Num[ArrayLike, "..."],
    *,
    block_size: int = 1024,
) -> Int[np.ndarray, "n"]:
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
    (queries, centres), exponent = _in_range(exact, exact_centres)
    balls = Balls(exact_centres, centres, radii, shift, exponent)
    counts = np.zeros(len(queries), np.int32)
    dtype = _device_dtype(queries, centres)
    relative, absolute = rounding(dtype, queries.shape[1])
    for rows, blocks in _panels(queries, balls.middle, dtype, block_size):
        size = blocks[0].shape[0]
        held = [jnp.zeros(size, jnp.int32) for _ in blocks]
        for start, block, norms in _reference_blocks(centres, balls.middle, dtype, block_size):
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


#: An offset between the numbers of queries and of reference rows at which no two are the same row.
_FAR = np.iinfo(np.int32).min // 2


def _in_range(queries: np.ndarray, reference: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], int]:
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


def _device_dtype(queries: np.ndarray, reference: np.ndarray) -> np.dtype:
    return jax.dtypes.canonicalize_dtype(np.result_type(queries, reference, np.float32))


def _size(rows: int, block_size: int) -> int:
    """Rows of a block: whole groups, no more than there are rows."""
    return -(-min(block_size, rows) // _GROUP) * _GROUP


def _panels(
    queries: np.ndarray, centre: np.ndarray, dtype: np.dtype, block_size: int
) -> Iterator[tuple[slice, list[Array]]]:
    """Query rows in panels that fit the device: their place, and their blocks, centred and padded with zeros."""
    size = _size(len(queries), block_size)
    per_panel = max(1, _PANEL_BYTES // (size * queries.shape[1] * dtype.itemsize)) * size
    for first in range(0, len(queries), per_panel):
        last = min(first + per_panel, len(queries))
        yield (
            slice(first, last),
            [
                _block(queries, start, min(start + size, last), size, centre, dtype)
                for start in range(first, last, size)
            ],
        )


def _reference_blocks(
    rows: np.ndarray, centre: np.ndarray, dtype: np.dtype, block_size: int
) -> Iterator[tuple[int, Array, Array]]:
    """First row, centred rows and squared norms of each block; the norms of padding are infinite."""
    size = _size(len(rows), block_size)
    for start in range(0, len(rows), size):
        block = _block(rows, start, min(start + size, len(rows)), size, centre, dtype)
        yield start, block, _norms(block, np.int32(len(rows) - start))


def _block(rows: np.ndarray, start: int, stop: int, size: int, centre: np.ndarray, dtype: np.dtype) -> Array:
    block = np.zeros((size, rows.shape[1]), dtype)
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
    squared_radii: Float[ArrayLike, "m"],
    edges: Float[ArrayLike, "m"],
    relative: Float[ArrayLike, ""],
) -> tuple[Int[Array, "n"], Bool[Array, "m n"]]:
    """The counts with those of a block whose balls certainly hold a query, and the pairs that rounding leaves open."""
    squares = jnp.sum(jnp.square(queries), axis=1)
    beyond = _scores(queries, block, norms - squared_radii) + squares[None]
    # Of padding, whose norms are infinite, no pair is open.
    slack = edges + relative * jnp.where(jnp.isfinite(norms), norms + squared_radii, 0)
    slack = slack[:, None] + relative * squares[None]
    return held + jnp.sum(beyond < -slack, axis=0, dtype=jnp.int32), jnp.abs(beyond) <= slack


def _refine(
    exact: tuple[np.ndarray, np.ndarray],
    queries: np.ndarray,
    minima: np.ndarray,
    places: np.ndarray,
    centre: np.ndarray,
    k: int,
    own: bool,
    exponent: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k nearest rows of the groups found, and for which queries it is proven that no other group holds a nearer
    one.

    ``minima`` and ``queries`` are in units of ``2**exponent``, the rows ``exact`` and the distances in units of 1.
    """
    rows_of_queries, reference = exact
    n, groups = minima.shape
    distances, numbers, proven = np.empty((n, k)), np.empty((n, k), np.int32), np.empty(n, bool)
    relative, absolute = rounding(minima.dtype, queries.shape[1])
    step = max(1, _TABLE // max(groups * _GROUP, queries.shape[1]))
    for first in range(0, n, step):
        rows = slice(first, min(first + step, n))
        lowest = minima[rows].astype(np.float64)
        norms = np.square(np.subtract(queries[rows], centre, dtype=np.float64)).sum(axis=1)
        # |r|^2 is at most 2 |q|^2 + 2 |q - r|^2, so the k-th distance is at most this, by the k-th score ...
        far = (lowest[:, min(k, groups) - 1] + (1 + 3 * relative) * norms + absolute) / (1 - 2 * relative)
        # ... and rows at that distance or nearer have scores up to the limit.
        limit = _limit(far, norms, relative, absolute)
        wanted: Bool[np.ndarray, "n groups"] = np.isfinite(lowest) & (lowest <= limit[:, None])
        names = places[rows, :, None] * _GROUP + np.arange(_GROUP, dtype=np.int32)
        table = np.full(names.shape, np.inf)
        for place, which, group in _by_place(places[rows], wanted):
            there = reference[place * _GROUP : (place + 1) * _GROUP]
            table[which, group, : len(there)] = differences(rows_of_queries, first + which, there)
        if own:
            table[names == np.arange(rows.start, rows.stop)[:, None, None]] = np.inf
        flat_names, flat = names.reshape(len(lowest), -1), table.reshape(len(lowest), -1)
        order = np.lexsort((flat_names, flat), axis=1)[:, :k]
        distances[rows] = np.take_along_axis(flat, order, axis=1)
        numbers[rows] = np.take_along_axis(flat_names, order, axis=1)
        last = np.square(np.ldexp(distances[rows, -1], -exponent))
        proven[rows] = (groups * _GROUP >= len(reference)) | (lowest[:, -1] > _limit(last, norms, relative, absolute))
    return distances, numbers, proven


def _limit(squared: np.ndarray, norms: np.ndarray, relative: float, absolute: float) -> np.ndarray:
    """The largest score of a row at this squared distance of a query of this squared norm, or nearer."""
    return squared * (1 + DIFFERENCE_ERROR) - norms + relative * (3 * norms + 2 * squared) + absolute


def _by_place(places: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each place that is wanted, with the rows and columns of ``places`` that want it."""
    which, group = np.nonzero(wanted)
    place = places[which, group]
    order = np.argsort(place, kind="stable")
    edges = np.flatnonzero(np.diff(place[order])) + 1
    for part in np.split(order, edges):
        if part.size:
            yield int(place[part[0]]), which[part], group[part]


def _search(
    exact: tuple[np.ndarray, np.ndarray],
    queries: np.ndarray,
    reference: np.ndarray,
    which: np.ndarray,
    centre: np.ndarray,
    own: bool,
    distances: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Put into ``distances`` and ``numbers`` those of these queries, from all reference rows."""
    k = distances.shape[1]
    step, width = max(1, _TABLE // len(reference)), max(1, _TABLE // queries.shape[1])
    for start in range(0, len(which), step):
        chosen = which[start : start + step]
        lower, upper = np.empty((2, len(chosen), len(reference)))
        for first in range(0, len(reference), width):
            of = slice(first, first + width)
            lower[:, of], upper[:, of] = squared_bounds(queries[chosen], reference[of], centre)
        if own:
            lower[np.arange(len(chosen)), chosen] = upper[np.arange(len(chosen)), chosen] = np.inf
        limit = np.partition(upper, k - 1, axis=1)[:, k - 1] * (1 + DIFFERENCE_ERROR)
        for number, near in zip(chosen, lower <= limit[:, None]):
            candidates = np.flatnonzero(near)
            found = differences(exact[1], candidates, exact[0][number : number + 1])[:, 0]
            order = np.argsort(found, kind="stable")[:k]
            distances[number], numbers[number] = found[order], candidates[order]
