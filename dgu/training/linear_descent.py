"""Gradient descent on the denoising loss of an affine map, with the expectation over noise taken exactly.

The loss ``L(W, b) = E |W (x + sigma eps) + b - x|^2`` of one noise level depends on the mean mu and the covariance
Sigma of the data alone. With ``Theta = [W, b]`` and

    A = [[Sigma + mu mu^T + sigma^2 I, mu], [mu^T, 1]],    C = [Sigma + mu mu^T, mu]

a step of size eta is ``Theta <- Theta (I - 2 eta A) + 2 eta C``. It converges from any start if and only if the
eigenvalues of ``2 eta A`` are below 2, to the posterior mean of the Gaussian with this mean and covariance. Li et al.,
arXiv 2410.24060, Theorem 1.
"""

import numpy as np
from jaxtyping import Float64, Num

from dgu.core.arrays import as_doubles
from dgu.core.errors import require, require_whole


def linear_gradient_descent(
    mean: Num[np.ndarray, " d"],
    covariance: Num[np.ndarray, "..."],
    sigma: float | int,
    *,
    rate: float | int = 0.9,
    doublings: int = 32,
) -> tuple[Float64[np.ndarray, "k d d"], Float64[np.ndarray, "k d"]]:
    """W and b after 1, 2, 4, ... ``2^doublings`` steps of gradient descent from 0.

    Each entry comes from the one before it by doing all its steps a second time: a step is an affine map, and twice as
    many steps are the square of that map. So no formula of the end enters. On the host, in float64.

    Args:
        mean: mu.
        covariance: Sigma, ``(d, d)``, symmetric.
        sigma: noise level, positive.
        rate: the size of a step as ``2 eta`` times the largest eigenvalue of A, positive: below 1 the descent is
            monotone in every direction, below 2 it converges, above 2 it does not.
        doublings: number of entries, less one.

    Returns:
        ``(doublings + 1, d, d)`` and ``(doublings + 1, d)``.

    Raises:
        InputError: shapes that do not fit, values out of range, or steps so many and so large that the map is no longer
            finite.
    """
    mu, cov = as_doubles("mean", mean), as_doubles("covariance", covariance)
    size = len(mu)
    require(mu.ndim == 1 and cov.shape == (size, size), "covariance.shape", cov.shape, f"({size}, {size})")
    require(0 < sigma < np.inf, "sigma", sigma, "positive and finite")
    require(0 < rate < np.inf, "rate", rate, "positive and finite")
    require_whole("doublings", doublings, 0)
    target = np.concatenate([cov + np.outer(mu, mu), mu[:, None]], axis=1)
    moments = np.concatenate([target, np.append(mu, 1.0)[None]])
    moments[np.arange(size), np.arange(size)] += float(sigma) ** 2
    step = rate / float(np.linalg.eigvalsh(moments)[-1])
    linear, theta = np.eye(size + 1) - step * moments, step * target
    found = [theta]
    for number in range(doublings):
        with np.errstate(over="ignore", invalid="ignore"):
            theta = theta @ linear + theta
            linear = linear @ linear
        finite = bool(np.isfinite(theta).all())
        require(finite, "rate", rate, f"small enough for a finite map after 2^{number + 1} steps")
        found.append(theta)
    every = np.stack(found)
    return every[:, :, :size], every[:, :, size]
