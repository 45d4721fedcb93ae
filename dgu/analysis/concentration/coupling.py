"""Does a coupling of concentrated distributions concentrate? Not in general: a counter-example with exact numbers.

Theorem 3 of Ghane et al. (arXiv 2501.07741) states that (x, y) concentrates if x and y do; its proof takes the
distribution of x given y to be the marginal of x. With x ~ N(0, I_d) and ``y = x`` or ``y = -x`` by a fair coin both
marginals are standard normal, and the 1-Lipschitz ``f(x, y) = ||x - y|| / sqrt(2)`` is 0 or ``sqrt(2) ||x||``: its
standard deviation grows like ``sqrt(d / 2)``. With y independent of x it is the norm of a standard normal vector, with
a standard deviation of about ``1 / sqrt(2)`` at any d.
"""

from collections.abc import Sequence
from functools import partial
from math import exp, lgamma, sqrt

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Key

#: Largest deviation of a 1-Lipschitz function that ``P(|f - E f| > t) <= 2 exp(-t^2 / (2 s^2))`` allows at s = 1:
#: the variance is the integral of 2 t P(...) over t > 0, at most 4 s^2.
LARGEST_DEVIATION = 2.0

COUPLINGS = ("coin", "independent")


def coupled_distances(
    key: Key, n: int, dimensions: Sequence[int], coupling: str = "coin"
) -> Float[np.ndarray, "dimensions n"]:
    """n independent values of ``f = ||x - y|| / sqrt(2)`` for x, y ~ N(0, I_d) at each dimension d; one compiled
    program.

    Args:
        key: key of the draws.
        n: number of pairs.
        dimensions: d, one or more.
        coupling: ``"coin"`` (y = +-x by a fair coin) or ``"independent"``.

    Raises:
        InputError: sizes below 1 or another coupling.
    """
    key = threefry(key)
    require(n >= 1, "n", n, "1 or more")
    require(
        len(dimensions) >= 1 and min(dimensions) >= 1, "dimensions", tuple(dimensions), "one or more, each 1 or more"
    )
    require(coupling in COUPLINGS, "coupling", coupling, "'coin' or 'independent'")
    return np.asarray(_distances(key, np.asarray(dimensions, np.int32), coupling == "coin", n, max(dimensions)))


@partial(jax.jit, static_argnums=(3, 4))
def _distances(key: Key, dimensions: Array, coin: bool | Array, n: int, width: int) -> Array:
    def one(place: Array) -> Array:
        dimension = dimensions[place // n]
        drawn, tossed = jax.random.split(jax.random.fold_in(key, place))
        x, other = jax.random.normal(drawn, (2, width))
        y = jnp.where(coin, jnp.where(jax.random.bernoulli(tossed), x, -x), other)
        used = jnp.arange(width) < dimension
        return jnp.sqrt(jnp.sum(jnp.where(used, jnp.square(x - y), 0)) / 2)

    return jax.lax.map(one, jnp.arange(n * dimensions.shape[0])).reshape(-1, n)


def coupled_deviation(dimension: int, coupling: str = "coin") -> float:
    """The exact standard deviation of f: 2.9, 11.3, 45.2 at d = 16, 256, 4096 for the coin, about 0.71 if independent.

    With ``m = E||x|| = sqrt(2) Gamma((d + 1) / 2) / Gamma(d / 2)``: ``sqrt(d - m^2 / 2)`` for the coin, ``sqrt(d -
    m^2)`` else.

    Raises:
        InputError: as ``coupled_distances``.
    """
    require(dimension >= 1, "dimension", dimension, "1 or more")
    require(coupling in COUPLINGS, "coupling", coupling, "'coin' or 'independent'")
    mean_square = 2 * exp(2 * (lgamma((dimension + 1) / 2) - lgamma(dimension / 2)))
    return sqrt(dimension - mean_square / (2 if coupling == "coin" else 1))
