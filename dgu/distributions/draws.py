"""Many draws of a distribution, and its density at many points.

A distribution here is a pytree with ``draw(key)``, one example, and ``log_density(x, sigma)``, that of one example with
noise ``sigma`` added: a ``BoxMixture``, or a mixture of Gaussians.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.core.arrays import as_jax_floats
from dgu.core.errors import require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Key, Scalar


def draw_examples(target: Any, key: Key, count: int) -> Float[Array, " n *event"]:
    """``count`` independent examples; example i depends on ``(key, i)`` alone, so that a smaller set begins a larger
    one.

    Raises:
        InputError: ``count`` is not a whole number, 1 or more.
    """
    key = threefry(key)
    require_whole("count", count)
    return _draw(target, key, int(count))


@functools.partial(jax.jit, static_argnames="count")
def _draw(target: Any, key: Key, count: int) -> Array:
    return jax.vmap(lambda i: target.draw(jax.random.fold_in(key, i)))(jnp.arange(count))


def log_densities(target: Any, x: Num[ArrayLike, " n *event"], sigma: Scalar | int) -> Float[Array, " n"]:
    """``target.log_density(x_i, sigma)`` in nats of each row; of a ``ScoreOfDensity`` the second argument is the time.

    Raises:
        InputError: rows that are not real numbers.
    """
    return _log_densities(target, as_jax_floats("x", x), sigma)


@jax.jit
def _log_densities(target: Any, x: Array, sigma: Any) -> Array:
    return jax.vmap(lambda row: target.log_density(row, sigma))(x)
