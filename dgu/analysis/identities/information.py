"""Information and entropy from denoising losses alone (I-MMSE)."""

import numpy as np
import scipy
from jax.typing import ArrayLike
from jaxtyping import Float64, Num

from dgu.core.arrays import as_doubles
from dgu.core.errors import require, require_whole


def mutual_information(
    sigmas: Num[ArrayLike, " levels"], losses: Num[ArrayLike, " levels"]
) -> Float64[np.ndarray, " levels"]:
    """``I(x0; x0 + sigma eps)`` in nats at each level, from the losses of a denoiser at all higher ones.

        I(x0; x_s) = 1/2 int mmse d(1 / s^2) = int_s^inf loss(t) dt / t,    loss(t) = E |x0 - D(x0 + t eps, t)|^2 / t^2

    with the exact posterior mean; any other denoiser has larger losses, and what comes out is then an upper bound. The
    integral is that of a cubic spline in ``log t``, and beyond the last level, where the loss falls as ``1 / t^2``,
    half of the last loss: that level should be well above the data's own scale. As ``sigma`` goes to 0 the information
    goes to the entropy of data of finitely many values: ``log n`` for n training points.

    Args:
        sigmas: rising, positive; four or more, a few for each factor of 2.
        losses: mean of ``level_losses`` over examples: summed over pixels, in units of the noise.

    Raises:
        InputError: levels that do not rise, or losses that are negative or do not fit them.

    Guo, Shamai and Verdu (2005).
    """
    levels, loss = as_doubles("sigmas", sigmas), as_doubles("losses", losses)
    rising = levels.ndim == 1 and len(levels) >= 4 and bool((levels > 0).all() and (np.diff(levels) > 0).all())
    require(rising, "sigmas", levels.tolist(), "four or more, positive and rising")
    require(loss.shape == levels.shape, "losses.shape", loss.shape, f"{levels.shape}")
    require(bool((np.isfinite(loss) & (loss >= 0)).all()), "losses", loss.tolist(), "finite and 0 or more")
    places = np.log(levels)
    whole = scipy.interpolate.CubicSpline(places, loss).antiderivative()
    return whole(places[-1]) - whole(places) + loss[-1] / 2


def noisy_entropy(
    sigmas: Num[ArrayLike, " levels"], losses: Num[ArrayLike, " levels"], dimension: int
) -> Float64[np.ndarray, " levels"]:
    """``h(x0 + sigma eps) = I(x0; x0 + sigma eps) + d/2 log(2 pi e sigma^2)`` in nats at each level.

    It is the mean of ``-log p(x; sigma)`` over noisy data, exact with the posterior mean. With the losses of a network
    it is an upper bound of the entropy, and in its place the negative log likelihood that those losses stand for: at
    the smallest level the figure to compare with ``log_likelihood``, from losses alone.

    Args:
        sigmas, losses: as of ``mutual_information``.
        dimension: d, numbers in an example.

    Raises:
        InputError: as ``mutual_information``, or a dimension below 1.

    Guo, Shamai and Verdu (2005).
    """
    require_whole("dimension", dimension)
    of_noise = int(dimension) / 2 * np.log(2 * np.pi * np.e * as_doubles("sigmas", sigmas) ** 2)
    return mutual_information(sigmas, losses) + of_noise
