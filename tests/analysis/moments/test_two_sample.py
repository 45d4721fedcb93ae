"""Moment and spectrum distances: unbiased, equal to slow sums, and with intervals that cover."""

import jax
import numpy as np
import pytest

from dgu.analysis.moments.two_sample import compare_spectra, moment_distances
from dgu.core.errors import InputError

KEY = jax.random.key(3)
D = 8
SCALES = np.arange(1, D + 1) ** -0.7


def rows(seed, n, shift=0.0, stretch=1.0):
    x = np.random.default_rng(seed).normal(size=(n, D)) * SCALES + 5.0
    x[:, 0] += shift
    x[:, 1] *= stretch
    return x.astype(np.float32)


def test_equals_sums_over_pairs():
    a, b = rows(0, 61), rows(1, 85, 0.4, 1.5)
    found = moment_distances(a, b, KEY, blocks=2)
    centre = b.mean(axis=0, dtype=np.float64)
    orders = [np.asarray(jax.random.permutation(jax.random.fold_in(KEY, i), len(x))) for i, x in enumerate((a, b))]
    means, seconds, covariance = [], [], np.zeros((D, D))
    for block in range(2):
        x = a[orders[0][30 * block : 30 * block + 30]].astype(np.float64) - centre
        y = b[orders[1][42 * block : 42 * block + 42]].astype(np.float64) - centre
        for kernel, into in ((lambda u, v: u @ v, means), (lambda u, v: (u @ v) ** 2, seconds)):
            within = [
                sum(kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j)
                / (len(z) * (len(z) - 1))
                for z in (x, y)
            ]
            into.append(sum(within) - 2 * sum(kernel(u, v) for u in x for v in y) / (len(x) * len(y)))
        covariance += y.T @ y / len(y) / 2
    np.testing.assert_allclose(found.mean.value, np.mean(means) / np.trace(covariance), rtol=1e-10)
    np.testing.assert_allclose(found.second.value, np.mean(seconds) / (covariance**2).sum(), rtol=1e-10)


def test_equal_laws_give_zero_and_unequal_ones_their_distance():
    same = moment_distances(rows(12, 4000), rows(13, 9000), KEY)
    for interval in (same.mean, same.second):
        assert interval.low < 0 < interval.high < 0.01
    assert same.variance_ratio.low < 1 < same.variance_ratio.high
    moved = moment_distances(rows(4, 4000, shift=0.5), rows(5, 9000), KEY)
    trace, square = (SCALES**2).sum(), (SCALES**4).sum()
    assert abs(moved.mean.value - 0.25 / trace) < 4 * moved.mean.standard_error < 0.06
    # About the reference's mean the shift adds its square to one second moment.
    assert abs(moved.second.value - 0.25**2 / square) < 4 * moved.second.standard_error
    mirrored = rows(6, 4000)
    mirrored[:, 2] = (
        mirrored[:, 1] - 5 + mirrored[:, 2]
    )  # a correlation that no marginal of the first two columns shows
    assert moment_distances(mirrored, rows(5, 9000), KEY).second.low > 0.05


@pytest.mark.slow
def test_intervals_cover():
    """50 pairs of equal laws: the interval of 10 blocks must hold 0 in most of them, neither far too often nor too
    seldom.
    """
    found = [moment_distances(rows(100 + i, 300), rows(200 + i, 500), KEY) for i in range(80)]
    for name in ("mean", "second"):
        held = sum(getattr(each, name).low <= 0 <= getattr(each, name).high for each in found)
        assert 68 <= held, name
        values = np.array([getattr(each, name).value for each in found])
        assert abs(values.mean()) < 3.5 * values.std(ddof=1) / np.sqrt(len(values))


def test_spectra_have_the_planted_ratio():
    same = compare_spectra(rows(7, 3000), rows(8, 8000), KEY)
    assert np.all(same.ratios.low < 1.02) and np.all(same.ratios.high > 0.98)
    expected = np.linalg.eigvalsh(np.cov(rows(7, 3000).T))[::-1]
    np.testing.assert_allclose(same.eigenvalues, expected, rtol=1e-5)
    scaled = compare_spectra((rows(12, 3000) - 5) * np.float32(1.2), rows(8, 3000), KEY, quantiles=(0, 1))
    np.testing.assert_array_equal(scaled.ranks, [0, 7])
    assert np.all(scaled.ratios.low < 1.44) and np.all(scaled.ratios.high > 1.44) and np.all(scaled.ratios.low > 1.2)
    # Theory for the log of an eigenvalue of Gaussian rows: variance 2 / n in each set.
    np.testing.assert_allclose(scaled.ratios.standard_error / scaled.ratios.value, np.sqrt(4 / 3000), rtol=0.6)


def test_fewer_rows_than_columns_compare_the_ranks_there_are():
    found = compare_spectra(rows(10, 6), rows(11, 9), KEY, blocks=3)
    assert len(found.eigenvalues) == 3 and found.ranks.max() <= 2


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: moment_distances(rows(0, 15), rows(1, 90), KEY), "rows = (15, 90): must be 20 or more"),
        (lambda: moment_distances(rows(0, 90), np.ones((90, D), np.float32), KEY), "b = 'constant rows'"),
        (lambda: compare_spectra(rows(0, 15), rows(1, 90), KEY), "rows = (15, 90)"),
        (lambda: compare_spectra(np.ones((90, D), np.float32), rows(1, 90), KEY), "rows = 'constant'"),
        (lambda: compare_spectra(rows(0, 90), rows(1, 90), KEY, quantiles=(2,)), "quantiles = (2,)"),
    ],
)
def test_bad_input_is_one_line(call, text):
    with pytest.raises(InputError) as error:
        call()
    assert text in str(error.value) and "\n" not in str(error.value)
