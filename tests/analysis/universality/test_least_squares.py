import jax
import numpy as np
import pytest
from scipy import stats

from dgu.analysis import least_squares_classifier, simulated_errors
from dgu.core.errors import InputError


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_is_the_minimum(shape):
    """Ridge: the gradient vanishes. None: the pseudo-inverse."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=shape), rng.integers(0, 3, shape[0])
    targets = np.eye(3)[labels]
    w = least_squares_classifier(x, labels, 3, ridge=0.2)
    np.testing.assert_allclose(x.T @ (x @ w - targets) / len(x) + 0.2 * w, 0, atol=1e-12)
    np.testing.assert_allclose(least_squares_classifier(x, labels, 3), np.linalg.pinv(x) @ targets, atol=1e-10)
    with pytest.raises(InputError, match=r"labels = \(0, 2\): must be from 0 to 1"):
        least_squares_classifier(x, labels, 2)
    with pytest.raises(InputError, match="ridge = -1: must be 0 or more"):
        least_squares_classifier(x, labels, 3, ridge=-1)


def test_simulation_of_one_direction():
    """Classes at +-m on a line, with noise there only: any least-squares weights of a sane sample err with Phi(-m)."""
    means = np.zeros((2, 5))
    means[:, 2] = [1.5, -1.5]
    covariances = np.zeros((2, 5, 5))
    covariances[:, 2, 2] = 1
    errors = simulated_errors(means, covariances, 60, (0.0, 0.1), jax.random.key(0), 4)
    best = stats.norm.cdf(-1.5)
    assert errors.shape == (4, 2) and (errors >= best - 1e-9).all() and errors.max() < best + 0.01
    again = simulated_errors(means, covariances, 60, (0.1,), jax.random.key(0), 2)
    np.testing.assert_allclose(again[:, 0], errors[:2, 1], atol=1e-12)
    with pytest.raises(InputError, match="n = 1: must be large enough for a sample of each class"):
        simulated_errors(means, covariances, 1, (0.0,), jax.random.key(0), 1, weights=np.asarray([0.99, 0.01]))
