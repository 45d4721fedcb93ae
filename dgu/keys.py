"""Addressed randomness: draw number ``i`` depends on ``(key, i)`` alone.

Nothing here is consumed or split in sequence. An example's key is ``fold_in(key, index)``; address 0 under it is the
initial noise, address ``step + 1`` the noise of sampler step ``step``. Hence a sample does not depend on the batch
size, on the order of the batches, on the number of devices, or on how a run was cut up by an interruption.
"""

import operator
import zlib
from collections.abc import Callable, Sequence
from typing import SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Int

from dgu.bases import named_base
from dgu.errors import MAX_VALUE, InputError, shortened
from dgu.typing import Key

Base = str | Callable[[Key, Sequence[int]], Array]


def threefry(key: Key, name: str = "key") -> Key:
    """``key`` as a key of the generator threefry, which every function of the package that takes a key draws from.

    With JAX's generators rbg and unsafe_rbg (the default of some TPU set-ups) ``vmap`` over keys draws from the first key
    alone, so that a sample would depend on its batch. A key of these is converted by its own bits: ``jax.random.key(s)`` of
    either gives ``jax.random.key(s, impl="threefry2x32")``. Raw ``uint32`` keys of ``jax.random.PRNGKey`` are wrapped.

    Args:
        key: one key, or an array of keys.
        name: name of the argument, for the error.

    Raises:
        InputError: no key, or one of another generator.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        kind = str(jax.random.key_impl(key))
        if kind == "threefry2x32":
            return key
        data = jax.random.key_data(key)
    elif dtype == np.uint32 and key.shape[-1:] in ((2,), (4,)):
        data = jnp.asarray(key)
        kind = "rbg" if data.shape[-1] == 4 else "threefry2x32"
    else:
        raise InputError(f"{name} = {shortened(repr(key), MAX_VALUE)}: must be a key, as jax.random.key makes it")
    if kind == "threefry2x32":
        return jax.random.wrap_key_data(data, impl=kind)
    if kind not in ("rbg", "unsafe_rbg"):
        raise InputError(f"{name}: is of the generator {kind}; must be of threefry2x32, rbg or unsafe_rbg")
    first, second = data[..., :2], data[..., 2:]
    # A fresh key repeats threefry's two words; a folded or split one has four of its own.
    fresh = jnp.all(first == second, axis=-1, keepdims=True)
    return jax.random.wrap_key_data(jnp.where(fresh, first, _mixed(first, second)), impl="threefry2x32")


def _mixed(first: Array, second: Array) -> Array:
    """The words of the threefry key ``first`` with both words of ``second`` folded in, over any leading axes."""

    def one(a: Array, b: Array) -> Array:
        key = jax.random.wrap_key_data(a, impl="threefry2x32")
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, b[0]), b[1]))

    for _ in first.shape[:-1]:
        one = jax.vmap(one)
    return one(first, second)


def stream(key: Key, *names: str | SupportsIndex) -> Key:
    """The key of a named stream: a class, an arm, a split, or any path of such names.

    ``stream(key, "mixture", "test", 3)`` folds the CRC-32 of each name, with its type, into ``key`` in turn, so that
    different paths give independent streams and the same path always the same one.
    """
    key = threefry(key)
    for name in names:
        # Through operator.index, so that a NumPy integer names the same stream as the int it equals.
        tagged = f"str:{name}" if isinstance(name, str) else f"int:{operator.index(name)}"
        key = jax.random.fold_in(key, zlib.crc32(tagged.encode()))
    return key


def example_key(key: Key, index: Int[ArrayLike, ""]) -> Key:
    """The key of example number ``index``: ``fold_in(key, index)``."""
    return jax.random.fold_in(threefry(key), index)


def draw_initial(example: Key, shape: Sequence[int], dtype: DTypeLike = jnp.float32, base: Base = "gaussian") -> Array:
    """Unit initial noise from an example's key. See ``initial_noise``."""
    address = jax.random.fold_in(example, 0)
    if base == "gaussian":
        return jax.random.normal(address, tuple(shape), dtype)
    return jnp.asarray(named_base(base)(address, tuple(shape)), dtype)


def draw_step(example: Key, step: Int[ArrayLike, ""], shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Standard normal noise of one sampler step from an example's key. See ``step_noise``."""
    return jax.random.normal(jax.random.fold_in(example, step + 1), tuple(shape), dtype)


def initial_noise(
    key: Key, index: Int[ArrayLike, ""], shape: Sequence[int], dtype: DTypeLike = jnp.float32, base: Base = "gaussian"
) -> Array:
    """The unit noise that sample number ``index`` starts from (before scaling by ``sigmas[0]``).

    Args:
        key: the key given to ``dgu.samplers.sample``.
        index: the sample's number, 0 or more.
        shape: shape of one example.
        dtype: floating dtype of the draw; float32 and float64 draws of one address differ.
        base: ``"gaussian"``, ``"student_t"`` or ``"multivariate_student_t"`` (3 degrees of freedom, not scaled), or a
            callable ``(key, shape) -> noise``, such as those of ``dgu.bases``.

    Raises:
        InputError: ``base`` is another name.
    """
    return draw_initial(example_key(key, index), shape, dtype, base)


def step_noise(
    key: Key, index: Int[ArrayLike, ""], step: Int[ArrayLike, ""], shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> Array:
    """The standard normal draw that sample number ``index`` uses at sampler step ``step`` (0 for the first)."""
    return draw_step(example_key(key, index), step, shape, dtype)
