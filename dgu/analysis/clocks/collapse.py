"""The noise level below which the exact denoiser of n training images collapses onto one of them."""

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float64, Num

from dgu.core.arrays import as_doubles
from dgu.core.errors import require, require_whole
from dgu.core.noisy import checked_images


def collapse_level(variances: Num[ArrayLike, " m"], images: int) -> float:
    """s_C, the solution of ``sum_i log(1 + lam_i / s_C^2) = 2 log n``.

    Half of the left side is the information in nats that an image of a Gaussian of these variances keeps in noise of
    level ``s_C``; below it that tells n images apart, and the multi-delta denoiser, whose log partition function is
    that of a random energy model, condenses onto one: the source point has about half of the weight at ``s_C``.

    Args:
        variances: lam, the eigenvalues of the covariance (``covariance_spectrum``), 0 or more; those of an image set
            with fewer images than pixels are too uneven, and ``s_C`` then too low.
        images: n, 2 or more.

    Raises:
        InputError: values out of range, or no variance above 0.

    Biroli, Bonnaire, de Bortoli and Mezard, arXiv 2402.18491.
    """
    lam = as_doubles("variances", variances)
    usable = lam.ndim == 1 and lam.size > 0 and bool((np.isfinite(lam) & (lam >= 0)).all()) and float(lam.max()) > 0
    require(usable, "variances", lam.tolist(), "a list of finite numbers, 0 or more and not all 0")
    require_whole("images", images, 2)
    return float(_levels(lam[None], float(images))[0])


def collapse_map(images: Num[ArrayLike, "n h w c"], window: int) -> Float64[np.ndarray, "h w"]:
    """``collapse_level`` of the window around each pixel: where in the image do patches repeat those of training first?

    A local denoiser (``dgu.models.LocalDenoiser``) of this window collapses pixel by pixel, each at a level of its own.

    Args:
        images: n training images, 2 or more; the covariance of each window is theirs.
        window: side of the square window, odd; where it leaves the image it holds fewer pixels.

    Returns:
        ``s_C`` of each pixel; 0 where the window is the same in all images.

    Raises:
        InputError: a window that is even, or larger than the images.

    arXiv 2606.14390, the local version.
    """
    rows = checked_images(images, 2).astype(np.float64)
    require(rows.ndim == 4, "images.shape", rows.shape, "(n, h, w, c)")
    n, height, width, _ = rows.shape
    require_whole("window", window, 1, min(height, width))
    require(window % 2 == 1, "window", window, "odd")
    centred, reach = rows - rows.mean(0), int(window) // 2
    levels = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            patch = centred[:, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].reshape(n, -1)
            gram = patch.T @ patch if patch.shape[1] <= n else patch @ patch.T
            lam = np.maximum(np.linalg.eigvalsh(gram) / n, 0)
            if lam[-1] > 0:
                levels[y, x] = _levels(lam[None], float(n))[0]
    return levels


def _levels(lam: Float64[np.ndarray, "k m"], count: float) -> Float64[np.ndarray, " k"]:
    """The solution for each row of eigenvalues, by bisection of ``log s^2``."""
    wanted = 2 * np.log(count)
    low = np.log(lam.max(axis=1)) - 2 * np.log(count)  # One eigenvalue alone has more than the information there,
    high = np.log(lam.sum(axis=1) / wanted)  # and log(1 + x) <= x has less.
    for _ in range(100):
        middle = (low + high) / 2
        more = np.log1p(lam / np.exp(middle)[:, None]).sum(axis=1) > wanted
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.exp((low + high) / 4)
