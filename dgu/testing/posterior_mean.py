"""What only a true posterior mean has: a symmetric Jacobian, the right limits, Tweedie's identity, orthogonality."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from dgu.core.denoisers import as_pytree, map_batch
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Key
from dgu.models.posterior_identities import jacobian_defects, orthogonality_score, rms, tweedie_error
from dgu.testing.arguments import DERIVATIVES, checked_shape
from dgu.testing.contract import check_denoiser, default_sampler
from dgu.testing.reports import DenoiserCheckError, DenoiserReport, PosteriorMeanReport, past_bounds, raised


def check_posterior_mean(
    denoiser: Denoiser,
    shape: Sequence[int],
    key: Key,
    *,
    dtype: DTypeLike = jnp.float32,
    sigmas: Sequence[float] = (0.05, 0.5, 2.0, 10.0),
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    log_density: Callable[[Array, ArrayLike], Array] | None = None,
    mean: Float[ArrayLike, "*event"] | None = None,
    support: Float[ArrayLike, " n *event"] | None = None,
    sample_prior: Callable[[Key], Array] | None = None,
    num_prior: int = 1024,
    exact_size: int = 64,
    asymmetry: float | None = None,
    negativity: float | None = None,
    identity: float = 1.0,
    spread: float = 0.05,
    mean_bias: float = 0.005,
    tweedie: float | None = None,
    wiener: float = 5.0,
) -> PosteriorMeanReport:
    """Measure what only a true posterior mean has, after everything that ``check_denoiser`` measures.

    - ``asymmetry``, ``negativity``: the Jacobian is ``Cov[x0 | x] / sigma^2``, symmetric and positive semi-definite. Up
      to ``exact_size`` dimensions the whole Jacobian is formed, beyond it a Krylov space of random directions through
      products with ``J`` and ``J^T``; Ritz values lie within the spectrum, so a negative one is proof.
    - ``identity``: ``D(x0, sigma) = x0 + O(sigma)`` on the support as sigma -> 0, measured at ``sigma_min``.
    - ``spread``, ``mean_bias``: ``D(x, sigma) -> mean`` as sigma -> infinity, measured at ``sigma_max``. The noises
      ``+eps`` and ``-eps`` are averaged in ``mean_bias``: the leading deviation ``Cov eps / sigma`` is odd, drops out.
    - ``tweedie``: ``D = x + sigma^2 grad_x log p(x; sigma)`` (Robbins 1956; Miyasawa 1961).
    - ``wiener``: the error of a conditional mean is orthogonal to it, ``E[(x0 - D(x)) . D(x)] = 0``.

    A denoiser with the wrong scale, ``c D`` with c != 1, fails ``identity``, ``tweedie`` and ``wiener``. A trained
    network passes none of these exactly: bounds are there to be widened, reports to be compared between networks.

    Args:
        denoiser, shape, key, dtype: as in ``check_denoiser``.
        sigmas: noise levels for the Jacobian, Tweedie's identity and Wiener orthogonality.
        sigma_min, sigma_max: noise levels that stand for 0 and infinity.
        log_density: ``(x, sigma) -> log p(x; sigma)`` of the noisy data, differentiable, up to a constant.
        mean: mean of the clean data.
        support: clean samples; ``x`` is drawn around them. By default draws of ``sample_prior``, and without it eight
            samples that the denoiser itself makes, on which ``identity`` then measures self-consistency.
        sample_prior: ``key -> x0``, one clean sample, traceable by ``vmap``. Without it, ``support`` serves as the
            clean samples of ``wiener`` if it has 64 rows or more, which must then be independent draws of the prior.
        num_prior: number of draws of ``sample_prior``.
        exact_size: largest number of dimensions for which the whole Jacobian is formed.
        asymmetry, negativity, tweedie: bounds, by default 1e-3 in float32, 1e-8 in float64, 5e-2 in float16, 0.2 in
            bfloat16.
        identity: bound, in units of sigma per coordinate. No thin or curved support exceeds about 1.
        spread: bound; a true posterior mean shows about the variance per coordinate over ``sigma_max^2``.
        mean_bias: bound, relative to the largest magnitude of the data.
        wiener: bound, in standard errors.

    Raises:
        DenoiserCheckError: a bound is passed, here or in ``check_denoiser``.
        InputError: an argument that cannot be used.
    """
    key = threefry(key)
    shape = checked_shape(shape, dtype, sigmas=sigmas, sigma_min=[sigma_min], sigma_max=[sigma_max])
    if mean is not None:
        require(jnp.shape(mean) == shape, "mean", jnp.shape(mean), f"of shape {shape}")
    if support is not None:
        size = jnp.shape(support)
        require(size[1:] == shape and size[0] >= 2, "support", size, f"two or more samples of shape {shape}")
    derivatives = DERIVATIVES[jnp.dtype(dtype).name]
    denoiser = as_pytree(denoiser)
    try:
        basic = check_denoiser(denoiser, shape, key, dtype=dtype)
    except DenoiserCheckError as error:
        assert isinstance(error.report, DenoiserReport)
        basic = error.report
        if basic.sample_coupling is None:  # it cannot even be evaluated: there is nothing to measure
            raise
    log_density = None if log_density is None else as_pytree(log_density)
    report = PosteriorMeanReport(basic.defects, basic)
    draws = None
    if sample_prior is not None:
        draws = jax.vmap(sample_prior)(jax.random.split(jax.random.fold_in(key, 2000), num_prior)).astype(dtype)
    elif support is not None and jnp.shape(support)[0] >= 64:
        draws = jnp.asarray(support, dtype)
    if support is not None:
        clean = jnp.asarray(support, dtype)
    elif draws is not None:
        clean = draws[:8]
    else:
        try:
            clean = jnp.asarray(default_sampler(shape, jnp.dtype(dtype))(denoiser, key, np.arange(8)), dtype)
        except FloatingPointError as error:
            report = replace(report, defects=(*basic.defects, raised("non_finite", error)))
            raise DenoiserCheckError(report) from error
    scale = float(jnp.abs(clean).max()) or 1.0

    jacobian: list[tuple[float, float]] = []
    errors = [0.0]
    for number, sigma in enumerate(sigmas):
        at, level = jnp.asarray(sigma, dtype), jax.random.fold_in(key, number)
        # A covariance is computed from squares of the data: what rounding leaves of it, seen through the bound.
        floor = float(jnp.finfo(dtype).eps) / derivatives * float(jnp.sum(clean[0] ** 2)) / sigma**2
        for x in clean[:2] + at * jax.random.normal(level, (2, *shape), dtype):
            jacobian.append(jacobian_defects(denoiser, x, at, level, floor=floor, exact_size=exact_size))
            if log_density is not None:
                errors.append(float(tweedie_error(denoiser, log_density, x, at)) / scale)

    fixed = rms(map_batch(denoiser, clean, jnp.full(len(clean), sigma_min, dtype)) - clean) / sigma_min
    noise = sigma_max * jax.random.normal(key, (8, *shape), dtype)
    levels = jnp.full(len(noise), sigma_max, dtype)
    centre = jnp.zeros(shape, dtype) if mean is None else jnp.asarray(mean, dtype)
    up, down = map_batch(denoiser, centre[None] + noise, levels), map_batch(denoiser, centre[None] - noise, levels)
    report = replace(
        report,
        asymmetry=float(np.max(jacobian, axis=0)[0]),
        negativity=float(np.max(jacobian, axis=0)[1]),
        identity=float(np.max(fixed)),
        spread=float(np.max(rms(up - down) / rms(2 * noise))),
        mean_bias=None if mean is None else float(np.max(rms((up + down) / 2 - centre[None]))) / scale,
        tweedie=None if log_density is None else float(np.max(errors)),
        wiener=None if draws is None else orthogonality_score(denoiser, draws, sigmas, key),
    )
    bounds = {
        "asymmetry": derivatives if asymmetry is None else asymmetry,
        "negativity": derivatives if negativity is None else negativity,
        "identity": identity,
        "spread": spread,
        "mean_bias": mean_bias,
        "tweedie": derivatives if tweedie is None else tweedie,
        "wiener": wiener,
    }
    report = replace(report, defects=(*basic.defects, *past_bounds(report, bounds, _POSTERIOR_MEANING)))
    if report.defects:
        raise DenoiserCheckError(report)
    return report


_POSTERIOR_MEANING = {
    "asymmetry": "the Jacobian is not symmetric, |J - J^T| / |J|",
    "negativity": "the Jacobian has a negative eigenvalue, over the largest",
    "identity": "not the identity on the support as sigma -> 0, rms(D(x0) - x0) / sigma",
    "spread": "the input is not forgotten as sigma -> infinity",
    "mean_bias": "not the mean as sigma -> infinity",
    "tweedie": "D differs from x + sigma^2 grad log p",
    "wiener": "x0 - D is not orthogonal to D, in standard errors",
}
