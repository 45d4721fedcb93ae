"""Noisy versions of given images with addressed noise, and the checks and loops shared by measurements on them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float64, Int, Num

from dgu.core import keys
from dgu.core.arrays import as_doubles, as_examples, as_jax_floats, check_squares
from dgu.core.denoisers import check_range
from dgu.core.errors import InputError, require, require_whole
from dgu.core.typing import Denoiser, Event, Key, PyTree, Scalar


def noisy_input(
    key: Key, image: Event, index: Int[ArrayLike, ""], sigma: Scalar, level: Int[ArrayLike, ""] = 0, draw: Any = 0
) -> Event:
    """``image + sigma eps``, the standard normal eps addressed by the number of the image, of the level and of the
    draw.

    Studies that are given the same key see the same inputs, whatever their batches and denoisers.
    """
    key = keys.threefry(key)
    image = as_jax_floats("image", image)
    eps = keys.step_noise(jax.random.fold_in(key, level), index, draw, image.shape, image.dtype)
    # Held once: a compiled program otherwise draws the noise anew for each of its uses, such as each point of a
    # mixture.
    return jax.lax.optimization_barrier(image + jnp.asarray(sigma, image.dtype) * eps)


def noisy_batch(
    key: Key, images: Num[ArrayLike, " n *event"], sigma: Scalar, level: Int[ArrayLike, ""] = 0
) -> Float[Array, " n *event"]:
    """``noisy_input`` of every image of a batch, whose numbers are their places in it."""
    key, rows = keys.threefry(key), as_jax_floats("images", images)
    numbers = jnp.arange(len(rows), dtype=jnp.int32)
    return jax.vmap(lambda image, number: noisy_input(key, image, number, sigma, level))(rows, numbers)


def checked_images(images: Num[ArrayLike, " n *event"], at_least: int, name: str = "images") -> np.ndarray:
    """The images as an array of float32 or float64; ``InputError`` where they are too few, no numbers, or not
    finite.
    """
    array = as_examples(name, images)
    require(array.ndim >= 2, f"{name}.shape", array.shape, "(n, *event)")
    require(len(array) >= at_least, name, f"{len(array)} images", f"at least {at_least}")
    require(bool(np.isfinite(array).all()), name, "non-finite", "finite")
    named: dict[str, Any] = {name: array}
    check_squares(**named)
    return array


def checked_levels(
    sigmas: Num[ArrayLike, " levels"], denoisers: Mapping[str, Denoiser]
) -> Float64[np.ndarray, " levels"]:
    """Noise levels in float64, 0 or more and within every denoiser's range."""
    levels = as_doubles("sigmas", sigmas)
    usable = levels.size > 0 and bool((np.isfinite(levels) & (levels >= 0)).all())
    require(usable, "sigmas", levels.tolist(), "one or more finite levels, 0 or more")
    for denoiser in denoisers.values():
        check_range(denoiser, "sigmas", levels)
    return levels


def in_blocks(rows: np.ndarray, batch_size: int) -> tuple[np.ndarray, Int[np.ndarray, "blocks size"]]:
    """Rows as ``(blocks, size, ...)`` with their numbers; the last block is filled up with the last row.

    Blocks are as equal as can be: no larger than ``batch_size``, and less than a block is filling.
    """
    require_whole("batch_size", batch_size)
    blocks = math.ceil(len(rows) / batch_size)
    size = math.ceil(len(rows) / blocks)
    numbers = np.minimum(np.arange(blocks * size, dtype=np.int32), len(rows) - 1).reshape(blocks, size)
    return rows[numbers], numbers


def over_levels(
    one: Callable[[Array, Array, Array, Array], PyTree],
    blocks: Num[Array, "blocks size *row"],
    numbers: Int[Array, "blocks size"],
    sigmas: Float[Array, " levels"],
) -> PyTree:
    """``one(row, number, sigma, level)`` of every row at every level, ``(levels * blocks, size, ...)``, levels
    outermost.

    One loop over levels and blocks, so that what is traced is traced once; the rows of a block are mapped together.
    """
    many = jax.vmap(one, in_axes=(0, 0, None, None))
    level, block = (
        part.ravel().astype(jnp.int32)
        for part in jnp.meshgrid(jnp.arange(sigmas.shape[0]), jnp.arange(blocks.shape[0]), indexing="ij")
    )
    return jax.lax.map(lambda at: many(blocks[at[1]], numbers[at[1]], sigmas[at[0]], at[0]), (level, block))


def require_finite(values: np.ndarray, sigmas: np.ndarray, denoiser: str) -> None:
    """``InputError`` that names the first level and example whose entry of ``(levels, ..., examples)`` is not
    finite.
    """
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        where = f"at sigma = {sigmas[bad[0][0]]:.6g}, example {bad[0][-1]}"
        raise InputError(f"denoiser {denoiser!r}: non-finite output {where}: must be finite")
