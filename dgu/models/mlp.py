"""A small fully connected denoiser, for non-image data and for training many networks at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dgu.core.arrays import at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Event, Key, Scalar
from dgu.models.preconditioning import edm_coefficients

#: Frequencies of the embedding of the noise level, cosine and sine of each.
_FREQUENCIES = 8


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class MLPDenoiser:
    """A residual network of dense layers under EDM's preconditioning, ``D = c_skip x + c_out F(c_in x; c_noise)``.

        h_0 = W_in u,    h_l = h_{l-1} + silu((W_l h_{l-1} + b_l) * (1 + V_l e)),    F = W_out h_L / sqrt(L) + b_out

    with u the flattened input and e = cos, sin of ``k c_noise``, k = 1 .. 8. All leaves are parameters: leading axes on
    them make an ensemble under ``jax.vmap`` (``dgu.training.train_together``). Make it with ``MLPDenoiser.init``.

    Attributes:
        parameters: a dictionary of arrays; ``in`` (d, w), ``hidden`` (L, w, w), ``hidden_bias`` (L, w), ``level`` (L,
            16, w), ``out`` (w, d), ``out_bias`` (d,).
        sigma_data: standard deviation of the data, for the preconditioning. Static.
    """

    parameters: Any
    sigma_data: float = field(default=0.5, metadata={"static": True})

    @classmethod
    def init(
        cls, key: Key, shape: Sequence[int], *, width: int = 256, depth: int = 3, sigma_data: float | int = 0.5
    ) -> "MLPDenoiser":
        """Random parameters for events of ``shape``; the last layer starts at 0, so that D starts as ``c_skip x``.

        Raises:
            InputError: sizes below 1, or a ``sigma_data`` that is not positive.
        """
        key = threefry(key)
        size = math.prod(shape)
        require(size >= 1, "shape", tuple(shape), "positive sizes")
        require(width >= 1 and depth >= 1, "(width, depth)", (width, depth), "1 or more")
        require(0 < sigma_data < math.inf, "sigma_data", sigma_data, "positive and finite")
        inner, hidden, level = jax.random.split(key, 3)
        return cls(
            {
                "in": jax.random.normal(inner, (size, width)) / size**0.5,
                "hidden": jax.random.normal(hidden, (depth, width, width)) / width**0.5,
                "hidden_bias": jnp.zeros((depth, width)),
                "level": 0.5 * jax.random.normal(level, (depth, 2 * _FREQUENCIES, width)) / (2 * _FREQUENCIES) ** 0.5,
                "out": jnp.zeros((width, size)),
                "out_bias": jnp.zeros(size),
            },
            sigma_data,
        )

    @property
    def parameter_count(self) -> int:
        """How many numbers training moves."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.parameters))

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The posterior mean that the network estimates, in the dtype of ``x``.

        Raises:
            InputError: an example of another size than the network's.
        """
        size = self.parameters["in"].shape[0]
        require(x.size == size, "x.shape", x.shape, f"an event of {size} numbers")
        c = edm_coefficients(jnp.asarray(sigma, x.dtype), self.sigma_data)
        return c.skip * x + c.out * self._raw(c.inp * x.ravel(), c.noise).reshape(x.shape)

    def _raw(self, u: Float[Array, " d"], c_noise: Float[Array, ""]) -> Float[Array, " d"]:
        p = {name: jnp.asarray(leaf, u.dtype) for name, leaf in self.parameters.items()}
        phase = c_noise * jnp.arange(1, _FREQUENCIES + 1, dtype=u.dtype)
        level = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])
        h = u @ p["in"]
        for weights, bias, gain in zip(p["hidden"], p["hidden_bias"], p["level"]):
            h = h + jax.nn.silu((h @ weights + bias) * (1 + level @ gain))
        return h @ p["out"] / len(p["hidden"]) ** 0.5 + p["out_bias"]
