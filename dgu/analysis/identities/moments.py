"""Second and third moments of the posterior from derivatives of a denoiser, and beside its errors."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float64, Num

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import t_interval
from dgu.core.arrays import as_jax_floats
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, check_range, denoise
from dgu.core.errors import require
from dgu.core.keys import example_key, stream, threefry
from dgu.core.noisy import checked_images, checked_levels, in_blocks, noisy_input, over_levels
from dgu.core.typing import Denoiser, Event, Key, Scalar


def posterior_moments(
    denoiser: Denoiser, x: Num[ArrayLike, "*event"], sigma: Scalar, direction: Num[ArrayLike, "..."]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Mean, variance and third central moment of ``v . x0`` given x, for a posterior mean D and a direction v:

        v . D,    sigma^2 v . (J v),    sigma^4 v . (d^2/dt^2 D(x + t v))      with J = dD / dx.

    Derivatives of the log density of noisy data are cumulants of the posterior. Exact for a posterior mean, and what a
    network *believes* of any other; pure, so that it can be mapped.

    Args:
        denoiser: twice differentiable.
        x: one example at noise level ``sigma``, positive.
        sigma: the noise level.
        direction: v, of the shape of x.

    Raises:
        InputError: a direction of another shape.

    arXiv 2309.13598; the first two are Tweedie's formula (Robbins 1956).
    """
    x = as_jax_floats("x", x)
    v = as_jax_floats("direction", direction).astype(x.dtype)
    require(v.shape == x.shape, "direction.shape", v.shape, f"that of x, {x.shape}")
    variance = jnp.square(jnp.asarray(sigma, x.dtype))
    value, change, bend = _derivatives(denoiser, x, jnp.asarray(sigma, x.dtype), v)
    return _dot(v, value), variance * _dot(v, change), jnp.square(variance) * _dot(v, bend)


def _derivatives(denoiser: Denoiser, x: Event, sigma: Scalar, v: Event) -> tuple[Event, Event, Event]:
    """D, its first and its second derivative along v."""

    def slope(point: Event) -> tuple[Event, Event]:
        return jax.jvp(lambda at: denoise(denoiser, at, sigma), (point,), (v,))

    (value, change), (_, bend) = jax.jvp(slope, (x,), (v,))
    return value, change, bend


def _dot(a: Event, b: Event) -> Float[Array, ""]:
    return jnp.vdot(a, b, precision=jax.lax.Precision.HIGHEST)


@short_repr
@dataclass(frozen=True, eq=False)
class MomentGaps:
    """Errors of a denoiser beside what its derivatives say of them, at each noise level; 0 for a posterior mean.

    Attributes:
        sigmas: ``(levels,)``.
        errors: ``|e|^2 / d`` of each example, e the error ``x0 - D(x)``, ``(levels, n)``.
        seconds: ``(|e|^2 - sigma^2 v . J v) / d`` of each, with random signs v of its own, ``(levels, n)``.
        thirds: ``((w . e) |e|^2 - sigma^4 w . D''(v, v)) / d`` likewise, with the unit vector ``w = x / |x|``.
    """

    sigmas: np.ndarray
    errors: np.ndarray
    seconds: np.ndarray
    thirds: np.ndarray

    @property
    def squared_error(self) -> Float64[np.ndarray, " levels"]:
        """Mean of ``errors`` over examples."""
        return self.errors.mean(axis=1)

    @property
    def second(self) -> Estimate:
        """Mean of ``seconds`` at each level, with its interval over examples."""
        return t_interval(self.seconds)

    @property
    def third(self) -> Estimate:
        """Mean of ``thirds`` at each level, with its interval over examples."""
        return t_interval(self.thirds)


def moment_gaps(
    denoiser: Denoiser,
    clean: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    batch_size: int = 16,
) -> MomentGaps:
    """Tests by clean examples alone, with no true density, that a denoiser is the posterior mean of their distribution:

        E |e|^2 = sigma^2 E tr J,      E (w . e) |e|^2 = sigma^4 E w . grad tr J,      e = x0 - D(x)

    with ``w = x / |x|``: third moments along the ray on which x lies, since along a fixed direction they are odd, and 0
    on average, where the data are even. The traces are estimated by random signs v.

    ``0.9 D`` fails the first. That a network passes does not make it exact: the identities hold on average over x.

    Args:
        denoiser: twice differentiable; for a conditional one ``denoiser.given(label)``.
        clean: examples that the denoiser was not trained on, two or more.
        sigmas: noise levels, positive.
        key: of noise and signs, addressed by the number of the example and of the level.
        batch_size: examples at a time.

    Raises:
        InputError: values out of range, or outputs that are not finite.

    arXiv 2309.13598.
    """
    key = threefry(key)
    rows = checked_images(clean, 2, "clean")
    levels = checked_levels(sigmas, {"denoiser": denoiser})
    require(bool((levels > 0).all()), "sigmas", levels.tolist(), "positive")
    check_range(denoiser, "sigmas", levels)
    blocks, numbers = in_blocks(rows, batch_size)
    parts = [
        np.asarray(part, np.float64).reshape(len(levels), -1)[:, : len(rows)]
        for part in _gaps(as_pytree(denoiser), key, stream(key, "signs"), blocks, numbers, levels.astype(rows.dtype))
    ]
    require(all(bool(np.isfinite(part).all()) for part in parts), "denoiser", "non-finite derivatives", "finite")
    return MomentGaps(levels, *parts)


@jax.jit
def _gaps(
    denoiser: Denoiser, key: Key, signs: Key, blocks: Array, numbers: Array, sigmas: Array
) -> tuple[Array, Array, Array]:
    def one(row: Array, number: Array, sigma: Array, level: Array) -> tuple[Array, Array, Array]:
        x = noisy_input(key, row, number, sigma, level)
        v = jax.random.rademacher(example_key(jax.random.fold_in(signs, level), number), row.shape, row.dtype)
        value, change, bend = _derivatives(denoiser, x, sigma, v)
        error, variance = row - value, jnp.square(sigma)
        w, squared = x / jnp.sqrt(_dot(x, x)), _dot(error, error)
        second = squared - variance * _dot(v, change)
        third = _dot(w, error) * squared - jnp.square(variance) * _dot(w, bend)
        return squared / x.size, second / x.size, third / x.size

    found: tuple[Array, Array, Array] = over_levels(one, jnp.asarray(blocks), jnp.asarray(numbers), jnp.asarray(sigmas))
    return found
