"""How far is the Gaussian that samplers and likelihoods start from, ``N(0, sigma_max^2 I)``, from the data noised that
much?
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from dgu.core.denoisers import as_pytree, check_range, map_batch
from dgu.core.errors import PriorMismatchWarning, require
from dgu.core.keys import seeded
from dgu.core.typing import Denoiser, Event, Key

#: Nats above which ``log_likelihood`` and ``dgu.analysis.flow_kl`` warn.
MAX_MISMATCH = 0.01
#: Draws of a small example, and the fewest of a large one; ``_ENTRIES`` numbers in all between the two.
_MOST, _FEWEST, _ENTRIES = 16_384, 32, 16_384
#: Fewest draws of a denoiser that can be drawn from.
_FEWEST_OWN = 256
#: Points and weights on the way from the centre to a draw, Gauss and Legendre's.
_POINTS, _WEIGHTS = (np.polynomial.legendre.leggauss(3)[0] + 1) / 2, np.polynomial.legendre.leggauss(3)[1] / 2
#: Steps towards the mean of the data.
_STEPS = 2
#: Largest mean slope of the denoiser that draws are widened for.
_STEEPEST = 2 / 3


def prior_mismatch(denoiser: Denoiser, shape: Sequence[int], sigma_max: Any, *, dtype: DTypeLike = float) -> float:
    """``KL(p || N(0, s^2 I))`` in nats, p the distribution of ``x0 + s eps`` at ``s = sigma_max``, from the denoiser at
    that level alone.

    What a likelihood of exact flow is off by on average, as the flow keeps the divergence: for Gaussian data of mean mu
    and covariance C it is ``(|mu|^2 / s^2 + tr C / s^2 - log det(I + C / s^2)) / 2``. In general, with draws ``x = m +
    s z`` of a Gaussian about a point m near the mean, ``grad log p = (D(x; s) - x) / s^2`` gives, but for a constant,

        log p(x) / N(x; m, s^2 I) = w(z) = 1/s int_0^1 z . (D(m + t s z; s) - m) dt

    and with weights ``r ~ exp w`` times ``N(x; m, s^2 I)`` over the density drawn from, which make the draws those of
    p,

        KL = sum_i r_i w_i - log mean r_i + (2 m . sum_i r_i D(x_i; s) - |m|^2) / (2 s^2)

    with the mean of the weights before they are normalised. The draws are as wide as the mean slope of D says p is.

    The draws are fixed (n = 32 or more, 16,384 for one number), the integral has three points. The part of the mean is
    exact to per mille; that of the spread is within some ten per cent below one nat in few dimensions, and rough with
    few draws or above. It takes ``5 n + 2`` evaluations: 162 of a network for a large example, more for a small one.

    All draws lie about one centre: a part of the data that is many sigma_max away from it is not seen. Where the
    denoiser itself can be drawn from (``draw(key)`` and ``log_density(x, sigma)``, as mixtures in closed form), the
    mean of ``log p(x) / N(x; 0, s^2 I)`` over such draws counts where it is larger beyond three standard errors. A part
    that fewer than some ten of these draws hit (n of them, 256 or more: one in 25 of a large example) is still missed.
    Of a network nothing shows such a part but an example of it (``log_likelihood``).

    Args:
        denoiser: ``denoiser(x, sigma) -> E[x0 | x]`` for one example.
        shape: of one example.
        sigma_max: the noise level, positive.
        dtype: that the denoiser is evaluated in, JAX's default floating dtype where not given.

    Returns:
        Nats, 0 or more; NaN where the denoiser's values are not finite.

    Raises:
        InputError: ``sigma_max`` not positive and finite, or outside the denoiser's range.
    """
    level = float(sigma_max)
    require(0 < level < math.inf, "sigma_max", sigma_max, "positive and finite")
    check_range(denoiser, "sigma_max", level)
    d = math.prod(shape)
    draws = _draws(min(max(_ENTRIES // max(d, 1), _FEWEST), _MOST), d).reshape(-1, *shape)
    sigma = jnp.asarray(level, dtype)
    nats = float(_mismatch(as_pytree(denoiser), jnp.asarray(draws, dtype), sigma))
    if hasattr(denoiser, "draw") and hasattr(denoiser, "log_density"):
        keys = jax.random.split(seeded(0), max(len(draws), _FEWEST_OWN))
        mean, error = (float(value) for value in _over_own_draws(denoiser, keys, sigma))
        nats = mean if mean - 3 * error > nats else nats
    return nats


def _draws(n: int, d: int) -> Float[np.ndarray, "n d"]:
    """A Latin hypercube of normals: in each entry the n quantiles in an order of its own, scaled to unit variance."""
    quantiles = scipy.special.ndtri((np.arange(n) + 0.5) / n)
    quantiles /= np.sqrt(np.mean(np.square(quantiles)))
    return np.random.default_rng(0).permuted(np.tile(quantiles, (d, 1)), axis=1).T


@jax.jit
def _mismatch(denoiser: Denoiser, z: Float[Array, " n *event"], sigma: Float[Array, ""]) -> Float[Array, ""]:
    def denoised(x: Float[Array, " n *event"]) -> Float[Array, " n *event"]:
        return map_batch(denoiser, x, jnp.full(len(x), sigma))

    centre = _centre(denoiser, jnp.zeros(z.shape[1:], z.dtype), sigma)[None]
    size = math.prod(z.shape[1:])
    slope = jnp.sum((denoised(centre + sigma * z) - centre) * z) / (len(z) * size * sigma)
    wider = 1 / jnp.sqrt(1 - jnp.clip(slope, 0, _STEEPEST))
    ways = jax.lax.map(
        lambda t: denoised(centre + t * wider * sigma * z) - centre, jnp.asarray([*_POINTS, 1.0], z.dtype)
    )
    slopes = jnp.sum((ways * z[None]).reshape(*ways.shape[:2], -1), axis=-1) * wider / sigma
    w = jnp.tensordot(jnp.asarray(_WEIGHTS, z.dtype), slopes[:-1], 1, precision=jax.lax.Precision.HIGHEST)
    thinned = (1 - jnp.square(wider)) * jnp.sum(jnp.square(z).reshape(len(z), -1), axis=1) / 2 + size * jnp.log(wider)
    r = jax.nn.softmax(w + thinned)
    about = jnp.sum(r * w) - jax.nn.logsumexp(w + thinned) + math.log(len(z))
    mean = centre[0] + jnp.tensordot(r, ways[-1], 1, precision=jax.lax.Precision.HIGHEST)
    shift = jnp.sum(centre[0] * (2 * mean - centre[0])) / (2 * jnp.square(sigma))
    return jnp.maximum(about + shift, 0)  # NaN stays.


def _centre(denoiser: Denoiser, start: Event, sigma: Float[Array, ""]) -> Event:
    """What the denoiser makes of ``start``, and of that: about the mean of the data that are near."""
    return jax.lax.fori_loop(0, _STEPS, lambda _, x: map_batch(denoiser, x[None], sigma[None])[0], start)


@jax.jit
def _shift(denoiser: Denoiser, x: Event, sigma: Float[Array, ""]) -> Float[Array, ""]:
    """``|c|^2 / (2 sigma^2)`` in nats for the centre c of the data near ``x``."""
    return jnp.sum(jnp.square(_centre(denoiser, x, sigma) / sigma)) / 2


@jax.jit
def _over_own_draws(denoiser: Any, keys: Key, sigma: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean of ``log p(x) / N(x; 0, sigma^2 I)`` over draws of p, and its standard error."""

    def ratio(key: Key) -> Array:
        data, noise = jax.random.split(key)
        x0 = denoiser.draw(data).astype(sigma.dtype)
        x = x0 + sigma * jax.random.normal(noise, x0.shape, x0.dtype)
        prior = jnp.sum(jnp.square(x / sigma)) / 2 + x.size * jnp.log(2 * jnp.pi * jnp.square(sigma)) / 2
        return denoiser.log_density(x, sigma) + prior

    found = jax.lax.map(ratio, keys, batch_size=32)
    return jnp.mean(found), jnp.std(found) / math.sqrt(len(found))


def warn_of_mismatch(nats: float, sigma_max: float, what: str, stacklevel: int = 3) -> None:
    """A ``PriorMismatchWarning`` with the size of the mismatch where that exceeds ``MAX_MISMATCH``."""
    if nats > MAX_MISMATCH:
        message = (
            f"{what}: at sigma_max = {sigma_max:.6g} the prior N(0, sigma_max^2 I) is {nats:.3g} nats (KL) from the "
            "data "
            f"noised that much, and the result is off by at least about as much on average; a larger sigma_max makes "
            "it smaller"
        )
        warnings.warn(message, PriorMismatchWarning, stacklevel=stacklevel)


def check_prior(denoiser: Any, x: Event, sigma_max: Any, what: str) -> None:
    """Warn of the mismatch where it can be looked at: where neither the denoiser's leaves nor the noise level are
    traced.

    The example may be traced (by ``vmap``, ``grad`` or ``jit``). Where it is not, it is evidence, too: data near it
    that lie some way from 0 are off by that much, even if all draws about the centre of the data miss them.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((denoiser, sigma_max))):
        return
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    try:
        with jax.ensure_compile_time_eval():
            nats, here = prior_mismatch(denoiser, x.shape, sigma_max, dtype=dtype), 0.0
            if not isinstance(x, jax.core.Tracer):
                here = float(_shift(as_pytree(denoiser), x.astype(dtype), jnp.asarray(sigma_max, dtype)))
    except (jax.errors.UnexpectedTracerError, jax.errors.ConcretizationTypeError):
        return  # A function that closes over traced values.
    if here > max(nats, MAX_MISMATCH):
        message = (
            f"{what}: at sigma_max = {float(sigma_max):.6g} the prior N(0, sigma_max^2 I) is {here:.3g} nats from "
            "the data about "
            f"this example noised that much, and the result is off by at least about as much; a larger sigma_max "
            "makes it smaller"
        )
        warnings.warn(message, PriorMismatchWarning, stacklevel=3)
    else:
        warn_of_mismatch(nats, float(sigma_max), what, stacklevel=4)
