"""The one generator that everything is drawn from, JAX's threefry, whatever generator JAX itself is set to."""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dgu.core.errors import MAX_VALUE, InputError, require, shortened
from dgu.core.typing import Key

#: Name of the generator, as ``jax.random.key(seed, impl=...)`` takes it.
GENERATOR = "threefry2x32"


def seeded(seed: Any) -> Key:
    """``jax.random.key(seed)`` of the generator threefry, also where JAX's default (``JAX_DEFAULT_PRNG_IMPL``) is
    another.

    Args:
        seed: a whole number from -2^31 to 2^32 - 1, or one of a JAX array, which may be traced.

    Raises:
        InputError: no whole number, or one outside the range: JAX would take another seed for it.
    """
    if not isinstance(seed, Array):
        try:
            number = operator.index(seed)
        except TypeError:
            raise InputError(f"seed = {shortened(repr(seed), MAX_VALUE)}: must be a whole number") from None
        require(-(2**31) <= number < 2**32, "seed", number, "from -2147483648 to 4294967295")
        seed = number
    require(jnp.issubdtype(jnp.result_type(seed), jnp.integer) and jnp.ndim(seed) == 0, "seed", seed, "a whole number")
    return jax.random.key(seed, impl=GENERATOR)


def threefry(key: Key, name: str = "key", *, shape: tuple[int, ...] | None = ()) -> Key:
    """``key`` as a key of the generator threefry, which every function of the package that takes a key draws from.

    With JAX's generators rbg and unsafe_rbg (the default of some TPU set-ups) ``vmap`` over keys draws from the first
    key alone, so that a sample would depend on its batch. A key of these is converted by its own bits:
    ``jax.random.key(s)`` of either gives ``jax.random.key(s, impl="threefry2x32")``. Raw ``uint32`` keys of
    ``jax.random.PRNGKey`` are wrapped.

    Args:
        key: one key, or an array of keys; it may be traced.
        name: name of the argument, for the error.
        shape: of the array of keys, ``()`` for one key; None for any.

    Raises:
        InputError: no key, an array of keys of another shape, or a key of another generator.
    """
    found = _as_threefry(key, name)
    if shape is not None and found.shape != shape:
        wanted = "one key" if shape == () else f"keys of shape {shape}"
        raise InputError(f"{name}: has shape {found.shape}; must be {wanted}")
    return found


def _as_threefry(key: Key, name: str) -> Key:
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        kind = str(jax.random.key_impl(key))
        if kind == GENERATOR:
            return key
        data = jax.random.key_data(key)
    elif dtype == np.uint32 and key.shape[-1:] in ((2,), (4,)):
        data = jnp.asarray(key)
        kind = "rbg" if data.shape[-1] == 4 else GENERATOR
    else:
        raise InputError(f"{name} = {shortened(repr(key), MAX_VALUE)}: must be a key, as jax.random.key makes it")
    if kind == GENERATOR:
        return jax.random.wrap_key_data(data, impl=kind)
    if kind not in ("rbg", "unsafe_rbg"):
        raise InputError(f"{name}: is of the generator {kind}; must be of {GENERATOR}, rbg or unsafe_rbg")
    first, second = data[..., :2], data[..., 2:]
    # A fresh key repeats threefry's two words; a folded or split one has four of its own.
    fresh = jnp.all(first == second, axis=-1, keepdims=True)
    return jax.random.wrap_key_data(jnp.where(fresh, first, _mixed(first, second)), impl=GENERATOR)


def _mixed(first: Array, second: Array) -> Array:
    """The words of the threefry key ``first`` with both words of ``second`` folded in, over any leading axes."""

    def one(a: Array, b: Array) -> Array:
        key = jax.random.wrap_key_data(a, impl=GENERATOR)
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, b[0]), b[1]))

    for _ in first.shape[:-1]:
        one = jax.vmap(one)
    return one(first, second)
