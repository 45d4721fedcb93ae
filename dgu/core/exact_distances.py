"""Distances of pairs of rows: by differences, which decide, and by products, with a proven bound on their rounding.

``|q - r|^2 = |q|^2 - 2 q . r + |r|^2`` is one matrix product, but it rounds in proportion to the norms, which may be
much larger than the distance. So products only tell which pairs are certainly near or certainly far; every other pair
is decided by its differences. All distances that are compared with one another come from ``differences``: in float64,
the squares summed in the order of the columns, so that equal distances come out equal whichever pair they belong to.
"""

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from dgu.core.errors import require

#: Numbers converted to float64 at a time.
_NUMBERS = 2**22
#: Distances from here on have no squares that are lost below the smallest float64.
_LEAST = 2.0**-480
#: Rows above 2 to the first power are divided by 2 to the second.
_OVERFLOW, _SHIFT = 980, 44
#: Pairs whose products take as long as the differences of one.
_PAIRS = 64
#: Distances by differences are right to within this fraction, and squares of them.
DIFFERENCE_ERROR = 1e-9


def differences(
    rows: Float[np.ndarray, "n d"], numbers: Int[np.ndarray, " p"], others: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "p m"]:
    """Euclidean distances, in float64 by differences, of the rows of these numbers to all of the others."""
    single = rows.dtype.itemsize <= 4 and others.dtype.itemsize <= 4  # Its squares never leave the range of float64.
    others = others.astype(np.float64, copy=False)
    step = max(1, _NUMBERS // rows.shape[1])
    found = np.empty((len(numbers), len(others)))
    for start in range(0, len(numbers), step):
        chosen = rows[numbers[start : start + step]].astype(np.float64, copy=False)
        found[start : start + step] = scipy.spatial.distance.cdist(chosen, others)
        if not single:
            _mend(found[start : start + step], chosen, others)
    return found


def _mend(found: np.ndarray, rows: np.ndarray, others: np.ndarray) -> None:
    """Put right the distances whose squares leave the range of float64, from differences brought near 1."""
    first, second = np.nonzero((found < _LEAST) | np.isinf(found))
    step = max(1, _NUMBERS // rows.shape[1])
    for start in range(0, len(first), step):
        pair = first[start : start + step], second[start : start + step]
        gaps = (rows[pair[0]] - others[pair[1]]).T.copy()  # Columns first: they are added one after the other.
        exponent = np.frexp(np.abs(gaps).max(axis=0))[1]
        found[pair] = np.ldexp(np.sqrt(np.square(np.ldexp(gaps, -exponent[None])).sum(axis=0)), exponent)


def below_overflow(*sides: Float[np.ndarray, "..."]) -> tuple[tuple[np.ndarray, ...], int]:
    """The sets, and the power of two that they were divided by where distances might pass the largest float64."""
    largest = max(float(np.abs(end)) for side in sides for end in (side.min(), side.max()))
    if largest < 2.0**_OVERFLOW:
        return sides, 0
    return tuple(scaled(side, -_SHIFT) for side in sides), _SHIFT


def scaled(rows: Float[np.ndarray, "n d"], exponent: int) -> Float[np.ndarray, "n d"]:
    """``rows * 2**exponent`` in float64."""
    return np.ldexp(rows.astype(np.float64, copy=False), exponent)


def rounding(dtype: np.dtype, width: int) -> tuple[float, float]:
    """``(relative, absolute)``: products tell ``|q - r|^2`` to within ``relative (|q|^2 + |r|^2) + absolute``.

    With u the unit roundoff and ``g = (width + 16) u`` the relative part is ``2 g (1 + 3 g)``. Sums of ``width``
    products round by no more than ``width u / (1 - width u)`` of the sum of their sizes, in whatever order they are
    added (Higham, Accuracy and stability of numerical algorithms, section 3.1); for ``|q|^2``, ``|r|^2`` and ``2 q .
    r`` together that is twice ``|q|^2 + |r|^2``. The 16 covers the rounding of the centred rows themselves (4 u), of
    the additions that follow and of the bound (less than 12 u), the 3 g what is of second order for ``g`` up to 0.1.
    The absolute part is for squares that underflow.

    Raises:
        InputError: rows of so many columns that ``g`` is above 0.1: 1.7 million in float32.
    """
    info = np.finfo(dtype)
    u = float(info.eps) / 2
    require(width <= int(0.1 / u) - 16, "width of the rows", width, f"at most {int(0.1 / u) - 16}")
    g = (width + 16) * u
    return 2 * g * (1 + 3 * g), 16 * (width + 16) * float(info.tiny)


def squared_bounds(
    queries: Float[np.ndarray, "n d"], rows: Float[np.ndarray, "m d"], centre: Float[np.ndarray, " d"]
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Lower and upper bounds of all squared distances, from products of the centred rows in float64."""
    relative, absolute = rounding(np.dtype(np.float64), queries.shape[1])
    sides = [np.subtract(side, centre, dtype=np.float64) for side in (queries, rows)]
    square, other = (np.einsum("ij,ij->i", side, side) for side in sides)
    total = square[:, None] + other[None]
    slack = relative * total + absolute
    total -= 2 * (sides[0] @ sides[1].T)
    return total - slack, total + slack


def mean_row(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " d"]:
    """Their mean, in their own dtype: where the norms of the products are taken from."""
    return rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)


class Balls:
    """Balls about rows, and which of the pairs given lie in them: at the edge, the distance rounded as the radii are
    decides.

    Attributes:
        middle: mean of the centres.
        squares: of the radii.
        edges: how far from that a squared distance must lie for its true value to decide.
    """

    def __init__(
        self,
        exact: Float[np.ndarray, "m d"],
        centres: Float[np.ndarray, "m d"],
        radii: Float[np.ndarray, " m"],
        shift: int,
        exponent: int,
    ):
        """``radii`` are in units of 1, the centres ``exact`` in ``2**shift``, for differences, and ``centres`` the same
        in ``2**(shift + exponent)``, for products."""
        self._exact, self._centres, self._radii, self._shift = exact, centres, radii, shift
        self.middle = mean_row(centres)
        with np.errstate(over="ignore"):
            self.squares = np.square(np.ldexp(radii.astype(np.float64), -shift - exponent))
        self.edges = (4 * float(np.finfo(radii.dtype).eps) + DIFFERENCE_ERROR) * self.squares

    def count(
        self,
        exact: Float[np.ndarray, "n d"],
        queries: Float[np.ndarray, "n d"],
        first: int,
        unsure: Bool[np.ndarray, "n balls"],
    ) -> Int[np.ndarray, " n"]:
        """How many of the pairs that are ``unsure`` are inside, for each query; balls are numbered from ``first``.

        The queries are given twice, in the units of the centres: for differences and for products.
        """
        rows, balls = (np.flatnonzero(unsure.any(axis=axis)) for axis in (1, 0))
        counts = np.zeros(len(queries), np.int64)
        unsure, balls = unsure[np.ix_(rows, balls)], first + balls
        if np.count_nonzero(unsure) * _PAIRS > unsure.size:
            lower, upper = squared_bounds(queries[rows], self._centres[balls], self.middle)
            squares, edges = self.squares[balls], self.edges[balls]
            with np.errstate(invalid="ignore"):  # Infinite radii less infinite edges.
                inside = unsure & (upper < (squares - edges)[None])
            counts[rows] = inside.sum(axis=1)
            unsure = unsure & ~inside & (lower <= (squares + edges)[None])
        for row, of in zip(rows, unsure):
            near = balls[of]
            if near.size:
                found = differences(self._exact, near, exact[row : row + 1])[:, 0]
                with np.errstate(over="ignore"):
                    found = np.ldexp(found, self._shift).astype(self._radii.dtype)
                counts[row] += np.count_nonzero(found <= self._radii[near])
        return counts
