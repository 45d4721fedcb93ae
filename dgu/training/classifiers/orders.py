"""The order in which a run visits its rows: addressed by (seed, epoch), independent of padding and of other runs."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Int, Integer

from dgu.core.keys import seeded, stream
from dgu.core.typing import Key

#: An epoch's order sorts one word per row: 14 random bits above the row's 18-bit slot.
_SLOT_BITS = 18
MAX_ROWS = 2**_SLOT_BITS


def seed_key(seed: Int[ArrayLike, ""], name: str) -> Key:
    """The key of what ``name`` ("order", "init") of a run's seed."""
    return stream(seeded(seed), name)


def _bits(key: Key, size: int) -> Array:
    # Element i depends on (key, i) alone, so that padding a run changes none of its draws.
    return jax.random.bits(key, (size,), jnp.uint32)


def first_order(seed: Array, valid: Array) -> Array:
    """A uniform permutation of the valid positions, drawn once per run; the others follow."""
    size = valid.shape[0]
    words = jnp.where(valid, _bits(seed_key(seed, "first order"), size) >> 1, jnp.uint32(2**32 - 1))
    return lax.sort([words, jnp.arange(size, dtype=jnp.int32)], num_keys=1)[1]


def next_order(seed: Array, epoch: Array, first: Array, count: Array) -> Array:
    """The order of one epoch: the first order, shuffled. Positions, -1 from ``count`` on.

    One word per slot, random bits above the slot number, is sorted: five times faster than sorting pairs. Equal random
    bits leave a pair as in ``first``, which is uniform itself, so the order of every epoch is exactly uniform.
    """
    size = first.shape[0]
    slots = jnp.arange(size, dtype=jnp.uint32)
    bits = _bits(jax.random.fold_in(seed_key(seed, "order"), epoch), size)
    words = (bits & jnp.uint32(2**32 - MAX_ROWS)) | slots
    inside = slots < count.astype(jnp.uint32)
    words = jnp.sort(jnp.where(inside, words, jnp.uint32(2**32 - 1)), stable=False)
    chosen = jnp.where(inside, words & jnp.uint32(MAX_ROWS - 1), jnp.uint32(0))
    return jnp.where(inside, first[chosen], jnp.int32(-1))


def epoch_order(
    seed: Integer[ArrayLike, ""], epoch: Integer[ArrayLike, ""], valid: Bool[ArrayLike, " n"]
) -> Int[Array, " n"]:
    """The order in which a run visits its rows in one epoch: addressed by ``(seed, epoch)``.

    Args:
        seed: the run's seed.
        epoch: 0 for the first.
        valid: which positions of ``Runs.rows`` hold a row; at most 2**18 positions.

    Returns:
        Positions into ``Runs.rows``, batch after batch; -1 after the last valid one. Trailing padding changes nothing.
    """
    seed, epoch, valid = jnp.asarray(seed), jnp.asarray(epoch), jnp.asarray(valid)
    return next_order(seed, epoch, first_order(seed, valid), jnp.sum(valid))
