"""Quality measures against slow NumPy, closed forms, and distributions whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgu.analysis.quality.distances import (
    extract_features,
    kernel_distance,
    nearest_neighbours,
    precision_recall,
    variance_ratio,
)
from dgu.analysis.quality.neighbours import nearest
from dgu.analysis.stats.estimates import proportion
from dgu.core.errors import InputError

KEY = jax.random.key(5)
D = 6


def normal(seed, n, scale=1.0, shift=0.0, dtype=np.float32):
    return (np.random.default_rng(seed).normal(size=(n, D)) * scale + shift).astype(dtype)


def slow_mmd(a, b):
    """Double loops over all pairs, in Python floats."""
    kernel = lambda x, y: (float(x @ y) / D + 1) ** 3  # noqa: E731
    n, m = len(a), len(b)
    first = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    second = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return first + second - 2 * sum(kernel(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_equals_loops_over_its_blocks(x64):
    a, b = normal(0, 45, dtype=np.float64), normal(1, 62, 1.3, dtype=np.float64)
    result = kernel_distance(a, b, KEY, block_size=20)
    orders = [np.asarray(jax.random.permutation(jax.random.fold_in(KEY, i), len(x))) for i, x in enumerate((a, b))]
    blocks = [slow_mmd(a[orders[0][i : i + 20]], b[orders[1][i : i + 20]]) for i in (0, 20)]
    np.testing.assert_allclose(result.value, np.mean(blocks), rtol=1e-11)
    np.testing.assert_allclose(result.standard_error, np.std(blocks, ddof=1) / np.sqrt(2), rtol=1e-10)


@pytest.mark.parametrize(("mean", "rtol"), [(0.0, 1e-9), (1e3, 1e-7), (1e4, 1e-5)])
def test_kernel_distance_of_features_with_a_large_mean(mean, rtol):
    """Against sums in extended precision: in float32 a mean of 1,000 costs all digits. rtol follows from float64's
    eps.
    """
    a, b = normal(40, 120, 1.1, mean), normal(41, 150, shift=mean)
    orders = [np.asarray(jax.random.permutation(jax.random.fold_in(KEY, i), len(x))) for i, x in enumerate((a, b))]
    blocks = []
    for i in (0, 60):
        x, y = (side[order[i : i + 60]].astype(np.longdouble) for side, order in zip((a, b), orders))
        xx, yy, xy = ((left @ right.T / D + 1) ** 3 for left, right in ((x, x), (y, y), (x, y)))
        off = ~np.eye(60, dtype=bool)
        blocks.append(float((xx[off].sum() + yy[off].sum()) / (60 * 59) - 2 * xy.mean()))
    found = kernel_distance(a, b, KEY, block_size=60)
    np.testing.assert_allclose(found.value, np.mean(blocks), rtol=rtol)


def test_kernel_distance_is_unbiased():
    same = kernel_distance(normal(2, 4000), normal(3, 4000), KEY, block_size=100)
    assert abs(same.value) < 3.5 * same.standard_error
    assert same.low < 0 < same.high
    # y = N(0, s^2 I): with u = x.x'/d, E(u+1)^3 = 1 + 3 E u^2 and E u^2 is 1/d, s^4/d and s^2/d for the three pairs.
    scaled = kernel_distance(normal(2, 20000), normal(4, 20000, 1.5), KEY, block_size=100)
    exact = 3 / D * (1 + 1.5**4 - 2 * 1.5**2)
    assert abs(scaled.value - exact) < 3.5 * scaled.standard_error
    assert scaled.standard_error < 0.05 * exact


def slow_coverage(queries, manifold, k):
    pairwise = np.linalg.norm(manifold[:, None] - manifold[None], axis=2)
    radii = np.sort(pairwise, axis=1)[:, k]
    distances = np.linalg.norm(queries[:, None] - manifold[None], axis=2)
    return (distances <= radii).any(axis=1).mean()


@pytest.mark.parametrize("block_size", [16, 1024])
def test_precision_and_recall_equal_the_definition(x64, block_size):
    generated, real = normal(6, 50, 2.0, 0.5, np.float64), normal(7, 61, dtype=np.float64)
    precision, recall = precision_recall(generated, real, k=3, block_size=block_size)
    assert precision.value == slow_coverage(generated, real, 3)
    assert recall.value == slow_coverage(real, generated, 3)
    assert 0 < precision.value < recall.value <= 1


def test_collapse_costs_recall_and_noise_costs_precision():
    real = normal(8, 300)
    narrow = precision_recall(normal(9, 300, 0.2), real)
    wide = precision_recall(normal(9, 300, 4.0), real)
    assert narrow[0].value > 0.95 and narrow[1].high < 0.5
    assert wide[0].high < 0.3 and wide[1].value > 0.9


def test_proportion_is_wilson():
    estimate = proportion(np.arange(50) < 10)
    z = 1.959963984540054
    centre = (0.2 + z**2 / 100) / (1 + z**2 / 50)
    half = z * np.sqrt(0.2 * 0.8 / 50 + z**2 / (4 * 50**2)) / (1 + z**2 / 50)
    np.testing.assert_allclose([estimate.low, estimate.high], [centre - half, centre + half], rtol=1e-9)


@pytest.mark.parametrize("block_size", [16, 1024])
def test_nearest_equals_all_pairs(block_size):
    queries, reference = normal(10, 37, 0.5, 50.0), normal(11, 90, shift=50.0)
    distance, index = nearest(queries, reference, block_size)
    pairwise = np.linalg.norm(queries[:, None].astype(np.float64) - reference[None], axis=2)
    np.testing.assert_array_equal(index, pairwise.argmin(axis=1))
    np.testing.assert_allclose(distance, pairwise.min(axis=1), rtol=1e-5)


def test_copies_of_training_rows_are_found():
    train, heldout = normal(12, 200), normal(13, 150)
    fresh = nearest_neighbours(normal(14, 150), train, heldout, KEY, replicates=200, block_size=64)
    assert fresh.median_ratio.low < 1 < fresh.median_ratio.high
    assert fresh.closer.low < 0.01 < fresh.closer.high
    copied = nearest_neighbours(train[:150], train, heldout, KEY, replicates=200, block_size=64)
    assert np.all(copied.sample_distance == 0) and np.array_equal(copied.sample_index, np.arange(150))
    assert copied.closer.value == 1 and copied.median_ratio.high == 0


def test_variance_ratio_equals_numpy_and_its_interval_covers():
    """Three classes of unequal size; the standard error of log tr(S) for normal rows is sqrt(2 / (d n))."""
    scales, counts = (0.5, 1.0, 2.0), (400, 700, 500)
    rows = np.concatenate([normal(20 + i, n, s, shift=7.0) for i, (n, s) in enumerate(zip(counts, scales))])
    labels = np.repeat([4, 1, 2], counts)
    reference, reference_labels = normal(30, 900), np.arange(900) % 5
    ratio = variance_ratio(rows, labels, reference[np.isin(reference_labels, [1, 2, 4])],
                           reference_labels[np.isin(reference_labels, [1, 2, 4])], KEY, replicates=300)  # fmt: skip
    for place, label in enumerate((1, 2, 4)):
        mine, theirs = rows[labels == label], reference[reference_labels == label]
        expected = np.trace(np.cov(mine.T)) / np.trace(np.cov(theirs.T))
        np.testing.assert_allclose(ratio.value[place], expected, rtol=1e-4)
        error = expected * np.sqrt(2 / D / len(mine) + 2 / D / len(theirs))
        np.testing.assert_allclose(ratio.standard_error[place], error, rtol=0.25)
    truth = np.array([1.0, 4.0, 0.25])
    assert np.all(np.abs(ratio.value - truth) < 4 * ratio.standard_error)
    assert np.all(ratio.low < ratio.value) and np.all(ratio.value < ratio.high)


def test_features_are_applied_in_equal_blocks():
    images = np.random.default_rng(1).normal(size=(11, 2, 2, 1)).astype(np.float32)
    sizes = []

    def features(block):
        sizes.append(len(block))
        return block.reshape(len(block), -1).sum(axis=1, keepdims=True) * jnp.ones((1, 3))

    rows = extract_features(images, features, block_size=4)
    np.testing.assert_allclose(rows, np.repeat(images.sum(axis=(1, 2, 3))[:, None], 3, axis=1), rtol=1e-5)
    assert sizes == [4, 4, 4]
    np.testing.assert_array_equal(extract_features(images), images.reshape(11, 4))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: kernel_distance(normal(0, 30), normal(1, 30), KEY, block_size=20), "rows = "),
        (lambda: kernel_distance(normal(0, 30), normal(1, 30)[:, :3], KEY), "width of a and b"),
        (lambda: precision_recall(normal(0, 4), normal(1, 4), k=4), "k = 4"),
        (lambda: nearest(normal(0, 4) * np.float32(np.nan), normal(1, 4)), "queries = "),
        (
            lambda: variance_ratio(normal(0, 4), np.array([0, 0, 0, 1]), normal(1, 4), np.arange(4) // 2, KEY),
            "rows of a",
        ),
        (lambda: extract_features(normal(0, 4), lambda block: block[:1]), "features = "),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(InputError, match=text):
        call()


def test_variance_ratio_of_rows_without_spread():
    labels = np.arange(60) % 2
    constant = np.full((60, D), 0.1, np.float32)
    constant[labels == 0] = normal(3, 30)
    ratio = variance_ratio(constant, labels, normal(4, 60), labels, KEY, replicates=20)
    assert ratio.value[0] > 0.5
    for field in (ratio.value, ratio.standard_error, ratio.low, ratio.high):
        assert field[1] == 0  # Not the rounding of a mean.
    with pytest.raises(InputError, match="reference rows of class 1: are all equal; must vary"):
        variance_ratio(normal(4, 60), labels, constant, labels, KEY, replicates=20)
    with pytest.raises(InputError, match="reference rows of class 0: are all equal when redrawn; must be more"):
        variance_ratio(normal(4, 60), labels, normal(5, 4), labels[:4], KEY, replicates=20)


@pytest.mark.parametrize("hits", [np.zeros(0, bool), np.array([0, 1, 2]), np.zeros((2, 3), bool), np.float32([0, 1])])
def test_a_proportion_is_of_truth_values(hits):
    with pytest.raises(InputError, match=r"hits = .*: must be \(n,\) of truth values"):
        proportion(hits)


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5, 1e7, 1e8])
def test_kernel_distance_is_right_or_refused(mean):
    """Against extended precision: what is given is right to a hundredth of its standard error."""
    a, b = (normal(40 + i, 120, shift=mean, dtype=np.float64) for i in range(2))
    if mean >= 1e7:
        with pytest.raises(InputError, match="so that rounding may change the kernel distance"):
            kernel_distance(a, b, KEY, block_size=30)
        return
    found = kernel_distance(a, b, KEY, block_size=30)
    orders = [np.asarray(jax.random.permutation(jax.random.fold_in(KEY, i), 120)).reshape(4, 30) for i in range(2)]
    values = []
    for x, y in zip(a.astype(np.longdouble)[orders[0]], b.astype(np.longdouble)[orders[1]]):
        xx, yy, xy = (((left @ right.T) / D + 1) ** 3 for left, right in ((x, x), (y, y), (x, y)))
        within = sum(table.sum() - np.trace(table) for table in (xx, yy))
        values.append(float(within / (30 * 29) - 2 * xy.mean()))
    assert abs(found.value - np.mean(values)) < 0.01 * found.standard_error


@pytest.mark.parametrize(("scale", "dtype"), [(1e37, np.float32), (1e200, np.float64)])
def test_kernels_beyond_the_largest_number_are_refused(scale, dtype):
    with pytest.raises(InputError, match=r"largest mean square of a row of features = .*: must be below 1e"):
        kernel_distance(normal(0, 60, scale, dtype=dtype), normal(1, 60, scale, dtype=dtype), KEY, block_size=30)


@pytest.mark.parametrize("replicates", [0, 1])
def test_intervals_need_two_replicates(replicates):
    rows = normal(0, 40)
    with pytest.raises(InputError, match=r"^replicates = .*: must be a whole number, 2 or more"):
        nearest_neighbours(rows, rows, rows, KEY, replicates=replicates)
    with pytest.raises(InputError, match=r"^replicates = .*: must be a whole number, 2 or more"):
        variance_ratio(rows, np.zeros(40, int), rows, np.zeros(40, int), KEY, replicates=replicates)


def test_held_out_rows_that_were_trained_on_are_no_measure():
    rows = normal(0, 40)
    with pytest.raises(InputError, match=r"^heldout = '40 of 40 rows that are in the training set'"):
        nearest_neighbours(rows, rows, rows, KEY, replicates=10)
