"""Mixtures of full Gaussians, as the ``MoLRGDenoiser`` that they are: posterior mean, noisy density and draws."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core.arrays import as_doubles, as_floats, as_number
from dgu.core.errors import require, require_whole
from dgu.models.mixtures import MoLRGDenoiser


def gaussian_mixture(
    weights: Sequence[float] | Num[ArrayLike, " k"],
    means: Num[ArrayLike, "k d"],
    covariances: Num[ArrayLike, " k *cov"],
) -> MoLRGDenoiser:
    """``sum_k w_k N(m_k, C_k)`` with covariances of full rank, isotropic ones by their variance.

    Each covariance is decomposed on the host in float64; the result has the dtype of ``means``, float32 or wider. Its
    noisy density ``log_density(x, sigma)``, ``sigma = 0`` included, gives the score at every time through
    ``dgu.samplers.ScoreOfDensity``.

    Args:
        weights: (K,), positive, their sum 1 (within 1e-6).
        means: (K, d).
        covariances: (K, d, d), symmetric and positive definite, or (K,) variances of isotropic components.

    Raises:
        InputError: weights that do not sum to one, shapes that do not fit, variances that are not positive.
    """
    means = as_floats("means", means)
    rows, d = means.shape
    pi, cov = as_doubles("weights", weights), as_doubles("covariances", covariances)
    require(pi.shape == (rows,), "weights.shape", pi.shape, f"({rows},), one for each mean")
    require(bool((pi > 0).all()) and abs(pi.sum() - 1) <= 1e-6, "weights", pi.tolist(), "positive with sum 1")
    require(bool(np.isfinite(means).all()), "means", "non-finite", "finite")
    if cov.ndim == 1:
        require(cov.shape == (rows,), "covariances.shape", cov.shape, f"({rows},) or ({rows}, {d}, {d})")
        bases, variances = np.broadcast_to(np.eye(d), (rows, d, d)), np.repeat(cov[:, None], d, axis=1)
    else:
        require(cov.shape == (rows, d, d), "covariances.shape", cov.shape, f"({rows},) or ({rows}, {d}, {d})")
        skew = float(np.abs(cov - cov.swapaxes(1, 2)).max())
        require(skew <= 1e-6 * float(np.abs(cov).max()), "covariances", f"asymmetric by {skew:.3g}", "symmetric")
        variances, bases = np.linalg.eigh(cov)
    smallest = float(variances.min())
    require(smallest > 0 and bool(np.isfinite(variances).all()), "smallest variance", smallest, "positive and finite")
    # Nothing is off bases that span the space; a positive deviation there keeps ``log_density`` finite at ``sigma =
    # 0``.
    arrays: list[Any] = [
        array.astype(means.dtype) for array in (pi, means, bases, variances, np.asarray(smallest**0.5))
    ]
    return MoLRGDenoiser(*arrays)


def two_modes(mu: float | int, *, weight: float = 0.5, std: float | int = 1.0, dimension: int = 1) -> MoLRGDenoiser:
    """``weight N(-mu e_1, std^2 I) + (1 - weight) N(mu e_1, std^2 I)`` in float32: the target of arXiv 2311.01797,
    section 4.1.

    Raises:
        InputError: ``mu`` or ``std`` not positive, ``weight`` outside (0, 1), ``dimension`` below 1.
    """
    mu, std, weight = map(as_number, (mu, std, weight))
    require(mu > 0, "mu", mu, "positive")
    require(std > 0, "std", std, "positive")
    require(0 < weight < 1, "weight", weight, "strictly between 0 and 1")
    require_whole("dimension", dimension)
    means = np.zeros((2, dimension), np.float32)
    means[:, 0] = -mu, mu
    return gaussian_mixture(np.array([weight, 1 - weight]), means, np.full(2, float(std) ** 2))
