"""The one-hidden-layer score network with Fourier time features of arXiv 2311.01797, section 4.1, for many widths at
once.

    e(t) = [sin(2 pi w t), cos(2 pi w t)],   w ~ N(0, 30^2), frozen
    h = W_x x + b_x + W_t e(t) + b_t,        out = (W_o swish(h) + b_o) / divisor,       s(x, t) = out / std(t)

Every layer is trained. Layers start as PyTorch's do, uniform on +-1 / sqrt(fan in). A network narrower than ``width``
is the same one with hidden units switched off (``units``), so that networks of all widths train as one program.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Integer

from dgu.core.arrays import at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Event, Key, Scalar


@jax.tree_util.register_static
@dataclass(frozen=True)
class ShallowNet:
    """Sizes of the network; parameters are a dict of arrays, made by ``init``.

    Attributes:
        width: hidden units, m; the most that a network has.
        dimension: d of the data.
        frequencies: of the time features, two of each.
        frequency_scale: standard deviation of the frequencies.
        divisor: of the output. The paper's 16 stands beside 2,048 units in its code's comment and beside 16 in its
            default.
    """

    width: int = 16
    dimension: int = 1
    frequencies: int = 2
    frequency_scale: float = 30.0
    divisor: float = 16.0

    def __post_init__(self) -> None:
        for name in ("width", "dimension", "frequencies"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("frequency_scale", "divisor"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive and finite")

    def init(
        self, key: Key, units: Integer[ArrayLike, ""] | int | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Trainable parameters and frozen ones (``frequencies``, and ``mask`` of the hidden units in use).

        Args:
            key: of this network. Draws of a unit do not depend on ``width`` or ``units``.
            units: hidden units in use, at most ``width``; all by default.
        """
        key = threefry(key)
        count = jnp.asarray(self.width if units is None else units, jnp.float32)
        hidden = jnp.arange(self.width)
        inputs = 2 * self.frequencies

        def uniform(name: int, columns: int) -> Array:
            """(columns, width) on +-1: each hidden unit's from its own address."""
            own = jax.random.fold_in(key, name)
            draw = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(own, i), (columns,), minval=-1, maxval=1))
            return draw(hidden).T

        mask = (hidden < count).astype(jnp.float32)
        last = 1 / jnp.sqrt(count)
        bias = jax.random.uniform(jax.random.fold_in(key, 5), (self.dimension,), minval=-1, maxval=1)
        params = {
            "x_kernel": uniform(0, self.dimension) / math.sqrt(self.dimension),
            "x_bias": uniform(1, 1)[0] / math.sqrt(self.dimension),
            "t_kernel": uniform(2, inputs) / math.sqrt(inputs),
            "t_bias": uniform(3, 1)[0] / math.sqrt(inputs),
            "out_kernel": uniform(4, self.dimension) * last * mask[None],
            "out_bias": bias * last,
        }
        frequencies = self.frequency_scale * jax.random.normal(jax.random.fold_in(key, 6), (self.frequencies,))
        return params, {"frequencies": frequencies, "mask": mask}

    def embed(self, frozen: dict[str, Array], t: Scalar) -> Float[Array, " e"]:
        """e(t) of one time, 2 ``frequencies`` numbers within +-1."""
        frequencies = frozen["frequencies"]
        phase = 2 * jnp.pi * frequencies * jnp.asarray(t, frequencies.dtype)
        return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])

    def apply(
        self, params: dict[str, Array], frozen: dict[str, Array], x: Float[Array, " d"], embedding: Float[Array, " e"]
    ) -> Float[Array, " d"]:
        """``out`` of one example, not yet divided by ``std(t)``.

        Products of so small matrices are sums of a few vectors: XLA fuses these, and calls a kernel for each ``dot``.
        """
        hidden = params["x_bias"] + params["t_bias"]
        for j in range(self.dimension):
            hidden = hidden + x[j] * params["x_kernel"][j]
        for j in range(2 * self.frequencies):
            hidden = hidden + embedding[j] * params["t_kernel"][j]
        active = jax.nn.silu(hidden) * frozen["mask"]
        return (jnp.sum(params["out_kernel"] * active[None], axis=1) + params["out_bias"]) / self.divisor


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ShallowScore:
    """``score(x, t) = out / std(t)`` of one network, a pytree.

    Attributes:
        params, frozen: of ``net``, as ``ShallowNet.init`` makes them.
        net: static.
        sde: the process, with ``std(t)``; static.
    """

    params: Any
    frozen: Any
    net: ShallowNet = field(metadata={"static": True})
    sde: Any = field(metadata={"static": True})

    @at_least_single
    def __call__(self, x: Event, t: Scalar) -> Event:
        """The score of one example (d,), in the dtype of ``x``."""
        params, frozen = (jax.tree.map(lambda a: jnp.asarray(a, x.dtype), part) for part in (self.params, self.frozen))
        t = jnp.asarray(t, x.dtype)
        return self.net.apply(params, frozen, x, self.net.embed(frozen, t)) / self.sde.std(t)
