"""Equal rows are searched once: the samples of a collapsed model, all the same, would tie with one another n^2
times.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

#: Entries of a table at a time.
_TABLE = 2**22


class Distinct(NamedTuple):
    """The different rows of a set, numbered in the order of their first occurrence.

    Attributes:
        rows: the first of each, ``(u, d)``; the set itself where all are different.
        number: for each row of the set, which of them it is, ``(n,)``.
    """

    rows: np.ndarray
    number: np.ndarray

    @property
    def repeated(self) -> bool:
        """Whether any row occurs twice."""
        return len(self.rows) < len(self.number)

    def members(self, most: int) -> Int[np.ndarray, "u most"]:
        """The lowest row numbers of each different row; n where there are fewer."""
        order = np.argsort(self.number, kind="stable")
        counts = np.bincount(self.number, minlength=len(self.rows))
        place = np.arange(most)[None] < counts[:, None]
        table = np.full(place.shape, len(self.number), np.int64)
        starts = np.cumsum(counts) - counts
        table[place] = order[(starts[:, None] + np.arange(most)[None])[place]]
        return table


def distinct(rows: Float[np.ndarray, "n d"]) -> Distinct:
    """The different rows of a set. The two zeros count as equal."""
    seen: dict[bytes, int] = {}
    number = np.array([seen.setdefault((row + 0).tobytes(), len(seen)) for row in rows])
    if len(seen) == len(rows):
        return Distinct(rows, number)
    return Distinct(rows[np.unique(number, return_index=True)[1]], number)


def spread_out(
    distances: Float[np.ndarray, "u g"],
    numbers: Int[np.ndarray, "u g"],
    queries: Distinct,
    reference: Distinct,
    k: int,
    own: bool,
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """The k nearest rows of each query, from the nearest different reference rows of each different query.

    For each query ``k + own`` different rows must be given, or all of them; of different rows at equal distance the one
    that occurs first comes first. Then no row that was left out comes before the ``k + own`` nearest of those given.
    """
    wanted = k + own
    members = reference.members(wanted)
    near, which = np.empty((len(distances), wanted)), np.empty((len(distances), wanted), np.int32)
    step = max(1, _TABLE // (wanted * distances.shape[1]))
    for start in range(0, len(distances), step):
        of = slice(start, start + step)
        names = members[numbers[of]].reshape(len(distances[of]), -1)
        table = np.repeat(distances[of], wanted, axis=1)
        table[names == len(reference.number)] = np.inf
        order = np.lexsort((names, table), axis=1)[:, :wanted]
        near[of], which[of] = np.take_along_axis(table, order, axis=1), np.take_along_axis(names, order, axis=1)
    near, which = near[queries.number], which[queries.number]
    if own:  # Each without itself; without the last where it is not among them.
        others = which != np.arange(len(which))[:, None]
        others[others.all(axis=1), -1] = False
        near, which = near[others].reshape(-1, k), which[others].reshape(-1, k)
    return near, which
