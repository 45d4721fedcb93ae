"""The bound on the rounding of products holds, and is not far too large; differences do not depend on their place."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dgu.core.errors import InputError
from dgu.core.exact_distances import differences, rounding, squared_bounds


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 7, 500, 5000])
def test_products_are_within_their_bound(dtype, d):
    """Sums of one sign, added one after the other, round the most."""
    rng = np.random.default_rng(d)
    relative, absolute = rounding(np.dtype(dtype), d)
    for low in (-1.0, 0.9):
        a, b = rng.uniform(low, 1, (2, 40, d)).astype(dtype)
        square, other, product = (np.cumsum(x * y, axis=1)[:, -1] for x, y in ((a, a), (b, b), (a, b)))
        wide = np.longdouble if dtype == np.float64 else np.float64
        error = np.abs(square - 2 * product + other - np.square(a.astype(wide) - b).sum(axis=1))
        slack = relative * (square.astype(wide) + other) + absolute
        assert (error <= slack).all()
    assert relative < 4 * (d + 20) * np.finfo(dtype).eps


@pytest.mark.parametrize("scale", [1.0, 1e-160])
def test_bounds_enclose_the_distances(scale):
    rng = np.random.default_rng(0)
    a, b = (scale * (rng.normal(size=(n, 6)) + 1e7 * rng.integers(0, 2, (n, 1))) for n in (30, 50))
    b[:9] = a[:9]
    lower, upper = squared_bounds(a, b, b.mean(axis=0))
    squared = cdist(a, b) ** 2
    assert (lower <= squared).all() and (squared <= upper).all()


def test_differences_depend_on_the_pair_alone(monkeypatch):
    """Equal bits whichever side a row is on and whatever stands beside it; ties of two-valued columns stay ties."""
    rng = np.random.default_rng(1)
    rows, others = (rng.normal(size=(n, 37)).astype(np.float32) for n in (25, 18))
    table = differences(rows, np.arange(25), others)
    np.testing.assert_array_equal(table, differences(others, np.arange(18), rows).T)
    np.testing.assert_array_equal(table[[3, 11]], differences(rows, np.array([3, 11]), others))
    np.testing.assert_array_equal(table[:, 4:5], differences(rows, np.arange(25), others[4:5]))
    bits = rng.permuted(np.tile(np.arange(37) < 15, (25, 1)), axis=1) * 0.1
    assert len(np.unique(differences(bits, np.arange(25), np.zeros((1, 37))))) == 1


def test_rows_too_wide_for_the_bound_are_refused():
    with pytest.raises(InputError, match="width of the rows = 2000000: must be at most 1677705"):
        rounding(np.dtype(np.float32), 2_000_000)
