"""Helpers for denoisers: arguments of ``jax.jit``, ranges of noise levels, batching, detecting hidden randomness."""

from functools import partial
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np
from jax import Array
from jaxtyping import Float

from dgu.core.errors import InputError
from dgu.core.typing import Denoiser, Event, Scalar

#: Primitives that draw random bits.
_DRAWS = frozenset({"random_bits", "random_gamma", "rng_bit_generator", "rng_uniform", "threefry2x32"})


def as_pytree(denoiser: Denoiser) -> Denoiser:
    """The denoiser as an argument of ``jax.jit``: a pytree as it is, any other callable as a static ``Partial``."""
    if jax.tree_util.all_leaves([denoiser]):
        return jax.tree_util.Partial(lambda x, sigma: denoiser(x, sigma))
    return denoiser


def check_range(denoiser: Any, name: str, sigmas: Any) -> None:
    """Raise ``InputError`` where a noise level lies outside the denoiser's ``sigma_min`` to ``sigma_max``, if it has
    them.

    Levels within 1e-5 of the range count as inside, as a grid may have been rounded to float32 on its way; traced ones
    are not looked at. A closed form has no range: it is exact at every level.
    """
    if isinstance(sigmas, jax.core.Tracer):
        return
    low, high = float(getattr(denoiser, "sigma_min", 0.0)), float(getattr(denoiser, "sigma_max", np.inf))
    values = np.asarray(sigmas, np.float64).ravel()
    outside = values[~((values >= low * (1 - 1e-5)) & (values <= high * (1 + 1e-5)))]
    if outside.size:
        raise InputError(f"{name} = {outside[0]:.6g}: must be from {low:.6g} to {high:.6g}, the network's noise levels")


@partial(jax.jit, static_argnames="axis_name")
def map_batch(
    denoiser: Denoiser, x: Float[Array, "n *event"], sigma: Float[Array, "n"], axis_name: str = "batch"
) -> Float[Array, "n *event"]:
    """The denoiser on every example with its own noise level; the batch axis is bound to ``axis_name``."""
    return jax.vmap(denoiser, axis_name=axis_name)(x, sigma)


def random_draws(denoiser: Denoiser, x: Event, sigma: Scalar) -> tuple[str, ...]:
    """Names of the primitives by which ``denoiser(x, sigma)`` draws random numbers: none if it is deterministic."""
    return tuple(sorted(_primitives(jax.make_jaxpr(denoiser)(x, sigma).jaxpr) & _DRAWS))


def _primitives(jaxpr: jex.Jaxpr) -> set[str]:
    """Names of all primitives of a jaxpr and of the jaxprs within it."""
    inner = (jex.Jaxpr, jex.ClosedJaxpr)
    names = {equation.primitive.name for equation in jaxpr.eqns}
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: isinstance(leaf, inner)):
            if isinstance(value, inner):
                names |= _primitives(value.jaxpr if isinstance(value, jex.ClosedJaxpr) else value)
    return names
