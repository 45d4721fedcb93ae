"""The rank correlation against Spearman's own formula, against Pearson's correlation of ranks, and where nothing varies."""

import numpy as np
import pytest

from dgu.analysis import rank_correlation
from dgu.core.errors import InputError


def test_without_ties_it_is_spearmans_formula():
    rng = np.random.default_rng(0)
    x, values = rng.permutation(9), rng.standard_normal((3, 2, 9))
    ranks = values.argsort(axis=-1).argsort(axis=-1)
    expected = 1 - 6 * ((ranks - x) ** 2).sum(axis=-1) / (9 * (81 - 1))
    np.testing.assert_allclose(rank_correlation(x, values), expected, atol=1e-12)
    assert rank_correlation([3, 40, 500], [0.1, 0.2, 0.9]) == pytest.approx(1.0)
    assert rank_correlation([3, 40, 500], [0.9, 0.2, 0.1]) == pytest.approx(-1.0)


def test_ties_share_their_mean_rank_and_what_does_not_vary_has_none():
    # Ranks 1.5 1.5 3 4 against 1 3 3 3, by hand: covariance 2, variances 4.5 and 3.
    np.testing.assert_allclose(rank_correlation([1, 1, 2, 3], [0, 5, 5, 5]), 2 / np.sqrt(4.5 * 3))
    np.testing.assert_array_equal(rank_correlation([1, 2, 3], np.array([[4.0, 4, 4], [1, 2, 3]])), [0, 1])
    assert rank_correlation([2, 2], [1, 5]) == 0


def test_bad_input_is_named():
    for said, given in (
        ("x.shape", ([1], [1])),
        ("values.shape", ([1, 2], [1, 2, 3])),
        ("values = 'not finite'", ([1, 2], [1, np.nan])),
        ("x = 'not finite'", ([1, np.inf], [1, 2])),
    ):
        with pytest.raises(InputError, match=said):
            rank_correlation(*given)
