"""Quadratic features: with them a linear classifier sees more than the mean and covariance of each class determine."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key


@partial(jax.jit, static_argnames=("num_features",))
def _random_features(key: Key, x: Array, num_features: int) -> Array:
    directions = jax.random.normal(key, (2, x.shape[1], num_features), x.dtype)
    left, right = (jnp.matmul(x, d, precision=jax.lax.Precision.HIGHEST) for d in directions)
    return left * right / jnp.asarray(num_features, x.dtype) ** 0.5


def quadratic_features(
    x: Num[ArrayLike, " n *event"], *, num_features: int | None = None, key: Key | None = None
) -> Float[Array, "n m"]:
    """Features whose inner products are those of the examples, squared: ``phi(x) . phi(y) = (x . y)^2``.

    Exactly, all d (d + 1) / 2 products ``x_i^2`` and ``sqrt(2) x_i x_j``; or, given ``num_features`` and a key, random
    products ``(u . x)(v . x) / sqrt(m)`` with standard normal u and v, for which it holds on average (Kar & Karnick
    2012). Centre the examples first to leave out the products of means.

    Args:
        x: (n, ...) examples.
        num_features: m for the random features; None for all products.
        key: of the random features.

    Raises:
        InputError: ``num_features`` without key or the reverse, or less than 1.
    """
    key = None if key is None else threefry(key)
    x = as_jax_floats("x", x)
    x = x.reshape(x.shape[0], -1)
    require((num_features is None) == (key is None), "num_features", num_features, "given together with key")
    if num_features is None or key is None:
        first, second = np.triu_indices(x.shape[1])
        scale = jnp.asarray(np.where(first == second, 1.0, np.sqrt(2.0)), x.dtype)
        return x[:, first] * x[:, second] * scale[None, :]
    require(num_features >= 1, "num_features", num_features, "at least 1")
    return _random_features(key, x, num_features)
