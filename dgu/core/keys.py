"""Addressed randomness: draw number ``i`` depends on ``(key, i)`` alone.

Nothing here is consumed or split in sequence. An example's key is ``fold_in(key, index)``; address 0 under it is the
initial noise, address ``step + 1`` the noise of sampler step ``step``. Hence a sample does not depend on the batch
size, on the order of the batches, on the number of devices, or on how a run was cut up by an interruption.

All draws are those of JAX's generator threefry: ``threefry`` makes a key of any other one into a key of it, and every
function of the package that takes a key passes it through there; ``seeded`` makes a new key.
"""

import operator
import zlib
from collections.abc import Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Integer

from dgu.core.errors import InputError, require_whole
from dgu.core.prng import seeded as seeded
from dgu.core.prng import threefry as threefry
from dgu.core.typing import Key


def stream(key: Key, *names: str | SupportsIndex) -> Key:
    """The key of a named stream: a class, an arm, a split, or any path of such names.

    ``stream(key, "mixture", "test", 3)`` folds the CRC-32 of each name, with its type, into ``key`` in turn, so that
    different paths give independent streams and the same path always the same one.

    Raises:
        InputError: a name that is neither text nor an integer.
    """
    key = threefry(key)
    for name in names:
        key = jax.random.fold_in(key, _folded(name))
    return key


def seed_of(key: Key, *names: str | SupportsIndex) -> int:
    """A whole number from 0 to 2^31 - 1 that is drawn from ``stream(key, *names)``: the seed of a generator that takes
    a number. Sums such as ``seed + number`` would be the same for neighbours of both.

    Raises:
        InputError: as ``stream``.
    """
    return int(jax.random.bits(stream(key, *names))) >> 1


def streams(key: Key, names: Sequence[str | SupportsIndex]) -> Key:
    """``stream(key, name)`` of each of the names, ``(len(names),)``, by one program.

    Raises:
        InputError: as ``stream``.
    """
    return _streams(threefry(key), np.asarray([_folded(name) for name in names], np.uint32))


@jax.jit
def _streams(key: Key, numbers: Array) -> Key:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)


def _folded(name: str | SupportsIndex) -> int:
    """The number that the name of a stream is folded in as."""
    # Through operator.index, so that a NumPy integer names the same stream as the int it equals.
    try:
        tagged = (f"str:{name}" if isinstance(name, str) else f"int:{operator.index(name)}").encode()
    except (TypeError, UnicodeEncodeError):  # No integer, or half of a pair of surrogates.
        raise InputError(f"name = {name!r}: must be text or a whole number, to name a stream by") from None
    return zlib.crc32(tagged)


def example_key(key: Key, index: Integer[ArrayLike, ""]) -> Key:
    """The key of example number ``index``: ``fold_in(key, index)``."""
    return jax.random.fold_in(threefry(key), _address("index", index))


def draw_step(
    example: Key, step: Integer[ArrayLike, ""], shape: Sequence[int], dtype: DTypeLike = jnp.float32
) -> Array:
    """Standard normal noise of one sampler step from an example's key. See ``step_noise``."""
    address = _address("step", step) + 1
    return jax.random.normal(jax.random.fold_in(threefry(example, "example"), address), tuple(shape), dtype)


def _address(name: str, number: Any) -> Any:
    """A number that draws are addressed by, of at least 32 bits: of fewer, the step after the last one would be 0.

    Raises:
        InputError: it is no whole number from 0 to 2^32 - 2 (not looked at where it is traced).
    """
    if isinstance(number, jax.core.Tracer):
        narrow = jnp.issubdtype(number.dtype, jnp.integer) and number.dtype.itemsize < 4
        return number.astype(jnp.int32) if narrow else number
    require_whole(name, number, 0, 2**32 - 2)
    return int(number)


def step_noise(
    key: Key,
    index: Integer[ArrayLike, ""],
    step: Integer[ArrayLike, ""],
    shape: Sequence[int],
    dtype: DTypeLike = jnp.float32,
) -> Array:
    """The standard normal draw that sample number ``index`` uses at sampler step ``step`` (0 for the first).

    Raises:
        InputError: ``index`` or ``step`` is no whole number of 0 or more.
    """
    return draw_step(example_key(key, index), step, shape, dtype)
