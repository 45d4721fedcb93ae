"""Both distributions have the moments that they promise, and norms that tell them apart."""

import jax
import numpy as np
import pytest

from dgu.core.errors import InputError
from dgu.distributions import equal_moments

N, D = 20_000, 5


def test_means_and_covariances_are_equal_and_norms_are_not():
    drawn = equal_moments(jax.random.key(0), N, D)
    for rows in drawn:
        assert np.abs(rows.mean(axis=0)).max() < 5 / N**0.5
        # The variance of x_i x_j is E |x|^4 / (d (d + 2)) times 3 on the diagonal: at most 2.7 for the second.
        assert np.abs(rows.T @ rows / N - np.eye(D)).max() < 5 * (2.7 / N) ** 0.5
    squares = np.square(drawn).sum(axis=2) / D
    np.testing.assert_allclose(squares[0], 1, rtol=1e-5)
    inner = squares[1] < 1
    np.testing.assert_allclose(squares[1], np.where(inner, 0.5, 1.5), rtol=1e-5)
    assert abs(inner.mean() - 0.5) < 5 * 0.5 / N**0.5


def test_counts_below_one_are_refused():
    with pytest.raises(InputError, match="dimension = 0"):
        equal_moments(jax.random.key(0), 3, 0)
