"""The denoising loss at each noise level, summed over pixels in units of the noise, and that of the best linear
denoiser.

    loss(sigma) = E |D(x + sigma eps; sigma) - x|^2 / sigma^2

is what the score-matching loss with ``lambda = std^2`` is at that level: ``E |std score + eps|^2`` (Li et al., arXiv
2311.01797, equation 5). For data of covariance C with eigenvalues ``lam`` the best affine denoiser has ``sum lam / (lam
+ sigma^2)``, and if the data are Gaussian no denoiser has a smaller loss.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.quality.membership import denoising_loss
from dgu.core.arrays import as_doubles
from dgu.core.denoisers import as_pytree
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Key


def level_losses(
    denoiser: Denoiser,
    images: Num[ArrayLike, " n *event"],
    key: Key,
    *,
    sigmas: Sequence[float] | Num[np.ndarray, " levels"],
    draws: int = 2,
    batch_size: int = 256,
    progress: Callable[[int, int], object] | None = None,
) -> Float[np.ndarray, "n levels"]:
    """``|D(x + sigma eps; sigma) - x|^2 / sigma^2`` of each image at each level, averaged over draws of eps.

    The mean over images estimates the loss; its standard error is that of the images, which are independent draws of
    the data.

    Args:
        denoiser: ``denoiser(x, sigma)`` on one image.
        images: ``(n, *event)``; to measure generalisation, images that the denoiser was not trained on.
        key: key of the noise.
        sigmas: noise levels, positive.
        draws, batch_size, progress: see ``denoising_loss``.

    Raises:
        InputError: as ``denoising_loss``.
    """
    key = threefry(key)
    levels = as_doubles("sigmas", sigmas).tolist()
    means = denoising_loss(
        as_pytree(denoiser), images, key, sigmas=levels, draws=draws, batch_size=batch_size, progress=progress
    )
    return means * (np.prod(np.shape(images)[1:]) / np.square(levels))


def linear_level_loss(
    covariance: Num[ArrayLike, "d d"], sigmas: Sequence[float] | Num[np.ndarray, " levels"]
) -> Float[np.ndarray, " levels"]:
    """``sum lam / (lam + sigma^2)`` over the eigenvalues of the covariance, for each level.

    Raises:
        InputError: levels that are not positive, or a covariance with an eigenvalue below ``-1e-6`` of the largest.
    """
    levels = as_doubles("sigmas", sigmas)
    require(levels.size > 0 and bool((levels > 0).all()), "sigmas", levels.tolist(), "one or more positive levels")
    variances = np.linalg.eigvalsh(as_doubles("covariance", covariance))
    least = float(variances[0])
    require(
        least >= -1e-6 * abs(variances).max(),
        "covariance",
        f"smallest eigenvalue {least:.6g}",
        "positive semi-definite",
    )
    variances = np.maximum(variances, 0)[:, None]
    return (variances / (variances + np.square(levels))).sum(axis=0)
