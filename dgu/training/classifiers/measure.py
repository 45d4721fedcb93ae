"""Loss and accuracy over many rows, a block of rows at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from dgu.core.typing import PyTree
from dgu.training.classifiers.losses import example_losses, is_correct

#: Rows that a loss over a whole split is computed from at a time.
MEASURE_BLOCK = 256


def measure(
    fetch: Callable[[Array], PyTree],
    outputs: Callable[[PyTree], Array],
    labels: Int[Array, " n"],
    loss: str,
    blocks: Int[ArrayLike, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean loss and accuracy of one model over the rows with labels >= 0, ``MEASURE_BLOCK`` rows at a time.

    Args:
        fetch: positions -> features.
        outputs: features -> outputs.
        labels: of each position.
        loss: name.
        blocks: number of blocks that hold all valid rows.
    """
    size = min(MEASURE_BLOCK, labels.shape[0])
    dtype = jax.eval_shape(lambda p: outputs(fetch(p)), jnp.zeros((size,), jnp.int32)).dtype

    def add(block: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        positions = block * size + jnp.arange(size, dtype=jnp.int32)
        at = jnp.minimum(positions, labels.shape[0] - 1)
        valid = (positions < labels.shape[0]) & (labels[at] >= 0)
        known = jnp.maximum(labels[at], 0)
        out = outputs(fetch(at))
        losses = jnp.where(valid, example_losses(loss, out, known), jnp.zeros((), dtype))
        return sums[0] + jnp.sum(losses), sums[1] + jnp.sum(valid & is_correct(loss, out, known), dtype=jnp.int32)

    zero = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    total, correct = lax.fori_loop(jnp.int32(0), jnp.asarray(blocks, jnp.int32), add, zero)
    count = jnp.sum(labels >= 0, dtype=jnp.int32).astype(dtype)
    return total / count, correct.astype(dtype) / count


def num_blocks(labels: Int[Array, "*runs n"]) -> Int[Array, ""]:
    """Blocks of ``measure`` up to the last valid row of any run."""
    ends = jnp.where(labels >= 0, jnp.arange(1, labels.shape[-1] + 1, dtype=jnp.int32), jnp.int32(0))
    return -(-jnp.max(ends) // min(MEASURE_BLOCK, labels.shape[-1]))


def local_labels(labels: Int[Array, " n"], rows: Int[Array, " m"], classes: Int[Array, " k"]) -> Int[Array, " m"]:
    """Position of each row's label in ``classes``; -1 for padded rows."""
    match = labels[jnp.maximum(rows, 0)][:, None] == classes[None, :]
    return jnp.where(rows >= 0, jnp.argmax(match, axis=1).astype(jnp.int32), jnp.int32(-1))
