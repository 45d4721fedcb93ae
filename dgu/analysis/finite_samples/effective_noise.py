"""The noise level at which the true covariance acts as the covariance of finitely many rows does at a lower one."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64, Num

from dgu.core.arrays import as_doubles
from dgu.core.errors import require

#: Newton's method falls monotonically to the root; where it has a double one the distance halves at each step.
_MOST_STEPS = 200


def effective_noise(
    variances: Num[ArrayLike, " m"], squared_noise: Num[ArrayLike, " levels"], rows: float | int
) -> Float64[np.ndarray, " levels"]:
    """kappa, the one positive solution of ``kappa = s^2 + (kappa / n) sum_i lam_i / (lam_i + kappa)`` at each ``s^2``.

    For the covariance ``S_n = X^T X / n`` of n independent rows of covariance S, n and d large,

        E[S_n (S_n + s^2)^{-1}] ~ S (S + kappa)^{-1}:

    few rows act as more noise. kappa is above ``s^2`` and at most ``s^2 + tr S / n``, and goes to ``s^2`` as n grows.
    Found by Newton's method from the upper bound, from where it falls monotonically, as the equation is convex.

    Args:
        variances: lam, the eigenvalues of S, 0 or more; those that are 0 may be left out.
        squared_noise: ``s^2``, positive.
        rows: n, positive; of centred rows their number less one.

    Returns:
        kappa at each level, float64.

    Raises:
        InputError: values out of range.

    arXiv 2602.02908; the equation is that of Marchenko and Pastur (1967) and Silverstein (1995).
    """
    lam, noise = checked_variances(variances), as_doubles("squared_noise", squared_noise)
    usable = noise.ndim == 1 and bool((np.isfinite(noise) & (noise > 0)).all())
    require(usable, "squared_noise", noise.tolist(), "a list of positive, finite numbers")
    require(0 < rows < np.inf, "rows", rows, "positive and finite")
    kappa = noise + lam.sum() / rows
    for _ in range(_MOST_STEPS):
        shares = lam / (lam + kappa[:, None])
        excess = kappa - noise - kappa * shares.sum(axis=1) / rows
        slope = 1 - (shares**2).sum(axis=1) / rows
        step = np.where(slope > 0, excess / np.where(slope > 0, slope, 1.0), 0.0)
        moved = np.maximum(kappa - np.maximum(step, 0.0), noise)
        if bool((moved >= kappa * (1 - 4 * np.finfo(np.float64).eps)).all()):
            return moved
        kappa = moved
    return kappa


def checked_variances(variances: Num[ArrayLike, " m"]) -> Float64[np.ndarray, " m"]:
    """Eigenvalues of a covariance in float64; ``InputError`` unless one or more, finite and 0 or more."""
    lam = as_doubles("variances", variances)
    require(lam.ndim == 1 and lam.size > 0, "variances.shape", lam.shape, "(m,), m at least 1")
    smallest = float(lam.min())
    require(bool(np.isfinite(lam).all()) and smallest >= 0, "variances", smallest, "finite and 0 or more")
    return lam
