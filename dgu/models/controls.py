"""Networks that have learned nothing: what their preconditioning gives by itself, and the same with random parameters.

A measure of a trained network says something of its training only where these score otherwise.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dgu.core.arrays import at_least_single
from dgu.core.brief import short_repr
from dgu.core.keys import threefry
from dgu.core.typing import Event, Key, Scalar
from dgu.models.diffusers.network import DiffusersDenoiser
from dgu.models.edm import EDMDenoiser
from dgu.models.preconditioning import Preconditioning
from dgu.models.predictions import ConsistencyPreconditioning, Prediction

Network = TypeVar("Network", EDMDenoiser, DiffusersDenoiser)

#: Kernels below this share of the ordinary size, 1 / sqrt(fan-in), start (nearly) at zero.
_NEARLY_ZERO = 1e-3


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SkipDenoiser:
    """``denoiser(x, sigma) = c_skip(sigma) x``: a preconditioned network whose own output F is 0.

    An ADM with the reference's initial parameters, whose last layer is zero, is this denoiser.
    """

    preconditioning: Preconditioning | Prediction | ConsistencyPreconditioning = field(metadata={"static": True})

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The scaled input, in the shape and dtype of ``x``."""
        return self.factor(jnp.asarray(sigma, x.dtype)) * x

    def factor(self, sigma: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """``c_skip`` at these noise levels."""
        return self.preconditioning.coefficients(sigma).skip


def untrained(denoiser: Network, key: Key) -> Network:
    """The same architecture, preconditioning and class with fresh random parameters, whose own output is not zero.

    Parameters are those of the network's ``init``, but for the kernels that the reference starts at zero or at 1e-5 of
    the ordinary size: the last ones of the network and of its residual branches. As they are, the network would give
    ``c_skip x`` (``SkipDenoiser``); here they are drawn as other kernels of an ADM, from ``U(-1, 1) / sqrt(fan_in)``.
    The gains of EDM2, which start at 0 and silence its output in the same way, are 1.
    The noise levels of improved DDPM stay those of ``denoiser``.
    """
    key = threefry(key)
    leaves, tree = jax.tree_util.tree_flatten_with_path(denoiser.description.init(key))

    def drawn(place: int, path: tuple[Any, ...], leaf: Array) -> Array:
        if path[-1].key.endswith("gain"):
            return jnp.ones_like(leaf)
        if path[-1].key != "kernel":
            return leaf
        ordinary = math.prod(leaf.shape[:-1]) ** -0.5
        if jnp.sqrt(jnp.mean(jnp.square(leaf))) > _NEARLY_ZERO * ordinary:
            return leaf
        return ordinary * jax.random.uniform(jax.random.fold_in(key, place), leaf.shape, leaf.dtype, -1, 1)

    params = jax.tree_util.tree_unflatten(tree, [drawn(place, *each) for place, each in enumerate(leaves)])
    levels = {name: table for name, table in denoiser.params.items() if name == "u"}
    return replace(denoiser, params=params | levels)
