"""Gains of a Gaussian denoiser that is fitted to N images: their mean, their spread over sets of images, and its loss.

The fitted denoiser is ``D(x, s) = m + W (x - m)``, ``W = C (C + s^2)^{-1}``, with the mean m and the covariance C of N
images. With ``n = N - 1`` and kappa the ``effective_noise`` of n rows, ``G = (S + kappa)^{-1}``,

    E W                ~ S G                                                                          (first order)
    Cov(W_ij, W_kl)    ~ kappa^2 / (n - df2) (c_i c_j) (delta_ik delta_jl + delta_il delta_jk)        (second order)

in the eigenvectors of the true covariance S, with ``c_i = lam_i / (lam_i + kappa)^2`` and ``df2 = sum_i lam_i^2 /
(lam_i + kappa)^2``.
"""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64, Num

from dgu.analysis.finite_samples.effective_noise import checked_variances, effective_noise
from dgu.core.arrays import as_doubles
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole


@short_repr
@dataclass(frozen=True, eq=False)
class FittedGains:
    """Predicted gains of the modes of the true covariance, m modes at each of some noise levels.

    Attributes:
        kappa: the effective squared noise, ``(levels,)``.
        mean: the expectation over sets of images of ``u_i^T W u_i``, ``(levels, m)``: what the fitted denoiser gives
            back of mode i of its input.
        spread: its standard deviation over sets of images, ``(levels, m)``.
        leak: the standard deviation of one entry ``u_i^T W u_j``, i and j different, is ``leak_i leak_j``:
            ``(levels, m)``. Its mean is 0.
    """

    kappa: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    leak: np.ndarray


def fitted_gains(
    variances: Num[ArrayLike, " m"], sigmas: Num[ArrayLike, " levels"], images: int, ddof: int = 0
) -> FittedGains:
    """Mean and spread of the gains of ``GaussianDenoiser.fit(images, ddof)``, from the true spectrum alone.

    ``mean_i = lam_i / (lam_i + kappa)`` and ``spread_i = sqrt(2 / (n - df2)) kappa lam_i / (lam_i + kappa)^2`` as
    above; a covariance that is divided by ``N - ddof`` in place of ``N - 1`` acts as one at the noise ``s^2 (N - ddof)
    / (N - 1)``.

    Args:
        variances: lam, eigenvalues of the true covariance.
        sigmas: noise levels, positive.
        images: N, 2 or more.
        ddof: 0 or 1, as given to the fit.

    Raises:
        InputError: values out of range.

    arXiv 2602.02908; the spread of quadratic forms with the term of Gaussian rows that
    matters for single modes. Exact as N and d grow together; within .003 at d = 200, N = 301.
    """
    lam, ridge, n = _setting(variances, sigmas, images, ddof)
    kappa = effective_noise(lam, ridge, n)
    shares = lam / (lam + kappa[:, None])
    freedom = n - (shares**2).sum(axis=1, keepdims=True)
    fluctuation = kappa[:, None] * shares / (lam + kappa[:, None])
    return FittedGains(kappa, shares, np.sqrt(2 / freedom) * fluctuation, np.sqrt(fluctuation) / freedom ** (1 / 4))


def fitted_loss(
    variances: Num[ArrayLike, " m"], sigmas: Num[ArrayLike, " levels"], images: int, ddof: int = 0
) -> Float64[np.ndarray, " levels"]:
    """Expected test loss ``E |D(x0 + s eps, s) - x0|^2`` of ``GaussianDenoiser.fit``, summed over pixels.

    With ``R = 1 - W``, the fitted denoiser on new data of covariance S, whatever their distribution, has the loss

        (1 + 1/N) tr(R S R) + s^2 tr W^2,
        E tr(R S R) ~ kappa^2 tr(S G^2) n / (n - df2),     E tr W^2 ~ df2 + kappa^2 (tr S G^2)^2 / (n - df2);

    the 1/N is that of the fitted mean. As N grows it falls to the least, ``sum_i lam_i s^2 / (lam_i + s^2)``.

    Args:
        variances, sigmas, images, ddof: as of ``fitted_gains``.

    Raises:
        InputError: values out of range.

    arXiv 2602.02908.
    """
    lam, ridge, n = _setting(variances, sigmas, images, ddof)
    squared_noise = as_doubles("sigmas", sigmas) ** 2
    kappa = effective_noise(lam, ridge, n)
    shares = lam / (lam + kappa[:, None])
    freedom = n - (shares**2).sum(axis=1)
    tilted = (kappa[:, None] * shares / (lam + kappa[:, None])).sum(axis=1)  # kappa tr S G^2
    signal = kappa * tilted * n / freedom
    noise = (shares**2).sum(axis=1) + tilted**2 / freedom
    return (1 + 1 / images) * signal + squared_noise * noise


def _setting(
    variances: Num[ArrayLike, " m"], sigmas: Num[ArrayLike, " levels"], images: int, ddof: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Eigenvalues, squared noise beside a covariance divided by ``N - 1``, and ``N - 1``."""
    require_whole("images", images, 2)
    require_whole("ddof", ddof, 0, 1)
    levels = as_doubles("sigmas", sigmas)
    usable = levels.ndim == 1 and bool((np.isfinite(levels) & (levels > 0)).all())
    require(usable, "sigmas", levels.tolist(), "a list of positive, finite levels")
    return checked_variances(variances), levels**2 * (images - ddof) / (images - 1), int(images) - 1
