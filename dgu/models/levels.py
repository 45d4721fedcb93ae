"""Denoisers of single noise levels: any small network with its parameters, the linear one, and one network a level."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Num

from dgu.core.arrays import as_doubles, as_jax_floats, at_least_single
from dgu.core.brief import short_repr
from dgu.core.errors import require
from dgu.core.keys import threefry
from dgu.core.typing import Denoiser, Event, Key, PyTree, Scalar


@runtime_checkable
class Network(Protocol):
    """What a network is to training at fixed noise levels: hashable, with parameters apart."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    def init(self, key: Key) -> PyTree:
        """Parameters at the start: a nested dict of arrays."""

    def apply(self, params: PyTree, x: Any, sigma: Any) -> Any:
        """The denoised example, evaluated: deterministic."""


@dataclass(frozen=True)
class LinearNetwork:
    """``D(x; sigma) = V x / sqrt(sigma^2 + sigma_data^2) + b`` on the flattened example, with V and b from 0.

    Every affine map is one of these; the factor only makes the steps of an optimiser as large at every noise level.
    """

    shape: tuple[int, ...]
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        require(len(self.shape) > 0 and min(self.shape) >= 1, "shape", self.shape, "one or more positive integers")
        require(0 < self.sigma_data < math.inf, "sigma_data", self.sigma_data, "positive and finite")

    def init(self, key: Key) -> PyTree:
        """Zeros, whatever the key: ``{"weight": (d, d), "bias": (d,)}`` in float32."""
        key = threefry(key)
        size = math.prod(self.shape)
        return {"weight": jnp.zeros((size, size), jnp.float32), "bias": jnp.zeros(size, jnp.float32)}

    def apply(self, params: PyTree, x: Event, sigma: Scalar) -> Event:
        """The affine map on one example, in its dtype, float32 or wider."""
        x = as_jax_floats("x", x)
        scaled = x.ravel() * jax.lax.rsqrt(jnp.square(jnp.asarray(sigma, x.dtype)) + self.sigma_data**2)
        out = jnp.dot(params["weight"].astype(x.dtype), scaled, precision=jax.lax.Precision.HIGHEST)
        return (out + params["bias"].astype(x.dtype)).reshape(x.shape)

    def maps(
        self, params: PyTree, sigmas: Num[np.ndarray, " levels"]
    ) -> tuple[Float64[np.ndarray, "levels d d"], Float64[np.ndarray, "levels d"]]:
        """Weights W and biases of the maps ``W x + b``, from parameters with a leading axis of levels."""
        scale = 1 / np.sqrt(as_doubles("sigmas", sigmas) ** 2 + self.sigma_data**2)
        weights = np.asarray(params["weight"], np.float64) * scale[:, None, None]
        return weights, np.asarray(params["bias"], np.float64)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class NetworkDenoiser:
    """``denoiser(x, sigma) = network.apply(params, x, sigma)``: a pytree whose leaves are the parameters."""

    params: PyTree
    network: Network = field(metadata={"static": True})

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The denoised example, of the shape and dtype of ``x``.

        Raises:
            InputError: ``x`` has another shape than the network takes.
        """
        require(x.shape == self.network.shape, "x.shape", x.shape, f"{self.network.shape}, one example of this network")
        return self.network.apply(self.params, x, sigma)


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LevelDenoisers:
    """A denoiser made of one for each noise level, such as networks trained at one level each.

    ``denoiser(x, sigma)`` asks that of the level nearest to ``sigma`` in ``log sigma``, the first one on ties. Under
    ``jax.vmap`` over ``sigma`` each example gathers its own parameters; keep ``sigma`` unmapped where these are many,
    or
    convolutions: ``at`` gives one level's denoiser.

    Attributes:
        sigmas: ``(L,)``, positive.
        denoisers: a denoiser whose leaves have a leading axis of L levels.
    """

    sigmas: Any
    denoisers: Any

    @at_least_single
    def __call__(self, x: Event, sigma: Scalar) -> Event:
        """The nearest level's answer for one example.

        Raises:
            InputError: leaves without the axis of levels.
        """
        count = len(self.sigmas)
        sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(self.denoisers)}
        require(sizes <= {(count,)}, "leading axes of the leaves", sorted(sizes), f"{(count,)}, an entry a level")
        away = jnp.abs(jnp.log(jnp.asarray(self.sigmas, x.dtype)) - jnp.log(jnp.asarray(sigma, x.dtype)))
        return self.at(jnp.argmin(away))(x, sigma)

    def at(self, level: Any) -> Denoiser:
        """The denoiser of level number ``level``, which may be traced."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[level], self.denoisers)

    @property
    def sigma_min(self) -> float:
        """The lowest level."""
        return float(np.min(np.asarray(self.sigmas)))

    @property
    def sigma_max(self) -> float:
        """The highest level."""
        return float(np.max(np.asarray(self.sigmas)))
