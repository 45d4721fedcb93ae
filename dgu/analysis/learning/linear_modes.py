"""Principal components of a linear denoiser along gradient flow on the denoising loss, one noise level at a time.

In the eigenvectors of the covariance the loss ``E |W x - x0|^2`` of one level separates, and the gain of a mode of
variance lam follows ``dg / dtau = -2 ((lam + s^2) g - lam)``. Large variances are learned first, in a time of ``1 /
lam``. For a finite training set lam are the eigenvalues of *its* covariance, and what is measured on new data takes the
true ones beside these gains.
"""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64, Num

from dgu.core.arrays import as_doubles
from dgu.core.errors import require

#: Nodes of the integral over the logarithm of the noise level.
_NODES = 400


def flow_gains(
    variances: Num[ArrayLike, " m"],
    sigmas: Num[ArrayLike, " levels"],
    times: Num[ArrayLike, " k"],
    start: float | int = 0,
) -> Float64[np.ndarray, "k levels m"]:
    """``g(tau) = lam / (lam + s^2) (1 - e^{-2 tau (lam + s^2)}) + g(0) e^{-2 tau (lam + s^2)}`` of each mode and level.

    Args:
        variances: lam, 0 or more.
        sigmas: noise levels s, 0 or more.
        times: tau, learning rate times number of steps, 0 or more.
        start: g(0), the same for all.

    Raises:
        InputError: values out of range.

    arXiv 2503.03206.
    """
    (lam, taus), levels = _checked(variances, times), as_doubles("sigmas", sigmas)
    sound = levels.ndim == 1 and bool((np.isfinite(levels) & (levels >= 0)).all())
    require(sound, "sigmas", levels.tolist(), "a list of finite numbers, 0 or more")
    require(np.isfinite(start), "start", start, "finite")
    total = lam + levels[:, None] ** 2
    rate = np.where(total > 0, total, 1.0)
    decay = np.where(total > 0, np.exp(-2 * taus[:, None, None] * rate), 1.0)
    return lam / rate * (1 - decay) + float(start) * decay


def flow_variances(
    variances: Num[ArrayLike, " m"],
    times: Num[ArrayLike, " k"],
    *,
    start: float | int = 0,
    sigma_min: float | int = 0.002,
    sigma_max: float | int = 80.0,
) -> Float64[np.ndarray, "k m"]:
    """Variance of each mode of the images that the denoiser of ``flow_gains`` makes, by the probability-flow ODE.

    From ``T = sigma_max`` to ``e = sigma_min`` a coordinate is multiplied by ``exp(-int_e^T (1 - g(s)) ds / s)``, so

        variance = T^2 (lam + e^2) / (lam + T^2) exp(-2 int_e^T (lam / v - g(0)) e^{-2 tau v} ds / s),    v = lam + s^2

    where the first factor is that of a mode that is learned, ``lam + e^2`` up to ``lam / T^2``.

    Args:
        variances, times, start: as of ``flow_gains``.
        sigma_min, sigma_max: the levels between which the ODE is solved, exactly but for a quadrature in ``log s``.

    Raises:
        InputError: values out of range.

    arXiv 2503.03206.
    """
    lam, taus = _checked(variances, times)
    require(np.isfinite(start), "start", start, "finite")
    require(0 < sigma_min < sigma_max < np.inf, "sigma_min", sigma_min, f"positive and below {sigma_max!r}")
    low, high = np.log(float(sigma_min)), np.log(float(sigma_max))
    places, weights = np.polynomial.legendre.leggauss(_NODES)
    square = np.exp(2 * (low + (high - low) * (places + 1) / 2))[:, None]
    total = lam + square
    left = (lam / total - float(start)) * np.exp(-2 * taus[:, None, None] * total)
    missing = np.einsum("q,kqm->km", weights * (high - low) / 2, left)
    top, end = float(sigma_max) ** 2, float(sigma_min) ** 2
    return top * (lam + end) / (lam + top) * np.exp(-2 * missing)


def learning_times(
    variances: Num[ArrayLike, " m"],
    *,
    share: float | int = 0.5,
    sigma_min: float | int = 0.002,
    sigma_max: float | int = 80.0,
) -> Float64[np.ndarray, " m"]:
    """The time tau after which each mode's variance in the images made is ``share`` of what it ends with, from g(0) =
    0.

    It goes as ``1 / lam`` for variances far between the squares of the two levels: that the eigenvectors of large
    variance are learned first is the order to look for in a trained network.

    Args:
        variances: lam, positive.
        share: strictly between 0 and 1; a mode that begins above it has time 0.
        sigma_min, sigma_max: as of ``flow_variances``.

    Raises:
        InputError: values out of range.

    arXiv 2503.03206.
    """
    lam, _ = _checked(variances, np.zeros(1))
    require(bool((lam > 0).all()), "variances", float(lam.min()), "positive")
    require(0 < share < 1, "share", share, "strictly between 0 and 1")
    found = np.empty(len(lam))
    for place, each in enumerate(lam):
        mode = np.array([each])

        def reached(tau: float, mode: np.ndarray = mode) -> float:
            made = flow_variances(mode, np.array([tau, np.inf]), sigma_min=sigma_min, sigma_max=sigma_max)[:, 0]
            return float(made[0] / made[1])

        # Whatever the level, after 20 / lam nothing is left that is not learned.
        low, high = np.log(1e-12 / each), np.log(20 / each)
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if reached(np.exp(middle)) >= share else (middle, high)
        found[place] = 0.0 if reached(0.0) >= share else np.exp((low + high) / 2)
    return found


def _checked(variances: Num[ArrayLike, " m"], times: Num[ArrayLike, " k"]) -> tuple[np.ndarray, np.ndarray]:
    lam, taus = as_doubles("variances", variances), as_doubles("times", times)
    for name, values, finite in (("variances", lam, np.isfinite(lam)), ("times", taus, ~np.isnan(taus))):
        sound = values.ndim == 1 and values.size > 0 and bool((finite & (values >= 0)).all())
        require(sound, name, values.tolist(), "a list of one or more numbers, 0 or more")
    return lam, taus
