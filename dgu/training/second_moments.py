"""Streaming second moments of a denoiser's inputs and outputs, in float64: all that the best linear map needs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int, Num

from dgu.core.arrays import as_examples
from dgu.core.brief import short_repr
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.errors import InputError
from dgu.core.keys import threefry
from dgu.core.noisy import in_blocks, noisy_input
from dgu.core.typing import Denoiser, Event, Key, Scalar

_HIGHEST = jax.lax.Precision.HIGHEST


@short_repr
@dataclass(frozen=True, eq=False)
class CrossMoments:
    """Moments of inputs y and outputs t of n examples, each about its own mean. NumPy float64.

    Attributes:
        count: n.
        mean_input, mean_output: ``(d,)``.
        inputs: ``sum (y - mean)(y - mean)^T``, ``(d, d)``.
        cross: ``sum (t - mean)(y - mean)^T``, ``(d, d)``, outputs by inputs.
        output_square: ``sum |t - mean|^2``.
    """

    count: int
    mean_input: np.ndarray
    mean_output: np.ndarray
    inputs: np.ndarray
    cross: np.ndarray
    output_square: float


def cross_moments(
    denoiser: Denoiser,
    images: Num[np.ndarray, " n *event"],
    sigma: float,
    key: Key,
    *,
    level: int = 0,
    draws: int | Sequence[int] = 1,
    rows: Int[np.ndarray, " rows"] | None = None,
    residual: bool = False,
    batch_size: int = 512,
    block: int | None = None,
) -> CrossMoments:
    """Moments over ``y = image + sigma eps`` and ``t = D(y)``, or ``t = D(y) - image`` with ``residual``.

    One pass in blocks: beside the images and a block, two d x d matrices are held, whatever the number of examples. The
    denoiser runs in the dtype of the images; its inputs and outputs are then multiplied in float64, as at small noise
    the inputs' smallest variances, ``sigma^2``, lie below the rounding of float32 products. Blocks are combined by the
    rule of Chan, Golub and LeVeque, about the running means.

    Args:
        denoiser: any pytree that is called as ``denoiser(x, sigma)``.
        images: clean images.
        sigma, level: noise level and its place, which addresses the noise (see ``dgu.core.noisy.noisy_input``).
        key: key of the noise.
        draws: noisy versions of each image, one after another: how many, or the numbers of those wanted.
        rows: numbers of the images wanted, which address their noise; all by default.
        residual: whether the clean image is subtracted from the outputs.
        batch_size: images at a time, at most; blocks are as equal as can be.
        block: images at a time, exactly: smaller blocks are padded, and the padding does not count (one compilation for
            many calls).

    Raises:
        InputError: an output of another shape than its input, or one that is not finite (it names level and example).
    """
    key = threefry(key)
    images = as_examples("images", images)
    model, size = as_pytree(denoiser), images[0].size
    place, noise = np.int32(level), np.asarray(sigma, images.dtype)
    with jax.enable_x64(True):
        state: Any = nothing(size)
    for draw in range(draws) if isinstance(draws, int) else draws:
        at = key, place, np.int32(draw), residual
        for number, counts in numbered_blocks(np.arange(len(images)) if rows is None else rows, batch_size, block):
            inputs, outputs = _evaluate(model, images[number], number, noise, *at)
            require_finite_outputs(denoiser, outputs, sigma, number)
            with jax.enable_x64(True):
                state = add_block(state, inputs, outputs, counts)
    count, mean_input, mean_output, inputs, cross, square = (np.asarray(part) for part in state)
    return CrossMoments(int(count), mean_input, mean_output, inputs, cross, float(square))


def numbered_blocks(
    rows: Int[np.ndarray, " rows"], batch_size: int, block: int | None
) -> Iterator[tuple[Int[np.ndarray, " b"], Bool[np.ndarray, " b"]]]:
    """Numbers of the images of each block, and which of them count: those that pad the last block do not.

    Blocks have ``block`` rows, or are as equal as can be and at most ``batch_size``.
    """
    size = block_size(len(rows), batch_size) if block is None else block
    # The images are taken a block at a time, never copied as a whole.
    places = np.arange(math.ceil(len(rows) / size) * size).reshape(-1, size)
    yield from zip(rows[np.minimum(places, len(rows) - 1)].astype(np.int32), places < len(rows))


def require_finite_outputs(
    denoiser: Denoiser, outputs: Float[Array, "b d"], sigma: float, number: Int[np.ndarray, " b"]
) -> None:
    """``InputError`` that names level and example of the first output that is not finite."""
    bad = np.flatnonzero(~np.isfinite(np.asarray(outputs)).all(axis=1))
    if bad.size:
        where = f"at sigma = {sigma:.6g}, example {number[bad[0]]}"
        raise InputError(f"denoiser {type(denoiser).__name__!r}: non-finite output {where}: must be finite")


def nothing(size: int) -> tuple[Any, ...]:
    """The state before the first block: count, both means, both scatters, and the outputs' squares."""
    zero = partial(jnp.zeros, dtype=jnp.float64)
    return zero(()), zero((size,)), zero((size,)), zero((size, size)), zero((size, size)), zero(())


@partial(jax.jit, static_argnames="residual")
def _evaluate(
    denoiser: Denoiser,
    images: Float[Array, " b *event"],
    numbers: Int[Array, " b"],
    sigma: Scalar,
    key: Key,
    level: Array,
    draw: Array,
    residual: bool,
) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
    """Noisy inputs and the denoiser's outputs, flattened."""

    def one(image: Event, number: Array) -> tuple[Array, Array]:
        y = noisy_input(key, image, number, sigma, level, draw)
        t = denoise(denoiser, y, sigma)
        return y.ravel(), (t - image if residual else t).ravel()

    return jax.vmap(one)(images, numbers)


@partial(jax.jit, donate_argnums=0)
def add_block(
    state: tuple[Any, ...], inputs: Float[Array, "b d"], outputs: Float[Array, "b d"], counts: Bool[Array, " b"]
) -> tuple[Any, ...]:
    """The state with the rows that count added: Chan's rule, with this block's moments about its own means."""
    count, mean_input, mean_output, scatter, cross, square = state
    weights = counts.astype(jnp.float64)
    added = jnp.sum(weights)

    def centre(rows: Array) -> tuple[Array, Array]:
        wide = rows.astype(jnp.float64)
        mean = jnp.dot(weights, wide, precision=_HIGHEST) / added
        return mean, (wide - mean[None]) * weights[:, None]

    (own_input, y), (own_output, t) = centre(inputs), centre(outputs)
    total = count + added
    shift_input, shift_output = own_input - mean_input, own_output - mean_output
    share = count * added / total
    own_scatter, own_cross = scatters(y, t)
    return (
        total,
        mean_input + added / total * shift_input,
        mean_output + added / total * shift_output,
        scatter + own_scatter + share * jnp.outer(shift_input, shift_input),
        cross + own_cross + share * jnp.outer(shift_output, shift_input),
        square + jnp.sum(t * t) + share * jnp.dot(shift_output, shift_output, precision=_HIGHEST),
    )


def scatters(y: Float[Array, "b d"], t: Float[Array, "b d"]) -> tuple[Float[Array, "d d"], Float[Array, "d d"]]:
    """``y^T y`` and ``t^T y``."""
    # On CPUs XLA multiplies by a transpose at a third of the speed at which it multiplies two matrices laid out as they
    # are.
    both = jax.lax.optimization_barrier(jnp.concatenate([y.T, t.T]))
    first, second = jnp.split(jnp.matmul(both, y, precision=_HIGHEST), 2)
    return first, second


def block_size(count: int, batch_size: int) -> int:
    """The size of blocks, at most ``batch_size``, that hold ``count`` rows with the least padding."""
    return in_blocks(np.arange(count), batch_size)[1].shape[1]


def merged(parts: Sequence[CrossMoments]) -> CrossMoments:
    """The moments of all the parts' examples together: the same rule, in float64."""
    counts = np.array([part.count for part in parts])
    mean_input = np.average([part.mean_input for part in parts], axis=0, weights=counts)
    mean_output = np.average([part.mean_output for part in parts], axis=0, weights=counts)
    inputs, cross, square = (np.zeros_like(parts[0].inputs), np.zeros_like(parts[0].cross), 0.0)
    for part in parts:
        shift_input, shift_output = part.mean_input - mean_input, part.mean_output - mean_output
        inputs += part.inputs + part.count * np.outer(shift_input, shift_input)
        cross += part.cross + part.count * np.outer(shift_output, shift_input)
        square += part.output_square + part.count * float(shift_output @ shift_output)
    return CrossMoments(int(counts.sum()), mean_input, mean_output, inputs, cross, square)


def level_moments(
    denoiser: Denoiser,
    images: Num[np.ndarray, " n *event"],
    sigmas: Float[np.ndarray, " levels"],
    key: Key,
    **options: Any,
) -> Iterator[CrossMoments]:
    """``cross_moments`` of each level in turn, of which only one is in memory. Options as of ``cross_moments``."""
    key = threefry(key)
    for level, sigma in enumerate(sigmas):
        yield cross_moments(denoiser, images, float(sigma), key, level=level, **options)
