"""Density, coverage and class balance against their definitions, closed forms, and sets whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from dgu.analysis.quality.balance import class_balance
from dgu.analysis.quality.coverage import density_coverage, expected_coverage
from dgu.core.errors import InputError


def rows(seed, n, scale=1.0, shift=0.0, dtype=np.float32):
    return (np.random.default_rng(seed).normal(size=(n, 5)) * scale + shift).astype(dtype)


@pytest.mark.parametrize("block_size", [32, 1024])
def test_equals_the_definition(x64, block_size):
    generated, real = rows(0, 70, 1.2, 0.3, np.float64), rows(1, 85, dtype=np.float64)
    density, coverage = density_coverage(generated, real, k=4, block_size=block_size)
    between = np.linalg.norm(real[:, None] - real[None], axis=2)
    radii = np.sort(between, axis=1)[:, 4]
    inside = np.linalg.norm(real[:, None] - generated[None], axis=2) <= radii[:, None]
    np.testing.assert_allclose(density.value, inside.sum() / (4 * 70), rtol=1e-14)
    assert coverage.value == inside.any(axis=1).mean()
    assert 0.2 < density.value < 1 and 0.5 < coverage.value < 1


def test_equal_distributions_give_one_and_the_closed_form():
    """Means over 60 pairs of sets: the expectations are exact for any continuous distribution and any sizes."""
    found = [density_coverage(rows(2 * i, 40), rows(2 * i + 1, 60), k=5) for i in range(60)]
    for place, expected in ((0, 1.0), (1, expected_coverage(40, 60, 5))):
        values = np.array([pair[place].value for pair in found])
        assert abs(values.mean() - expected) < 3.5 * values.std(ddof=1) / np.sqrt(len(values))
    assert expected_coverage(1, 2, 1) == 0.5
    np.testing.assert_allclose(expected_coverage(10**6, 10**6, 5), 1 - 0.5**5, rtol=1e-5)


def test_an_outlier_among_the_real_images_hardly_moves_density():
    real, far = rows(3, 300), rows(4, 300, 0.3, 4.0)
    outliers = np.concatenate([real[:-6], rows(5, 6, 0.1, 8.0)])
    assert density_coverage(far, real)[0].value < 0.02
    assert density_coverage(far, outliers)[0].value < 0.1
    crowded = density_coverage(rows(6, 300, 0.2), real)  # in the middle
    assert crowded[0].low > 1 and crowded[1].high < 0.6


def test_class_balance_finds_what_is_out_of_balance():
    rng = np.random.default_rng(7)
    reference = rng.permutation(np.repeat(np.arange(5), 1000))
    same = class_balance(rng.integers(0, 5, 2000), reference, 5)
    assert same.p_value > 0.01 and np.all(same.differences.low < 0) and np.all(same.differences.high > 0)
    skewed = class_balance(rng.choice(5, 2000, p=[0.3, 0.15, 0.15, 0.2, 0.2]), reference, 5)
    assert skewed.p_value < 1e-6 and skewed.differences.low[0] > 0.05 and skewed.differences.high[1] < 0
    np.testing.assert_allclose(skewed.shares.value.sum(), 1)


def test_class_balance_equals_the_textbook_statistic_and_leaves_absent_classes_out():
    labels, reference = np.repeat([0, 1, 3], [10, 20, 30]), np.repeat([0, 1, 3], [25, 25, 30])
    found = class_balance(labels, reference, 4)
    table = np.array([[10, 20, 30], [25, 25, 30]])
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    np.testing.assert_allclose(found.chi2, ((table - expected) ** 2 / expected).sum(), rtol=1e-12)
    assert found.degrees_of_freedom == 2
    np.testing.assert_allclose(found.p_value, stats.chi2.sf(found.chi2, 2), rtol=1e-12)
    assert found.shares.value[2] == found.shares.low[2] == 0 and found.shares.high[2] > 0
    # Bonferroni for four classes: 98.75 % each.
    interval = stats.binomtest(20, 60).proportion_ci(0.9875, method="wilson")
    np.testing.assert_allclose([found.shares.low[1], found.shares.high[1]], [interval.low, interval.high], rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: density_coverage(rows(0, 9), rows(1, 5), k=5), "k = 5"),
        (lambda: density_coverage(rows(0, 1), rows(1, 9)), "number of generated rows = 1"),
        (lambda: density_coverage(rows(0, 9), rows(1, 9)[:, :2]), "width of generated and real"),
        (lambda: expected_coverage(5, 5, 5), "k = 5"),
        (lambda: class_balance(np.array([0, 4]), np.array([0, 1]), 3), "labels = "),
        (lambda: class_balance(np.array([1, 1]), np.array([1]), 3), "all of one class"),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value) and "\n" not in str(error.value)
