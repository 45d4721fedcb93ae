"""What guidance does to Gaussians, exactly: the distribution at the flow's end, and the one that it is taken for."""

import math
from typing import Any

import numpy as np
import scipy
from jaxtyping import Float64

from dgu.core.errors import InputError, require
from dgu.models.closed_form import GaussianDenoiser

#: Nodes of the integral for the mean: its integrand is a power of a number between the ratio of two variances and 1.
_NODES = 400


def guided_gaussian(
    main: GaussianDenoiser, guide: GaussianDenoiser, weight: float, sigma_max: float = 80.0
) -> GaussianDenoiser:
    """The distribution of samples of ``Guided(main, guide, weight)`` by the exact flow from ``N(0, sigma_max^2 I)``.

    Where both covariances have the same eigenvectors, with variances ``a`` of main and ``b`` of the guide along one,
    the guided flow ``dx / dsigma = (x - D(x; sigma)) / sigma`` is linear along each, and ends in a Gaussian with

        variance = a^w b^(1 - w) / ((1 + a / s^2)^w (1 + b / s^2)^(1 - w)),        s = sigma_max
        mean     = m_b - G m_b + w (m_a - m_b) a^(w/2) b^((1-w)/2) int (1 + (b - a) r^2)^((w-1)/2) dr

    where G is the square root of the variance over s, and r runs from ``(a + s^2)^(-1/2)`` to ``a^(-1/2)``. With large
    s the variance is the geometric mean ``a^w b^(1 - w)``. The law ``p_main^w p_guide^(1 - w)``, which guided scores
    suggest, has the harmonic one, ``1 / (w / a + (1 - w) / b)`` (``product_gaussian``): the flow is its own only where
    a = b or w is 0 or 1.

    Args:
        main, guide: of one shape, both of full rank, with the same eigenvectors.
        weight: w.
        sigma_max: the noise level at which samples start.

    Raises:
        InputError: different shapes or eigenvectors, a variance of 0, a weight or level that is not finite.
    """
    require(math.isfinite(weight), "weight", weight, "a finite number")
    require(0 < sigma_max < math.inf, "sigma_max", sigma_max, "positive and finite")
    basis, (a, b), (first, second) = _together(main, guide)
    log_variance = weight * (np.log(a) - np.log1p(a / sigma_max**2))
    log_variance = log_variance + (1 - weight) * (np.log(b) - np.log1p(b / sigma_max**2))
    gain = np.exp(log_variance / 2) / sigma_max
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    low, high = 1 / np.sqrt(a + sigma_max**2), 1 / np.sqrt(a)
    r = (low + high)[:, None] / 2 + (high - low)[:, None] / 2 * nodes
    integral = (high - low) / 2 * ((1 + (b - a)[:, None] * r**2) ** ((weight - 1) / 2) @ weights)
    moved = weight * (first - second) * np.exp((weight * np.log(a) + (1 - weight) * np.log(b)) / 2) * integral
    return _gaussian(main, basis, (1 - gain) * second + moved, np.exp(log_variance))


def product_gaussian(main: GaussianDenoiser, guide: GaussianDenoiser, weight: float) -> GaussianDenoiser:
    """The law proportional to ``p_main^w p_guide^(1 - w)``: its precision along each axis is ``w / a + (1 - w) / b``.

    Raises:
        InputError: as of ``guided_gaussian``, or a precision that is not positive, where the product is no law.
    """
    require(math.isfinite(weight), "weight", weight, "a finite number")
    basis, (a, b), (first, second) = _together(main, guide)
    precision = weight / a + (1 - weight) / b
    require(bool((precision > 0).all()), "smallest precision of the product", float(precision.min()), "positive")
    return _gaussian(main, basis, (weight * first / a + (1 - weight) * second / b) / precision, 1 / precision)


def _together(
    main: GaussianDenoiser, guide: GaussianDenoiser
) -> tuple[Float64[np.ndarray, "d d"], tuple[Any, Any], tuple[Any, Any]]:
    """The common eigenvectors, and the variances and means of both along them."""
    shapes = [np.shape(each.mean) for each in (main, guide)]
    require(shapes[0] == shapes[1], "guide.shape", shapes[1], f"that of main, {shapes[0]}")
    means, matrices = [], []
    for name, each in (("main", main), ("guide", guide)):
        basis, variances = np.asarray(each.basis, np.float64), np.asarray(each.variances, np.float64)
        full = len(variances) == math.prod(shapes[0]) and float(variances.min()) > 0
        require(full, f"{name}.variances", f"{np.count_nonzero(variances)} above 0", f"{math.prod(shapes[0])}, all")
        matrices.append(basis * variances @ basis.T)
        means.append(np.asarray(each.mean, np.float64).ravel())
    # Those of a sum that splits equal variances of either are eigenvectors of both, if any are.
    scales = [np.trace(matrix) for matrix in matrices]
    _, basis = scipy.linalg.eigh(matrices[0] / scales[0] + matrices[1] / scales[1] / math.pi)
    turned = [basis.T @ matrix @ basis for matrix in matrices]
    for matrix in turned:
        off = float(np.abs(matrix - np.diag(np.diag(matrix))).max()) / float(np.diag(matrix).max())
        if off > 1e-6:
            raise InputError(
                f"guide: its covariance is {off:.2g} away from having the eigenvectors of main's; must be 0"
            )
    return basis, tuple(np.diag(matrix) for matrix in turned), tuple(basis.T @ mean for mean in means)  # type: ignore


def _gaussian(like: GaussianDenoiser, basis: Any, mean: Any, variances: Any) -> GaussianDenoiser:
    dtype = np.asarray(like.mean).dtype
    shape = np.shape(like.mean)
    return GaussianDenoiser(
        np.asarray((basis @ mean).reshape(shape), dtype), np.asarray(basis, dtype), np.asarray(variances, dtype)
    )
