"""Nearest neighbours against all pairs in float64, whatever the blocks; copies; balls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgu.analysis import neighbours
from dgu.analysis.neighbours import ball_counts, k_nearest
from dgu.errors import InputError


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


def test_panels_are_put_together_in_order(monkeypatch):
    monkeypatch.setattr(neighbours, "_PANEL_BYTES", 2 * 32 * 5 * 4)
    monkeypatch.setattr(neighbours, "_DIFFERENCES", 1000)
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
    """Near copies much closer than the product can resolve: |q|^2 is 1e6, and its eps 0.1 is larger than all distances."""
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


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 3]))
def test_on_a_grid_with_many_ties_the_distances_are_exact(seed, k):
    """Rows of small integers tie again and again; distances must still be the k smallest, and rows of that distance."""
    rng = np.random.default_rng(seed)
    queries, reference = (rng.integers(0, 3, (40, 4)).astype(np.float32) for _ in range(2))
    distances, found = k_nearest(queries, reference, k, block_size=16)
    np.testing.assert_allclose(distances, all_pairs(queries, reference, k)[0], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(queries[:, None] - reference[found], axis=2), distances, rtol=1e-6)
    assert all(len(set(each)) == k for each in found.tolist())


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
        (lambda: k_nearest(rows(0, 4), rows(1, 4), 5), "k = 5: must be 1 to 4"),
        (lambda: k_nearest(rows(0, 4), rows(0, 4), 4, own=True), "k = 4: must be 1 to 3"),
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
