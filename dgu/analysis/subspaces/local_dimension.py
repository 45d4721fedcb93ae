"""Local intrinsic dimension of the data at a clean example, from a denoiser at one small noise level."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_floats
from dgu.core.denoisers import as_pytree, check_range, denoise
from dgu.core.errors import require, require_whole
from dgu.core.keys import example_key, threefry
from dgu.core.noisy import checked_images, in_blocks
from dgu.core.typing import Denoiser, Key, Scalar


def local_dimension(
    denoiser: Denoiser,
    x: Num[ArrayLike, " b *event"],
    sigma: Num[ArrayLike, " b"] | Num[ArrayLike, ""],
    *,
    key: Key | None = None,
    probes: int = 16,
    batch_size: int = 8,
) -> Estimate:
    """``tr J(x, sigma) + |D(x, sigma) - x|^2 / sigma^2`` at clean examples, ``J = dD(x, sigma) / dx``.

    For an exact posterior mean this is ``d + d log p(x; sigma) / d log sigma`` at every x and sigma: the density of the
    noisy data obeys ``dp / d(sigma^2) = Laplacian p / 2``, so that

        d log p / d log sigma = sigma^2 (div s + |s|^2),    s = grad log p = (D - x) / sigma^2   (Tweedie),

    and ``sigma^2 div s = tr J - d``. Near a point of the support about which the data have m dimensions and a smooth
    density, ``p(x; sigma)`` goes as ``sigma^(m - d)`` when sigma -> 0, and the value goes to m. This is FLIPD, the
    local intrinsic dimension, in terms of a denoiser. It is exact in that limit:

    - A Gaussian of r variances ``lam_i`` above 0, at x = mean + U c within its support, has
      ``r + sigma^2 sum_i (c_i^2 - lam_i - sigma^2) / (lam_i + sigma^2)^2``; averaged over clean draws of it
      ``r - sum_i sigma^4 / (lam_i + sigma^2)^2``. So r is approached as sigma^2, on average as sigma^4; a direction
      counts where its variance is well above ``sigma^2``.
    - A mixture of low-rank Gaussians, at a point of one component that lies many sigma away from the others' subspaces,
      has that component's value: the responsibilities of the others, and their derivatives, are exponentially small.

    ``x`` must be clean. At noisy ``x = x0 + sigma eps`` the mean of the value is d at every sigma, whatever the data,
    since ``E d log p / d log sigma = 0``. The noise is in the denoiser, not in x.

    A network's own error counts in units of ``sigma^2``: choose sigma where the network is known to be accurate, and
    look at several. In float32 ``x`` is rounded: the second term is ``d (1e-7 |x| / sigma)^2`` too large.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``; for a conditional one ``denoiser.given(label)``.
        x: clean examples.
        sigma: the noise level of each, or of all, positive.
        key: without one the trace is exact, d products ``J e_i`` an example. With one it is Hutchinson's estimate
            ``v^T J v`` over random signs v, addressed by the number of the example.
        probes: number of vectors v for each example, 2 or more, with a key.
        batch_size: examples at a time.

    Returns:
        The values ``(b,)``; exact without a key, else with the 95 % t interval over probes of each example.

    Raises:
        InputError: a noise level that is not positive or is outside the denoiser's range, examples or results that are
            not finite, an output of another shape than the input.

    Kamkari et al., arXiv 2406.03537 (FLIPD), after Tempczyk et al., arXiv 2206.14882 (the power of sigma); proof for
    smooth manifolds: arXiv 2506.20705; Hutchinson (1990).
    """
    key = None if key is None else threefry(key)
    points = checked_images(x, 1, "x")
    given = as_floats("sigma", sigma)
    require(given.shape in ((), (len(points),)), "sigma.shape", given.shape, f"() or ({len(points)},)")
    levels = np.broadcast_to(given.astype(points.dtype), (len(points),))
    require(bool(((levels > 0) & np.isfinite(levels)).all()), "sigma", given.tolist(), "positive and finite")
    check_range(denoiser, "sigma", levels)
    require_whole("probes", probes, 2)
    blocks, numbers = in_blocks(points, batch_size)
    found = [
        _terms(as_pytree(denoiser), block, levels[rows], rows, key, probes=int(probes))
        for block, rows in zip(blocks, numbers)
    ]
    distances, traces = (
        np.concatenate([np.asarray(part[place], np.float64) for part in found])[: len(points)] for place in (0, 1)
    )
    values = distances[:, None] + traces
    require(bool(np.isfinite(values).all()), "denoiser", "outputs or derivatives that are not finite", "finite")
    if key is not None:
        return t_interval(values)
    exact = values[:, 0]
    return Estimate(exact, exact, exact, method="exact trace", exact=True)


@partial(jax.jit, static_argnames="probes")
def _terms(
    denoiser: Denoiser,
    x: Float[Array, " b *event"],
    sigma: Float[Array, " b"],
    numbers: Int[Array, " b"],
    key: Key | None,
    *,
    probes: int,
) -> tuple[Float[Array, " b"], Float[Array, "b p"]]:
    """``|D - x|^2 / sigma^2`` and the trace of J: exact with p = 1 where there is no key, else of each probe."""

    def one(x: Array, sigma: Scalar, number: Array) -> tuple[Array, Array]:
        denoised, push = jax.linearize(lambda y: denoise(denoiser, y, sigma), x)
        distance = jnp.sum(jnp.square((denoised - x) / sigma))
        if key is None:
            units = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
            return distance, jnp.trace(jax.vmap(push)(units).reshape(x.size, x.size))[None]
        signs = jax.random.rademacher(example_key(key, number), (probes, *x.shape), x.dtype)
        return distance, jnp.sum((signs * jax.vmap(push)(signs)).reshape(probes, -1), axis=1)

    return jax.vmap(one)(x, sigma, numbers)
