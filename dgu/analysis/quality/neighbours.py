"""Exact nearest neighbours in blocks: memory stays at a few blocks, whatever the number of rows.

A tile of scores ``|r|^2 - 2 q . r`` comes from one matrix product. On CPUs an argmin over the tile takes longer than
the product at small d, so only the minima of *groups* of 16 reference rows are kept, which vectorise. The k nearest
rows lie in the k groups of the smallest minima, and rounding of the product is bounded (``dgu.core.exact_distances``):
the distances to the rows of every group that may hold one of them are computed anew, by differences. Where more groups
may than were kept (rows of many equal distances, clusters far apart) the query goes to a second pass, which leaves out
no row unproven: products in float64, and differences wherever these do not settle it.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Integer, Num

from dgu.analysis.quality.distinct_rows import distinct, spread_out
from dgu.analysis.quality.row_blocks import GROUP, device_dtype, in_range, query_panels, reference_blocks, scores
from dgu.core.arrays import as_labels, checked_rows
from dgu.core.errors import require, require_whole
from dgu.core.exact_distances import (
    DIFFERENCE_ERROR,
    below_overflow,
    differences,
    mean_row,
    rounding,
    squared_bounds,
)

#: Groups kept beyond the k wanted, against rounding of the product.
_SPARE = 2
#: Distances in a table on the host.
_TABLE = 2**22
#: An offset between the numbers of queries and of reference rows at which no two are the same row.
_FAR = np.iinfo(np.int32).min // 2


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
        k: number of neighbours, at most the number of reference rows, less one with ``own``.
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


def nearest(
    queries: Num[ArrayLike, "n d"],
    reference: Num[ArrayLike, "m e"],
    block_size: int = 1024,
    *,
    own: Integer[ArrayLike, " n"] | None = None,
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Euclidean distance of each query to its nearest reference row, and that row's number: ``k_nearest`` for k = 1.

    Args:
        queries: ``(n, d)``.
        reference: ``(m, d)``.
        block_size: rows of a block of queries and of reference rows.
        own: for queries that are reference rows, the number of each; it is compared with the other rows, of which an
            exact copy is at distance 0.

    Raises:
        InputError: as ``k_nearest``, or numbers ``own`` that are not one for each query, each of a reference row.
    """
    if own is None:
        distances, rows = k_nearest(queries, reference, block_size=block_size)
        return distances[:, 0], rows[:, 0]
    numbers = as_labels("own", own, len(np.asarray(queries)))
    most = len(np.asarray(reference)) - 1
    require(bool((numbers <= most).all()), "own", "outside", f"0 to {most}")
    distances, rows = k_nearest(queries, reference, 2, block_size=block_size)
    # Of copies the lower number comes first, so that a row need not be its own first neighbour: then it has a copy.
    itself_first = rows[:, 0] == numbers
    return np.where(itself_first, distances[:, 1], distances[:, 0]), np.where(itself_first, rows[:, 1], rows[:, 0])


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
    (queries, reference), exponent = in_range(*exact)
    centre, dtype = mean_row(reference), device_dtype(queries, reference)
    groups = min(k + _SPARE, -(-len(reference) // GROUP))
    minima = np.empty((len(queries), groups), dtype)
    places = np.empty((len(queries), groups), np.int32)
    for rows, blocks in query_panels(queries, centre, dtype, block_size):
        best = [
            (np.full((groups, block.shape[0]), np.inf, block.dtype), np.zeros((groups, block.shape[0]), np.int32))
            for block in blocks
        ]
        size = blocks[0].shape[0]
        for start, block, norms in reference_blocks(reference, centre, dtype, block_size):
            for number, panel in enumerate(blocks):
                offset = start - rows.start - number * size if own else _FAR
                best[number] = _merge_groups(best[number], panel, block, norms, np.int32(start), np.int32(offset))
            jax.block_until_ready(best)  # Else the blocks of all steps to come would be held at once.
        minima[rows] = np.concatenate([np.asarray(one[0]).T for one in best])[: rows.stop - rows.start]
        places[rows] = np.concatenate([np.asarray(one[1]).T for one in best])[: rows.stop - rows.start]
    distances, numbers, proven = _refine(exact, queries, minima, places, centre, k, own, exponent)
    _search(exact, queries, reference, np.flatnonzero(~proven), centre, own, distances, numbers)
    return distances, numbers


@partial(jax.jit, donate_argnums=0)
def _merge_groups(
    best: tuple[Float[Array, "g n"], Int[Array, "g n"]],
    queries: Float[Array, "n d"],
    block: Float[Array, "m d"],
    norms: Float[Array, " m"],
    start: Int[Array, ""],
    offset: Int[Array, ""],
) -> tuple[Float[Array, "g n"], Int[Array, "g n"]]:
    """The groups of smallest minima, rising, of those so far and those of a block that begins at row ``start``."""
    tile = scores(queries, block, norms)
    number = jnp.arange(len(block), dtype=jnp.int32)[:, None]
    same = number + offset == jnp.arange(len(queries), dtype=jnp.int32)[None]
    tile = jnp.where(same, jnp.inf, tile).reshape(-1, GROUP, len(queries))
    lowest = jax.lax.optimization_barrier(tile.min(axis=1))  # read again and again below, computed once
    number = jnp.arange(len(lowest), dtype=jnp.int32)[:, None]
    values, places = [best[0]], [best[1]]
    for _ in range(len(best[0])):  # two passes each: an argmin does not vectorise
        value = lowest.min(axis=0, keepdims=True)
        place = jnp.where(lowest == value, number, np.int32(len(lowest) - 1)).min(axis=0, keepdims=True)
        values.append(value)
        places.append(start // GROUP + place)
        lowest = jnp.where(number == place, jnp.inf, lowest)
    together = jnp.concatenate(values)
    order = jnp.argsort(together, axis=0)[: len(best[0])]
    return jnp.take_along_axis(together, order, axis=0), jnp.take_along_axis(jnp.concatenate(places), order, axis=0)


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
    step = max(1, _TABLE // max(groups * GROUP, queries.shape[1]))
    for first in range(0, n, step):
        rows = slice(first, min(first + step, n))
        lowest = minima[rows].astype(np.float64)
        norms = np.square(np.subtract(queries[rows], centre, dtype=np.float64)).sum(axis=1)
        # |r|^2 is at most 2 |q|^2 + 2 |q - r|^2, so the k-th distance is at most this, by the k-th score ...
        far = (lowest[:, min(k, groups) - 1] + (1 + 3 * relative) * norms + absolute) / (1 - 2 * relative)
        # ... and rows at that distance or nearer have scores up to the limit.
        limit = _limit(far, norms, relative, absolute)
        wanted: Bool[np.ndarray, "n groups"] = np.isfinite(lowest) & (lowest <= limit[:, None])
        names = places[rows, :, None] * GROUP + np.arange(GROUP, dtype=np.int32)
        table = np.full(names.shape, np.inf)
        for place, which, group in _by_place(places[rows], wanted):
            there = reference[place * GROUP : (place + 1) * GROUP]
            table[which, group, : len(there)] = differences(rows_of_queries, first + which, there)
        if own:
            table[names == np.arange(rows.start, rows.stop)[:, None, None]] = np.inf
        flat_names, flat = names.reshape(len(lowest), -1), table.reshape(len(lowest), -1)
        order = np.lexsort((flat_names, flat), axis=1)[:, :k]
        distances[rows] = np.take_along_axis(flat, order, axis=1)
        numbers[rows] = np.take_along_axis(flat_names, order, axis=1)
        last = np.square(np.ldexp(distances[rows, -1], -exponent))
        proven[rows] = (groups * GROUP >= len(reference)) | (lowest[:, -1] > _limit(last, norms, relative, absolute))
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
