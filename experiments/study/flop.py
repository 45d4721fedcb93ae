"""The arithmetic of a function, from its trace: what ``--dry-run`` prints."""

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from dgu.models import DiffusersNetwork, EDMNetwork
from experiments.study.memory import inner_programs

#: Functions that do less work than the published order of operations, by their names in a trace, and by what factor: a
#: 3 x 3 convolution of an image doubled in size takes nine multiplications where ours takes four, a 1 x 1 four for one.
PUBLISHED_OVER_OURS = {"conv_of_doubled": 9 / 4, "pointwise_before_doubling": 4.0}


def matmul_flop(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of the convolutions and matrix products in one call, two for each multiply-add.

    Taps of a convolution that fall on padding are counted, as papers count them (XLA's own analysis leaves them out);
    elementwise work is not. Shortcuts of ours count as the published operations (``PUBLISHED_OVER_OURS``). The body of
    a ``scan`` counts once for each step, a ``while_loop``'s and the larger branch of a ``cond`` once.

    Args:
        function: traced, never run.
        arguments: arrays, or ``jax.ShapeDtypeStruct`` in their place.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


@lru_cache(maxsize=32)
def network_flop(network: DiffusersNetwork | EDMNetwork) -> float:
    """``matmul_flop`` of one evaluation of a network; a gradient costs about two more evaluations."""
    return matmul_flop(network.apply, network.abstract_params, *_example(network))


def _example(network: DiffusersNetwork | EDMNetwork) -> list[jax.ShapeDtypeStruct]:
    """Shapes of one image, its noise level and, for a network with classes, its class."""
    image, level = jax.ShapeDtypeStruct(network.shape, jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    return [image, level, *([jax.ShapeDtypeStruct((), jnp.int32)] if network.unet.label_dim else [])]


def _count(jaxpr: core.Jaxpr) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * equation.outvars[0].aval.size * prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        per_output = prod(kernel) / kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * equation.outvars[0].aval.size * per_output
    if name in ("convolve", "convolve_kernel_gradient"):
        # Of dgu.models.convolution: sums over taps and channels of (G, a, b, C, O), or over examples and pixels of
        # (G, N, h, w, O).
        return 2.0 * equation.outvars[0].aval.size * prod(equation.invars[1].aval.shape[1:-1])
    shortcut = PUBLISHED_OVER_OURS.get(params.get("name", ""), 1.0)
    inner = [shortcut * _count(jaxpr) for jaxpr in inner_programs(params)]
    return (
        params.get("length", 1) * sum(inner)
        if name == "scan"
        else max(inner, default=0.0)
        if name == "cond"
        else sum(inner)
    )
