"""Nearest neighbours and balls against all pairs in float64: exactly, whatever the data and the blocks; copies;
ties.
"""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from dgu.analysis import density_coverage, precision_recall
from dgu.analysis.quality import neighbours, row_blocks
from dgu.analysis.quality.balls import ball_counts
from dgu.analysis.quality.neighbours import k_nearest, nearest
from dgu.core import exact_distances
from dgu.core.arrays import as_labels
from dgu.core.errors import InputError
from dgu.core.exact_distances import differences


def rows(seed, n, d=5, dtype=np.float32, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(n, d)) + shift).astype(dtype)


def all_pairs(queries, reference, k, own=False):
    table = np.linalg.norm(queries[:, None].astype(np.float64) - reference[None].astype(np.float64), axis=2)
    if own:
        np.fill_diagonal(table, np.inf)
    order = np.argsort(table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, axis=1), order


@pytest.mark.parametrize(("k", "block_size"), [(1, 64), (1, 1024), (5, 48), (40, 64)])
def test_equals_all_pairs(k, block_size):
    """Rows far from the origin: 50 +- 1 would cost the product half its digits uncentred."""
    queries, reference = rows(0, 150, shift=50.0), rows(1, 203, shift=50.0)
    distances, found = k_nearest(queries, reference, k, block_size=block_size)
    expected, order = all_pairs(queries, reference, k)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_allclose(distances, expected, rtol=2e-6)


@pytest.mark.parametrize("block_size", [48, 1024])
def test_own_rows_are_left_out_but_their_copies_are_not(block_size):
    reference = rows(2, 203)
    reference[[7, 190]] = reference[100]
    distances, found = k_nearest(reference, reference, 3, own=True, block_size=block_size)
    expected, order = all_pairs(reference, reference, 3, own=True)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_allclose(distances, expected, rtol=2e-6)
    assert found[100, 0] == 7 and found[7, 0] == 100 and distances[100, 0] == distances[100, 1] == 0


def test_the_nearest_of_some_reference_rows_is_another_row():
    reference = rows(5, 120)
    reference[[9, 80]] = reference[33]
    own = np.array([33, 9, 80, 0, 119, 0])
    distance, found = nearest(reference[own], reference, 32, own=own)
    expected, order = all_pairs(reference, reference, 1, own=True)
    np.testing.assert_array_equal(found, order[own, 0])
    np.testing.assert_allclose(distance, expected[own, 0], rtol=2e-6)
    assert found[:3].tolist() == [9, 33, 9] and not distance[:3].any()
    with pytest.raises(InputError, match=r"^own = 'outside': must be 0 to 119$"):
        nearest(reference[:1], reference, own=np.array([120]))


def test_panels_are_put_together_in_order(monkeypatch):
    monkeypatch.setattr(row_blocks, "_PANEL_BYTES", 2 * 32 * 5 * 4)
    monkeypatch.setattr(neighbours, "_TABLE", 1000)
    queries = rows(3, 150)
    for own, reference in ((False, rows(4, 70)), (True, queries)):
        distances, found = k_nearest(queries, reference, 2, own=own, block_size=32)
        expected, order = all_pairs(queries, reference, 2, own)
        np.testing.assert_array_equal(found, order)
        np.testing.assert_allclose(distances, expected, rtol=2e-6)
    radii = np.full(70, 1.5, np.float32)
    counts = ball_counts(queries, rows(4, 70), radii, block_size=32)
    np.testing.assert_array_equal(counts, (all_pairs(queries, rows(4, 70), 70)[0] <= 1.5).sum(axis=1))


def test_rounding_of_the_product_never_chooses_the_row():
    """Near copies much closer than the product can resolve: |q|^2 is 1e6, and its eps 0.1 is larger than all
    distances.
    """
    reference = rows(5, 160, d=100) * 100
    queries = reference[[3, 90]].copy()
    reference[40] = reference[3] + np.float32(2e-3)
    reference[150] = reference[90] - np.float32(1e-3)
    reference[20] = reference[90] + np.float32(2e-3)
    distances, found = k_nearest(queries, reference, block_size=32)
    np.testing.assert_array_equal(found[:, 0], [3, 90])
    np.testing.assert_array_equal(distances[:, 0], 0)


def test_float64(x64):
    queries, reference = rows(6, 40, dtype=np.float64), rows(7, 61, dtype=np.float64)
    distances, found = k_nearest(queries, reference, 4, block_size=32)
    expected, order = all_pairs(queries, reference, 4)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_allclose(distances, expected, rtol=1e-14)


def some_rows(rng, kind, n, d):
    """Rows whose distances products get wrong: ties, copies, and norms far above the distances."""
    normal = rng.normal(size=(n, d))
    return {
        "normal": lambda: normal,
        "mean": lambda: normal + 3e3,
        "binary": lambda: (normal > 0) * 1.0,
        "two values": lambda: (normal > 0) * 0.1,
        "grid": lambda: np.clip(np.rint(normal * 2), -3, 3),
        "bytes": lambda: rng.integers(0, 256, (n, d)) * 1.0,
        "copies": lambda: normal[rng.integers(0, n // 8, n)],
        "one place": lambda: np.full((n, d), 0.3),
        "two clusters": lambda: normal + 1e4 * rng.integers(0, 2, (n, 1)),
        "three clusters": lambda: normal + 1e5 * rng.integers(0, 3, (n, 1)),
        "outlier": lambda: np.where(np.arange(n)[:, None] == n // 2, 1e6, normal),
        "far outlier": lambda: np.where(np.arange(n)[:, None] == n // 2, 1e30, normal),
        "tiny": lambda: normal * 1e-25,
        "huge": lambda: normal * 1e30,
        "all sizes": lambda: normal * 10.0 ** rng.integers(-20, 20, (n, 1)),
    }[kind]()


KINDS = ("normal", "mean", "binary", "two values", "grid", "bytes", "copies", "one place", "two clusters",
         "three clusters", "outlier", "far outlier", "tiny", "huge", "all sizes")  # fmt: skip


def exact(queries, reference, k, own=False):
    """SciPy's distances in float64, all pairs sorted: of equal ones the lower number first."""
    table = cdist(queries.astype(np.float64), reference.astype(np.float64))
    if own:
        np.fill_diagonal(table, np.inf)
    order = np.argsort(table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, axis=1), order


def check_exactly(rng, kind, n, m, d, k, dtype, block_size):
    """Neighbours, balls, precision, recall, density and coverage equal float64's, ties and all."""
    queries, reference = (some_rows(rng, kind, size, d).astype(dtype) for size in (n, m))
    reference[:5] = queries[:5]  # Pairs of distance 0.
    for asked, own in ((queries, False), (reference, True)):
        distances, found = k_nearest(asked, reference, k, own=own, block_size=block_size)
        expected, order = exact(asked, reference, k, own)
        np.testing.assert_array_equal(found, order)
        np.testing.assert_array_equal(distances, expected.astype(dtype))
    table = cdist(queries.astype(np.float64), reference.astype(np.float64))
    radii, of_queries = (exact(side, side, k, True)[0][:, -1] for side in (reference, queries))
    for rounded in (radii.astype(np.float32), radii):
        inside = table.astype(rounded.dtype) <= rounded
        np.testing.assert_array_equal(
            ball_counts(queries, reference, rounded, block_size=block_size), inside.sum(axis=1)
        )
    shares = precision_recall(queries, reference, k=k, block_size=block_size)
    assert [share.value for share in shares] == [
        inside.any(axis=1).mean(),
        (table <= of_queries[:, None]).any(axis=0).mean(),
    ]
    density, coverage = density_coverage(queries, reference, k=k, block_size=block_size)
    np.testing.assert_allclose(density.value, inside.sum() / (k * n), rtol=1e-13)
    assert coverage.value == (table.min(axis=0) <= radii).mean()


#: Other widths than 12 are for the kinds that meet them in a way of their own; the rest is slow.
WIDTHS = [
    pytest.param(d, kind, marks=() if d == 12 or kind == "grid" else pytest.mark.slow)
    for d in (1, 12, 300)
    for kind in KINDS
]


@pytest.mark.parametrize(("d", "kind"), WIDTHS)
def test_exact_for_any_data(d, kind):
    """Groups are 7, so that rows of many ties need more than are kept."""
    check_exactly(np.random.default_rng(d), kind, 90, 107, d, 3, np.float32, 48)


@pytest.mark.parametrize("kind", ["binary", "two values", "two clusters", "far outlier", "huge"])
def test_exact_for_float64_rows_on_a_float32_device(kind):
    check_exactly(np.random.default_rng(1), kind, 90, 107, 12, 3, np.float64, 48)


@pytest.mark.parametrize("kind", ["normal", "two values", "all sizes"])
def test_exact_in_float64(x64, kind):
    check_exactly(np.random.default_rng(2), kind, 90, 107, 12, 3, np.float64, 48)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.sampled_from([1, 5, 39]), st.sampled_from([16, 1024]))
def test_small_sets_are_exact(seed, kind, k, block_size):
    check_exactly(np.random.default_rng(seed), kind, 40, 40, 4, k, np.float32, block_size)


def test_a_second_pass_in_small_tables_is_the_same(monkeypatch):
    monkeypatch.setattr(neighbours, "_TABLE", 700)
    monkeypatch.setattr(exact_distances, "_NUMBERS", 100)
    for pairs in (0, 10**9):  # Differences alone, and products wherever there is a pair.
        monkeypatch.setattr(exact_distances, "_PAIRS", pairs)
        check_exactly(np.random.default_rng(3), "two clusters", 90, 107, 12, 20, np.float32, 48)


@pytest.mark.parametrize("large", [1e160, 1e200, 1e308])
def test_an_enormous_row_leaves_the_others_theirs(large):
    """Divided by its size the others would be rows whose squares are 0."""
    rng = np.random.default_rng(4)
    data, others = rng.normal(size=(2, 60, 4))
    data[7, 1], data[9] = large, data[8]
    keep = np.arange(60) != 7
    for asked, own in ((others, False), (data, True)):
        with np.errstate(over="ignore"):
            expected, order = exact(asked, data, 3, own)
        distances, found = k_nearest(asked, data, 3, own=own)
        here = keep if own else slice(None)
        np.testing.assert_array_equal(found[here], order[here])
        np.testing.assert_array_equal(distances[here], expected[here])
    np.testing.assert_allclose(distances[7], large, rtol=1e-12)
    radii = exact(data[keep], data[keep], 3, True)[0][:, -1]
    inside = cdist(others, data[keep]) <= radii
    np.testing.assert_array_equal(ball_counts(others, data, np.insert(radii, 7, 1.0)), inside.sum(axis=1))


def test_rows_of_all_sizes_of_float64():
    """Distances of 1e-300 beside ones of 1e150, against the same rows in extended precision."""
    rng = np.random.default_rng(5)
    data = rng.normal(size=(60, 3)) * 10.0 ** rng.integers(-300, 150, (60, 1))
    wide = data.astype(np.longdouble)
    table = np.sqrt(np.square(wide[:, None] - wide[None]).sum(axis=2))
    np.fill_diagonal(table, np.inf)
    distances, found = k_nearest(data, data, 3, own=True)
    expected = np.sort(table, axis=1)[:, :3]
    np.testing.assert_allclose(distances, expected.astype(np.float64), rtol=1e-14)
    # Rows whose distances differ in extended precision alone may change places.
    np.testing.assert_allclose(np.take_along_axis(table, found.astype(int), 1).astype(float), distances, rtol=1e-14)


@pytest.mark.parametrize("different", [1, 25])
def test_equal_rows_are_searched_once(monkeypatch, different):
    """A collapsed model's samples: ties of every row with hundreds, and no more differences than there are rows that
    differ.
    """
    pairs = []

    def counted(rows_, numbers, others):
        pairs.append(len(numbers) * len(others))
        return differences(rows_, numbers, others)

    monkeypatch.setattr(neighbours, "differences", counted)
    monkeypatch.setattr(exact_distances, "differences", counted)
    rng = np.random.default_rng(different)
    data = rows(20, different, 6)[rng.integers(0, different, 600)]
    others = rows(21, 70, 6)
    for asked, reference, own in ((data, data, True), (others, data, False), (data, others, False)):
        distances, found = k_nearest(asked, reference, 5, own=own)
        expected, order = exact(asked, reference, 5, own)
        np.testing.assert_array_equal(found, order)
        np.testing.assert_array_equal(distances, expected.astype(np.float32))
    radii = exact(data, data, 5, True)[0][:, -1]
    for asked in (data, others):
        np.testing.assert_array_equal(ball_counts(asked, data, radii), (cdist(asked, data) <= radii).sum(axis=1))
    assert sum(pairs) < 600 * 70  # All pairs of equal rows alone are 360,000 and more.


def test_infinite_radii_hold_all():
    radii = np.full(40, np.inf, np.float32)
    radii[:10], radii[10:20] = 0, 1e30
    queries = rows(11, 40, 4)
    np.testing.assert_array_equal(ball_counts(queries, rows(12, 40, 4), radii), np.full(40, 30))
    np.testing.assert_array_equal(ball_counts(queries, queries, radii), 30 + (np.arange(40) < 10))


def test_balls_equal_all_pairs():
    queries, centres = rows(8, 90, shift=20.0), rows(9, 130, shift=20.0)
    radii = np.random.default_rng(10).uniform(0, 3, 130).astype(np.float32)
    pairs = np.linalg.norm(queries[:, None].astype(np.float64) - centres[None], axis=2)
    expected = (pairs <= radii[None]).sum(axis=1)
    assert 0 < expected.min() or expected.max() > 5
    for block_size in (48, 1024):
        np.testing.assert_array_equal(ball_counts(queries, centres, radii, block_size=block_size), expected)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: k_nearest(rows(0, 4), rows(1, 4), 5), "k = 5: must be a whole number from 1 to 4"),
        (lambda: k_nearest(rows(0, 4), rows(0, 4), 4, own=True), "k = 4: must be a whole number from 1 to 3"),
        (lambda: k_nearest(rows(0, 4), rows(1, 5), own=True), "own = True"),
        (lambda: k_nearest(rows(0, 4), rows(1, 4)[:, :2]), "width of queries and reference"),
        (lambda: k_nearest(rows(0, 4) * np.float32(np.inf), rows(1, 4)), "queries = '4 rows': must be"),
        (lambda: k_nearest(rows(0, 4), rows(1, 4), block_size=0), "block_size = 0"),
        (lambda: ball_counts(rows(0, 4), rows(1, 4), np.ones(3, np.float32)), "radii.shape = (3,)"),
        (lambda: ball_counts(rows(0, 4), rows(1, 4), np.full(4, -1.0, np.float32)), "radii = "),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2])
def test_integers_of_few_bits(dtype):
    data = np.random.default_rng(0).integers(0, 2, (20, 5)).astype(dtype)
    distances, found = k_nearest(data[:7], data, 2)
    expected, order = exact(data[:7], data, 2)
    np.testing.assert_array_equal(found, order)
    np.testing.assert_array_equal(distances, expected.astype(np.float32))
    np.testing.assert_array_equal(as_labels("labels", data[:, 0]), data[:, 0].astype(np.int32))
