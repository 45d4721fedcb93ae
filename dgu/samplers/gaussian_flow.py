"""The probability-flow ODE of a Gaussian, solved exactly: states and denoised images at any noise level."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.denoisers import check_range
from dgu.core.errors import require
from dgu.core.typing import Scalar
from dgu.models.closed_form import GaussianDenoiser
from dgu.samplers.schedules import is_concrete

_HIGHEST = jax.lax.Precision.HIGHEST


def gaussian_flow(
    gaussian: GaussianDenoiser, x: Num[ArrayLike, "*event"], sigma: Scalar, sigmas: Num[ArrayLike, " levels"]
) -> tuple[Float[Array, " levels *event"], Float[Array, " levels *event"]]:
    """Where ``dx / dsigma = (x - D(x, sigma)) / sigma`` takes one example, and what the denoiser says there.

    With D the posterior mean of ``N(mean, U diag(lam) U^T)`` and ``x`` at level ``sigma``, the state at level s is

        x_s = mean + sum_i sqrt((s^2 + lam_i) / (sigma^2 + lam_i)) u_i u_i^T (x - mean)
        D(x_s, s) = mean + sum_i lam_i / sqrt((s^2 + lam_i) (sigma^2 + lam_i)) u_i u_i^T (x - mean)

    where directions outside the basis have lam = 0: they shrink by ``s / sigma``, and the denoiser gives the mean
    there. Levels may be 0, and above ``sigma``: the flow runs both ways. Pure; map it with ``jax.vmap``.

    Args:
        gaussian: mean, basis and variances.
        x: one state, at level ``sigma``.
        sigma: level of ``x``, positive.
        sigmas: levels asked for, 0 or more.

    Returns:
        States and denoised images, in the dtype of ``x``.

    Raises:
        InputError: another shape than the mean's, or a constant level out of range.

    Li et al., arXiv 2410.24060, (7).
    """
    x = as_jax_floats("x", x)
    require(x.shape == np.shape(gaussian.mean), "x.shape", x.shape, f"that of the mean, {np.shape(gaussian.mean)}")
    if is_concrete(sigma):
        require(bool(np.asarray(sigma) > 0), "sigma", sigma, "positive")
    check_range(gaussian, "sigmas", sigmas)
    mean, basis, variances = (
        jnp.asarray(leaf, x.dtype) for leaf in (gaussian.mean, gaussian.basis, gaussian.variances)
    )
    start, levels = jnp.asarray(sigma, x.dtype), as_jax_floats("sigmas", sigmas).astype(x.dtype)
    centred = (x - mean).ravel()
    modes = jnp.dot(centred, basis, precision=_HIGHEST)
    rest = centred - jnp.dot(basis, modes, precision=_HIGHEST)
    now = jnp.sqrt(jnp.square(levels)[:, None] + variances[None])
    before = jnp.sqrt(jnp.square(start) + variances)[None]
    # lam / now at now = 0: the direction has no variance, and its denoised coordinate is 0.
    shrunk = variances[None] / jnp.where(now > 0, now, jnp.ones_like(now))
    moved = jnp.matmul(now / before * modes[None], basis.T, precision=_HIGHEST)
    outside = (levels / start)[:, None] * rest[None]
    denoised = jnp.matmul(shrunk / before * modes[None], basis.T, precision=_HIGHEST)
    shape = (levels.shape[0], *x.shape)
    return (moved + outside).reshape(shape) + mean[None], denoised.reshape(shape) + mean[None]
