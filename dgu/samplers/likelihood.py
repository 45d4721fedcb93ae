"""Log density of one example under the probability-flow ODE, and what it says in bits per dimension."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Shaped

from dgu.core.arrays import as_jax_floats
from dgu.core.denoisers import as_pytree, check_range, denoise
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Event, Key, Scalar
from dgu.data.scaling import PixelScale
from dgu.samplers.heun import as_state
from dgu.samplers.prior import check_prior
from dgu.samplers.schedules import is_concrete

Real = Scalar | int

#: Spread of the reference Gaussian whose flow is taken out of the ODE: affects the number of steps, not the answer.
_SPREAD = 0.5
#: Steps, refused ones included, after which an example is given up.
_MAX_STEPS = 4096


def log_likelihood(
    denoiser: Denoiser,
    x: Float[ArrayLike, "*event"],
    *,
    sigma_min: Real = 0.002,
    sigma_max: Real = 80.0,
    key: Key | None = None,
    probes: int | None = None,
    rtol: Real = 1e-5,
    atol: Real = 1e-5,
    block_size: int = 64,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """``log p(x)`` in nats, with p the density that the probability-flow ODE carries from the prior to ``sigma_min``.

        dx/dsigma = (x - D(x; sigma)) / sigma,      D the denoiser, d = x.size, J its Jacobian
        log p(x) = log N(x(sigma_max); 0, sigma_max^2 I) + int (d - tr J(x(sigma); sigma)) / sigma dsigma

    over ``sigma_min`` to ``sigma_max`` along the path from ``x(sigma_min) = x``. For an exact denoiser p is the density
    of data plus noise of level ``sigma_min``, up to the prior: what it stands in for has the data's mean and
    covariance, too. A ``dgu.errors.PriorMismatchWarning`` says where that makes more than .01 nats of difference on
    average (``prior_mismatch``, 164 more evaluations for a large example, at each call that is not compiled). An
    example that is not
    traced is looked at as well: where the denoiser places it far from 0 at ``sigma_max``, the density there is off by
    ``|D|^2 / (2 sigma_max^2)`` or so. Nothing is looked for, and nothing said, where the denoiser's arrays or
    ``sigma_max`` are traced, as when the denoiser is an argument of ``jax.jit``: call ``prior_mismatch`` outside then.

    How far off is that? With data of mean mu and covariance Sigma, eigenvalues lambda_i, x(sigma_max) is a draw of
    ``N(mu, s^2 I + Sigma)``, s = sigma_max, where the prior is ``N(0, s^2 I)``. With z_i the standardised coordinates
    of the example along the eigenvectors, and mu_i those of mu, the true log density is above the value found by

        1/2 sum_i [(mu_i^2 + 2 mu_i sqrt(s^2 + lambda_i) z_i + lambda_i z_i^2) / s^2 - log(1 + lambda_i / s^2)]

    exactly for Gaussian data. Its mean over examples is the divergence of the prior, ``(|mu|^2 / s^2 + tr Sigma / s^2 -
    log det(I + Sigma / s^2)) / 2``, its variance ``sum_i [mu_i^2 (s^2 + lambda_i) / s^4 + lambda_i^2 / (2 s^4)]``. So a
    single example is off by about ``|mu| / s``, in either direction, which is far more than the mean: .0125 to .025
    nats at sigma_max = 80 for means of length 1 to 2, where the mean is .0001 to .0003. No warning speaks of that; data
    that are centred first are free of it.

    Integrated by diffrax (Dopri8, adaptive) over ``log sigma`` in the frame of a reference Gaussian, ``x / sqrt(1/4 +
    sigma^2)``, where state and integrand vary little.

    Works under ``jax.jit``, ``jax.grad`` and ``jax.vmap``; under ``vmap`` each example takes its own steps.

    Args:
        denoiser: ``denoiser(x, sigma) -> E[x0 | x]`` for one example.
        x: the example, taken as the state at ``sigma_min``: no noise is added to it.
        sigma_min, sigma_max: range of noise levels, positive.
        key: of the probes.
        probes: number of Rademacher probes v, at least 2, that estimate the trace by the mean of ``v^T J v``, the same
            along the path; probe number i depends on ``(key, i)`` alone. None for the exact trace, d products ``J
            e_j``.
        rtol, atol: tolerances of each step, relative and absolute, for the whole state and the log density in nats. The
            defaults give 1e-4 nats for Gaussians of 192 dimensions, in float32 too.
        block_size: products ``J v`` made at a time; memory grows with it.

    Returns:
        Nats, and the standard error over probes: 0 for the exact trace. Both scalars of the dtype of ``x``,
            float32 where that is shorter, in which all is computed. Both are NaN
        if a value was not finite or the tolerances took more than 4096 steps.

    Raises:
        InputError: a range, a tolerance, a number of probes or a block size out of range; ``key`` without ``probes`` or
            the reverse.

    Song et al. 2021 (score SDE), section 4.3; EDM, equation 1; Grathwohl et al. 2019 (FFJORD) for the probes.
    """
    key = None if key is None else threefry(key)
    x = as_jax_floats("x", as_state("x", x))
    require((key is None) == (probes is None), "probes", probes, "given together with key, for an estimated trace")
    if probes is not None:
        require_whole("probes", probes, 2)
    require_whole("block_size", block_size)
    for name, value in (("rtol", rtol), ("atol", atol), ("sigma_max", sigma_max)):
        require(not is_concrete(value) or _between(0, value, math.inf), name, value, "positive and finite")
    if is_concrete((sigma_min, sigma_max)):
        allowed = f"positive and below sigma_max = {sigma_max!r}"
        require(_between(0, sigma_min, sigma_max), "sigma_min", sigma_min, allowed)
        check_range(denoiser, "sigma_min", sigma_min)
        check_range(denoiser, "sigma_max", sigma_max)
    check_prior(denoiser, x, sigma_max, "log_likelihood")
    numbers = tuple(jnp.asarray(value, x.dtype) for value in (sigma_min, sigma_max, rtol, atol))
    return _integrate(as_pytree(denoiser), x, *numbers, key, probes=probes, block_size=int(block_size))


def log_likelihoods(
    denoiser: Denoiser,
    examples: Float[ArrayLike, " n *event"],
    key: Key,
    *,
    sigma_min: Real = 0.002,
    sigma_max: Real = 80.0,
    probes: int,
    rtol: Real = 1e-5,
    atol: Real = 1e-5,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """``log_likelihood`` of each example with the estimated trace, all in one compiled program.

    The probes of example i depend on ``(key, i)`` alone. The program runs where its arrays are, and the call returns
    before it has ended: several devices work at once if each is given its own ``examples`` and ``denoiser``. Nothing is
    said of the prior's mismatch (see ``prior_mismatch``).

    Args:
        denoiser, sigma_min, sigma_max, probes, rtol, atol: as of ``log_likelihood``.
        examples: the examples.
        key: of the probes.

    Returns:
        Nats, and their standard errors over probes.

    Raises:
        InputError: as ``log_likelihood``.
    """
    key = threefry(key)
    x = as_jax_floats("examples", examples)
    require(x.ndim >= 1 and len(x) >= 1, "examples.shape", x.shape, "(n, *event), n at least 1")
    require_whole("probes", probes, 2)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(len(x)))
    return _each(as_pytree(denoiser), x, keys, (sigma_min, sigma_max), (rtol, atol), probes=int(probes))


@functools.partial(jax.jit, static_argnames="probes")
def _each(denoiser: Any, x: Array, keys: Array, sigmas: Any, tolerances: Any, *, probes: int) -> tuple[Array, Array]:
    (low, high), (rtol, atol) = sigmas, tolerances

    def one(x: Array, key: Key) -> tuple[Array, Array]:
        return log_likelihood(denoiser, x, sigma_min=low, sigma_max=high, key=key, probes=probes, rtol=rtol, atol=atol)

    return jax.vmap(one)(x, keys)


def _between(low: Any, value: Any, high: Any) -> bool:
    return bool(low < value) and bool(value < high)


@functools.partial(jax.jit, static_argnames=("probes", "block_size"))
def _integrate(
    denoiser: Denoiser,
    x: Event,
    sigma_min: Float[Array, ""],
    sigma_max: Float[Array, ""],
    rtol: Float[Array, ""],
    atol: Float[Array, ""],
    key: Key | None,
    *,
    probes: int | None,
    block_size: int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    d = x.size
    weights = None if key is None else _rademacher(key, probes or 0, x)

    def field(log_sigma: Any, state: tuple[Any, ...], args: Any) -> tuple[Any, ...]:
        """Slopes of ``z = x / c`` and of the traces' integral, ``c = sqrt(spread^2 + sigma^2)``, by log sigma.

        The flow of N(0, spread^2 I) leaves z as it is and has the trace ``d spread^2 / c^2``: both are subtracted.
        """
        denoiser, weights = args
        z, _ = state
        sigma = jnp.exp(log_sigma)
        c = jnp.sqrt(_SPREAD**2 + sigma**2)
        gain = (_SPREAD / c) ** 2
        denoised, push = jax.linearize(lambda x: denoise(denoiser, x, sigma), c * z)
        excess = (
            _exact_excess(push, z, gain, block_size) if weights is None else _excess(push, weights, gain, block_size)
        )
        return gain * z - denoised / c, excess

    def norm(error: tuple[Any, ...]) -> Array:
        """The larger of the state's error in length and the log density's.

        Nats err by the sum over entries of the state: its mean square would let them drift by d times the tolerance.
        """
        state, nats = (jnp.square(part) for part in error)
        return jnp.sqrt(jnp.maximum(jnp.sum(state), jnp.mean(nats)))

    low, high = jnp.log(sigma_min), jnp.log(sigma_max)
    import diffrax  # It takes a second to load, which everything that imports this module would wait for.

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Dopri8(),
        low,
        high,
        None,
        (x / jnp.sqrt(_SPREAD**2 + sigma_min**2), jnp.zeros(() if probes is None else (probes,), x.dtype)),
        args=(denoiser, weights),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol, norm=norm),
        max_steps=_MAX_STEPS,
        throw=False,
    )
    z, integral = (part[0] for part in solution.ys)
    # log p(x) = log p(z) - d log c(sigma_min), and the prior of x(sigma_max) = c(sigma_max) z.
    spread = jnp.log1p((_SPREAD / sigma_max) ** 2) / 2 - jnp.log(_SPREAD**2 + sigma_min**2) / 2
    inside = (1 + (_SPREAD / sigma_max) ** 2) * jnp.vdot(z, z, precision=jax.lax.Precision.HIGHEST)
    nats = d * (spread - math.log(2 * math.pi) / 2) - inside / 2 + jnp.mean(integral)
    error = jnp.zeros_like(nats) if probes is None else jnp.std(integral, ddof=1) / math.sqrt(probes)
    done = (solution.result == diffrax.RESULTS.successful) & jnp.isfinite(nats)
    nats, error = (jnp.where(done, value, jnp.full_like(value, jnp.nan)) for value in (nats, error))
    return nats, error


def _rademacher(key: Key, probes: int, x: Event) -> Float[Array, " probes *event"]:
    """Signs, each probe's from its own address."""
    return jax.vmap(lambda i: jax.random.rademacher(jax.random.fold_in(key, i), x.shape, x.dtype))(jnp.arange(probes))


def _excess(push: Any, weights: Array, gain: Array, block_size: int) -> Float[Array, " probes"]:
    """``gain |v|^2 - v^T J v`` for each probe, ``block_size`` at a time."""
    return jax.lax.map(lambda v: jnp.sum(v * (gain * v - push(v))), weights, batch_size=block_size)


def _exact_excess(push: Any, z: Event, gain: Array, block_size: int) -> Float[Array, ""]:
    """``sum_j (gain - J_jj)``: terms of either sign are summed as they come, not two large traces subtracted."""

    def diagonal(j: Array) -> Array:
        basis = (jnp.arange(z.size) == j).astype(z.dtype).reshape(z.shape)
        return gain - push(basis).ravel()[j]

    return jnp.sum(jax.lax.map(diagonal, jnp.arange(z.size), batch_size=block_size))


def dequantize(images: Shaped[ArrayLike, "*shape"], key: Key, *, levels: int = 256) -> Float[Array, "*shape"]:
    """Uniform dequantisation: each pixel moved to a uniform place in its level's cell.

    With ``levels`` L, level k stands at ``2 k / (L - 1) - 1``, from -1 to 1, in the middle of a cell of width
    ``2 / (L - 1)``: images as networks of this library see them, and a shift that leaves their mean.

    Args:
        images: levels as integers (uint8), or floats in [-1, 1], taken to the nearest level first.
        key: of the shifts.
        levels: of a pixel.

    Returns:
        ``x + (u - 1/2) 2 / (L - 1)``, u uniform on [0, 1), in the dtype of floats; integers give JAX's default.

    Raises:
        InputError: integers outside 0 to L - 1 or floats outside [-1, 1]; fewer than 2 levels.
    """
    key = threefry(key)
    require_whole("levels", levels, 2)
    images = jnp.asarray(images)
    whole = jnp.issubdtype(images.dtype, jnp.integer)
    require(whole or jnp.issubdtype(images.dtype, jnp.floating), "images.dtype", str(images.dtype), "integer or float")
    low, high = (0, levels - 1) if whole else (-1, 1)
    if is_concrete(images):
        values = np.asarray(images)
        inside = bool(((low <= values) & (values <= high)).all())
        require(inside, "images", "values outside", f"from {low} to {high}")
    half = (levels - 1) / 2
    dtype = jnp.result_type(float) if whole else images.dtype
    level = images.astype(dtype) if whole else jnp.round((images + 1) * half)
    return (level + jax.random.uniform(key, images.shape, dtype) - 0.5) / half - 1


def bits_per_dim(nats: Any, shape: Sequence[int], *, levels: int = 256) -> Any:
    """Bits per dimension of images of ``levels`` levels in [-1, 1], from nats of their dequantised selves.

        -(nats + d log(2 / (levels - 1))) / (d log 2),      d the product of ``shape``

    the density times the cell's volume, ``2 / 255`` a side for 256 levels. The mean over shifts (``dequantize``) bounds
    the negative log probability of the levels from above, by Jensen's inequality. Others place 256 levels in cells of
    width ``2 / 256``; their figures are lower by ``log2(256 / 255) = 0.0056`` where networks are the same.

    Args:
        nats: log density, of any shape.
        shape: of one example.
        levels: of a pixel.

    Raises:
        InputError: fewer than 2 levels, or an empty shape.
    """
    require_whole("levels", levels, 2)
    d = math.prod(shape)
    require(d >= 1, "shape", tuple(shape), "positive sizes")
    return -nats / (d * math.log(2)) + math.log2((levels - 1) / 2)


def pixel_bits(nats: Any, scale: PixelScale) -> Any:
    """``bits_per_dim`` of images of 256 levels from log densities of their standardised pixels (``PixelScale``).

        nats of the images = nats - sum log std

    Args:
        nats: log density of the standardised image, of any shape.
        scale: what the pixels were standardised by.
    """
    return bits_per_dim(nats - scale.log_volume, scale.mean.shape)
