"""Images that fitted Gaussian denoisers make: how two of them, fitted to disjoint sets, differ from the same noise.

From the noise ``T z`` the probability-flow ODE of a Gaussian with mean m and covariance C gives

    x = (1 - A / T) m + A z,    A = T C^{1/2} (C + T^2)^{-1/2}.

The square root is a mean of resolvents, whose expectations ``effective_noise`` gives,

    E A ~ (2 T / pi) int_0^{pi/2} S (S + kappa(T^2 sin^2 a))^{-1} da,    E A^2 = T^2 E C (C + T^2)^{-1},

and for two independent fits ``E |A - A'|^2 = 2 sum_i (E A^2 - (E A)^2)_i``.
"""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.finite_samples.effective_noise import checked_variances, effective_noise
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole

#: Ends and number of points of the integral over u, ``tan a = e^u``, whose integrand falls as ``e^-|u|``.
_REACH, _POINTS = 36.0, 721


@short_repr
@dataclass(frozen=True, eq=False)
class FittedSampling:
    """Predicted sampling by Gaussian denoisers that are fitted to N images each, by mode of the true covariance.

    Attributes:
        mean: E A of each mode, ``(m,)``: the factor from the unit noise z to the image. That of the true covariance
            is ``T sqrt(lam / (lam + T^2))``.
        variance: what a set of N images and the noise together give to each mode of an image, ``(m,)``.
        distance: expected squared distance, in each mode, of the images that two fits make from the same noise,
            ``(m,)``.
        null: the same from different noise, ``(m,)``.
    """

    mean: np.ndarray
    variance: np.ndarray
    distance: np.ndarray
    null: np.ndarray

    @property
    def ratio(self) -> float:
        """Root of the summed ``distance`` over that of ``null``: 0 for fits to the same infinite data, 1 for images
        that do not depend on the noise that the two share. ``SameNoise.ratio`` is its estimate from samples.
        """
        return float(np.sqrt(self.distance.sum() / self.null.sum()))


def fitted_sampling(
    variances: Num[ArrayLike, " m"], images: int, *, sigma_max: float | int = 80.0, ddof: int = 0
) -> FittedSampling:
    """Expected distances between the images of two Gaussian denoisers that are fitted to disjoint sets of N images.

    ``distance_i = 2 (E A^2 - (E A)^2)_i + 2 lam_i (1 - 2 E A_i / T + E A^2_i / T^2) / N``, the second term from the
    fitted means, and ``null_i = 2 (E A^2)_i +`` the same term. The noise is averaged over. What the true mean adds is
    of the order of ``|mean|^2 lam / (N T^2)`` and left out.

    Args:
        variances: eigenvalues of the true covariance, all d of them or those above 0.
        images: N, the images of each fit, 2 or more.
        sigma_max: T, the noise level that sampling begins at; the ODE is solved exactly.
        ddof: 0 or 1, as given to ``GaussianDenoiser.fit``.

    Raises:
        InputError: values out of range.

    After arXiv 2602.02908.
    """
    lam = checked_variances(variances)
    require_whole("images", images, 2)
    require_whole("ddof", ddof, 0, 1)
    require(0 < sigma_max < np.inf, "sigma_max", sigma_max, "positive and finite")
    top, n = float(sigma_max), int(images) - 1
    scale = (images - ddof) / n
    u = np.linspace(-_REACH, _REACH, _POINTS)
    weights = (u[1] - u[0]) / (2 * np.cosh(u))
    kappa = effective_noise(lam, scale * top**2 / (1 + np.exp(-2 * u)), n)
    mean = 2 * top / np.pi * (weights @ (lam / (lam + kappa[:, None])))
    square = top**2 * lam / (lam + effective_noise(lam, np.array([scale * top**2]), n))
    of_means = lam * (1 - 2 * mean / top + square / top**2) / images
    return FittedSampling(mean, square + of_means, 2 * (square - mean**2 + of_means), 2 * (square + of_means))
