"""Uniform distributions on boxes, and their mixtures: targets of compact support whose noisy density is known."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import log_ndtr
from jaxtyping import Float

from dgu.core.arrays import as_doubles, as_jax_floats, at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Event, Key, Scalar


def _log_interval(low: Array, high: Array) -> Array:
    """``log(Phi(high) - Phi(low))`` for ``low < high``, in the tail where both keep their digits."""
    flip = low + high > 0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    top = log_ndtr(high)
    return top + jnp.log(-jnp.expm1(log_ndtr(low) - top))


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class BoxMixture:
    """``sum_k w_k`` uniform on ``prod_j [low_kj, high_kj]``, with the posterior mean of its draws under Gaussian noise.

        log p(x; sigma) = log sum_k w_k prod_j [Phi((high_kj - x_j) / sigma) - Phi((low_kj - x_j) / sigma)] / (high_kj -
        low_kj) denoiser(x, sigma) = x + sigma^2 grad log p(x; sigma)

    for ``sigma`` above 0. Compact support is what Theorem 1 of arXiv 2311.01797 asks of its target.

    Attributes:
        weights: (K,), positive with sum 1.
        lows, highs: (K, d), the corners. Make it with ``BoxMixture.of``, which checks them.
    """

    weights: Any
    lows: Any
    highs: Any

    @classmethod
    def of(cls, weights: Any, lows: Any, highs: Any) -> "BoxMixture":
        """The mixture, its attributes checked and cast to float32.

        Raises:
            InputError: weights that do not sum to one, corners of other shapes, a side that is not positive.
        """
        pi, low, high = as_doubles("weights", weights), as_doubles("lows", lows), as_doubles("highs", highs)
        require(low.ndim == 2 and low.shape == high.shape, "(lows, highs)", (low.shape, high.shape), "both (K, d)")
        require(pi.shape == low.shape[:1], "weights.shape", pi.shape, f"({len(low)},), one for each box")
        require(bool((pi > 0).all()) and abs(pi.sum() - 1) <= 1e-6, "weights", pi.tolist(), "positive with sum 1")
        shortest = float((high - low).min())
        require(shortest > 0, "shortest side", shortest, "positive")
        return cls(*(array.astype(np.float32) for array in (pi, low, high)))

    @at_least_single
    def log_density(self, x: Event, sigma: Scalar) -> Float[Array, ""]:
        """``log p(x; sigma)`` in nats; at ``sigma = 0`` the uniform density itself, -inf outside the boxes."""
        weights, lows, highs, noise = (jnp.asarray(a, x.dtype) for a in (self.weights, self.lows, self.highs, sigma))
        positive = noise > 0
        safe = jnp.where(positive, noise, jnp.ones_like(noise))
        smooth = _log_interval((lows - x[None]) / safe, (highs - x[None]) / safe)
        sharp = jnp.where((lows <= x[None]) & (x[None] <= highs), 0.0, -jnp.inf).astype(x.dtype)
        inside = jnp.where(positive, smooth, sharp) - jnp.log(highs - lows)
        return jax.nn.logsumexp(jnp.log(weights) + jnp.sum(inside, axis=1))

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean of one example (d,), by Tweedie's formula."""
        noise = jnp.asarray(sigma, x.dtype)
        return x + jnp.square(noise) * jax.grad(self.log_density)(x, noise)

    def draw(self, key: Key) -> Float[Array, " d"]:
        """One example: ``jax.vmap`` it over keys."""
        key = threefry(key)
        pick, place = jax.random.split(key)
        lows, highs = as_jax_floats("lows", self.lows), as_jax_floats("highs", self.highs)
        box = jax.random.categorical(pick, jnp.log(jnp.asarray(self.weights, lows.dtype)))
        return lows[box] + (highs - lows)[box] * jax.random.uniform(place, lows.shape[1:], lows.dtype)


def two_boxes(dimension: int) -> BoxMixture:
    """Half on ``[-3, -1] x [-1, 1]^(d-1)``, half on its mirror image, with d the ``dimension``.

    Raises:
        InputError: ``dimension`` is not a whole number, 1 or more.
    """
    require_whole("dimension", dimension)
    lows, highs = -np.ones((2, int(dimension))), np.ones((2, int(dimension)))
    lows[:, 0], highs[:, 0] = (-3, 1), (-1, 3)
    return BoxMixture.of([0.5, 0.5], lows, highs)
