"""The one rule by which every function takes a denoiser, and calls it; also ranges of noise levels, batching, and
detecting hidden randomness.

Any callable is taken. What of it are arrays becomes an argument of the compiled programs; everything else in it, such
as an activation function, is a constant that they are compiled for.
"""

import functools
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from dgu.core.errors import InputError
from dgu.core.typing import Denoiser, Event, Scalar

#: Primitives that draw random bits.
_DRAWS = frozenset({"random_bits", "random_gamma", "rng_bit_generator", "rng_uniform", "threefry2x32"})


def as_pytree(denoiser: Any, name: str = "denoiser") -> Any:
    """A callable as an argument of ``jax.jit``: a pytree whose leaves are its arrays and numbers.

    A callable pytree of arrays is returned as it is. Of any other the rest is static: leaves that are no numbers (the
    activation function of an Equinox module, flags), or all of a callable that is no pytree. Statics are compared by
    value, or by identity where they have none, so that the same object compiles once; a ``functools.partial`` and a
    bound method take their arguments along as leaves. Attributes are those of the callable.

    Raises:
        InputError: it cannot be called, or is a PyTorch module.
    """
    _require_callable(denoiser, name)
    if is_torch(denoiser):
        raise InputError(
            f"{name} = {type(denoiser).__name__}: is a PyTorch module; must be a function of JAX arrays, as which "
            "dgu.denoiser(module) wraps it"
        )
    if isinstance(denoiser, functools.partial) and not isinstance(denoiser, jax.tree_util.Partial):
        denoiser = jax.tree_util.Partial(_Constant.of(denoiser.func), *denoiser.args, **denoiser.keywords)
    elif isinstance(denoiser, MethodType) and not jax.tree_util.all_leaves([denoiser.__self__]):
        denoiser = jax.tree_util.Partial(denoiser.__func__, denoiser.__self__)
    leaves, structure = jax.tree.flatten(denoiser)
    numeric = [_is_numeric(leaf) for leaf in leaves]
    if all(numeric):
        return denoiser
    arrays = tuple(leaf for leaf, number in zip(leaves, numeric) if number)
    rest = tuple(None if number else _Constant.of(leaf) for leaf, number in zip(leaves, numeric))
    return _WithConstants(arrays, structure, rest)


def _require_callable(denoiser: Any, name: str) -> None:
    if not callable(denoiser):
        raise InputError(f"{name} = {type(denoiser).__name__}: must be callable on ONE example, {name}(x, sigma)")


def is_torch(model: Any) -> bool:
    """Whether a model is a PyTorch module."""
    return any(kind.__module__.split(".")[0] == "torch" for kind in type(model).__mro__)


def _is_numeric(leaf: Any) -> bool:
    """Whether a leaf is what ``jax.jit`` takes as an argument and may be traced; a truth value decides on programs."""
    if isinstance(leaf, bool):
        return False
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype.kind not in "OSUMm"
    return isinstance(leaf, int | float | complex) or (hasattr(leaf, "shape") and hasattr(leaf, "dtype"))


class _Constant:
    """An object without a value of its own to compare it by: it is equal to itself alone."""

    def __init__(self, value: Any):
        self.value = value

    @classmethod
    def of(cls, value: Any) -> Any:
        """The value itself where it can be compared, as static parts of pytrees have to be."""
        try:
            hash(value)
        except TypeError:
            return cls(value)
        return value

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.value(*arguments, **options)

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Constant) and other.value is self.value


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _WithConstants:
    """A callable taken apart into arrays, its structure, and what is neither."""

    arrays: tuple[Any, ...]
    structure: Any = field(metadata={"static": True})
    rest: tuple[Any, ...] = field(metadata={"static": True})

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._whole()(*arguments, **options)

    def _whole(self) -> Any:
        arrays = iter(self.arrays)
        constants = (each.value if isinstance(each, _Constant) else each for each in self.rest)
        leaves = [next(arrays) if constant is None else constant for constant in constants]
        return jax.tree.unflatten(self.structure, leaves)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("arrays", "structure", "rest"):
            raise AttributeError(name)
        return getattr(self._whole(), name)


def denoise(denoiser: Denoiser, x: Event, sigma: Scalar) -> Event:
    """``denoiser(x, sigma)`` of one example, in its dtype: how every function of the library calls one.

    Raises:
        InputError: it cannot be called with one example, or does not return an array of the example's shape.
    """
    _require_callable(denoiser, "denoiser")
    try:
        found = denoiser(x, sigma)
    except Exception as error:
        # Those of the device, of memory and of numbers that are not finite tell their own story.
        if isinstance(error, InputError | FloatingPointError | MemoryError | jax.errors.JaxRuntimeError):
            raise
        said = str(error).strip().partition("\n")[0]
        raise InputError(f"{_called(x)} it raised {type(error).__name__}: {said}; {_REMEDY}") from error
    if not hasattr(found, "shape") or not hasattr(found, "dtype") or found.shape != x.shape:
        shown = f"shape {found.shape}" if hasattr(found, "shape") else type(found).__name__
        raise InputError(f"{_called(x)} it returned {shown}; must return an array of the shape of x: {_REMEDY}")
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise InputError(f"{_called(x)} it returned {found.dtype}; must return real numbers of floating point")
    return jnp.asarray(found).astype(x.dtype)


_REMEDY = "dgu.denoiser(model, batched=True) wraps what takes a batch, or predicts something else"


def _called(x: Event) -> str:
    return f"denoiser: called with ONE example, x of shape {x.shape} and a scalar sigma,"


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


def map_batch(
    denoiser: Denoiser, x: Float[ArrayLike, " n *event"], sigma: Float[ArrayLike, " n"], axis_name: str = "batch"
) -> Float[Array, " n *event"]:
    """The denoiser on every example with its own noise level; the batch axis is bound to ``axis_name``."""
    return _mapped(as_pytree(denoiser), jnp.asarray(x), jnp.asarray(sigma), axis_name)


@partial(jax.jit, static_argnames="axis_name")
def _mapped(denoiser: Denoiser, x: Array, sigma: Array, axis_name: str) -> Array:
    return jax.vmap(partial(denoise, denoiser), axis_name=axis_name)(x, sigma)


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
