"""The random-feature score model of arXiv 2311.01797, equation 12: a frozen layer below, a linear one that is trained.

    s(x, t) = (1 / m) A relu(W x + U e(t)),      rows (w_i, u_i) with |w_i|_1 + |u_i|_1 = 1

In the natural parameter ``theta = A / sqrt(m)`` it is ``s = theta phi(x, t)`` with ``phi = relu(.) / sqrt(m)``, and its
norm in the space of the kernel is ``|theta|_F`` (the paper's ``|A|_F / sqrt(m)``). Its loss is quadratic in theta.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dgu.core.arrays import at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.typing import Event, Key, Scalar

_HIGHEST = jax.lax.Precision.HIGHEST


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class RandomFeatures:
    """The frozen layer: ``phi(x, t) = relu(W x + U e(t)) / sqrt(m)`` with the bounded embedding

        e(t) = (1, sin(2 pi k t), cos(2 pi k t)) * reach,      k = 1 .. frequencies

    (the paper leaves ``e`` open but for its bound). ``reach`` is the length over which the kinks ``-u . e / w`` spread.

    Attributes:
        inner: W, (m, d).
        outer: U, (m, 1 + 2 frequencies).
        reach: the bound of e, a scalar.
    """

    inner: Any
    outer: Any
    reach: Any = 1.0

    @classmethod
    def draw(
        cls, key: Key, width: int, *, dimension: int = 1, frequencies: int = 1, reach: float | int = 1.0
    ) -> "RandomFeatures":
        """Rows uniform on the sphere ``|w|_1 + |u|_1 = 1``; row i depends on ``(key, i)`` alone.

        Raises:
            InputError: sizes below 1, ``reach`` not positive.
        """
        key = threefry(key)
        for name, value in (("width", width), ("dimension", dimension), ("frequencies", frequencies)):
            require_whole(name, value)
        require(0 < reach < float("inf"), "reach", reach, "positive and finite")
        columns = dimension + 1 + 2 * frequencies
        laplace = jax.vmap(lambda i: jax.random.laplace(jax.random.fold_in(key, i), (columns,)))(jnp.arange(width))
        rows = laplace / jnp.sum(jnp.abs(laplace), axis=1, keepdims=True)
        return cls(rows[:, :dimension], rows[:, dimension:], float(reach))

    @at_least_single
    def __call__(self, x: Event, t: Scalar) -> Float[Array, " m"]:
        """phi of one example (d,) at one time, in the dtype of ``x``."""
        inner, outer, reach, t = (jnp.asarray(leaf, x.dtype) for leaf in (self.inner, self.outer, self.reach, t))
        phase = 2 * jnp.pi * t * jnp.arange(1, (outer.shape[1] - 1) // 2 + 1, dtype=x.dtype)
        embedding = reach * jnp.concatenate([jnp.ones(1, x.dtype), jnp.sin(phase), jnp.cos(phase)])
        before = jnp.dot(inner, x, precision=_HIGHEST) + jnp.dot(outer, embedding, precision=_HIGHEST)
        return jax.nn.relu(before) / jnp.sqrt(jnp.asarray(inner.shape[0], x.dtype))


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class RandomFeatureScore:
    """``score(x, t) = theta phi(x, t)``.

    Attributes:
        features: the frozen layer.
        theta: (d, m), the trained one in its natural parameter.
    """

    features: RandomFeatures
    theta: Any

    @at_least_single
    def __call__(self, x: Event, t: Scalar) -> Event:
        """The score of one example (d,), in the dtype of ``x``."""
        return jnp.dot(jnp.asarray(self.theta, x.dtype), self.features(x, t), precision=_HIGHEST)

    @property
    def norm(self) -> Float[Array, ""]:
        """``|theta|_F``, the norm of the score in the space of the random-feature kernel."""
        return jnp.linalg.norm(jnp.asarray(self.theta))
