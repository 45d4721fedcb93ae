"""What ranks alone tell, against scipy."""

import inspect

import numpy as np
import pytest
from scipy import stats

from dgu.analysis.stats import hits_at, rank_correlation
from dgu.core.errors import InputError


def test_rank_correlation_is_spearmans_of_each_row():
    rng = np.random.default_rng(0)
    x, rows = np.array([1, 2, 5, 9, 9]), rng.integers(0, 4, (7, 3, 5)).astype(float)
    rows[0, 0] = [1, 2, 2, 3, 4]
    found = rank_correlation(x, rows)
    expected = [[stats.spearmanr(x, row).statistic if np.ptp(row) else 0.0 for row in block] for block in rows]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(rank_correlation(rows, x), expected, atol=1e-12)
    assert rank_correlation([1, 2, 4], np.exp([1.0, 2.0, 3.0])) == pytest.approx(1.0)


def test_rank_correlation_with_what_never_changes_is_nothing():
    assert rank_correlation([1, 2], [3.0, 3.0]) == 0 and rank_correlation([1], [3.0]) == 0


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], "length of x and y = "),
        ([], [], "length of x and y = "),
        ([1.0, np.nan], [1.0, 2.0], "x = 'not finite'"),
        (1.0, 2.0, "length of x and y = "),
        (np.ones((2, 4)), np.ones((3, 4)), r"shapes of x and y = \(\(2, 4\), \(3, 4\)\): must be such that they"),
    ],
)
def test_bad_input_is_one_line(x, y, words):
    unchecked = inspect.unwrap(rank_correlation)  # Types of arguments are checked in tests alone.
    with pytest.raises(InputError, match=words) as error:
        unchecked(x, y)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("level", [0.0, 1.0, np.nan, 1e-320, "0.1"])
def test_an_impossible_false_positive_rate_is_refused(level):
    with pytest.raises(InputError, match=r"^false_alarms = |^number of negatives = 5"):
        inspect.unwrap(hits_at)(np.arange(5.0), np.arange(5.0), level)
