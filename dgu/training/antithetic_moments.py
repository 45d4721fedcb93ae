"""Streaming second moments of a denoiser on pairs of noisy images, each noise with both signs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float64, Int, Num

from dgu.core.arrays import as_examples
from dgu.core.denoisers import as_pytree, denoise
from dgu.core.keys import threefry
from dgu.core.noisy import noisy_input
from dgu.core.typing import Denoiser, Event, Key, Scalar
from dgu.training.second_moments import (
    CrossMoments,
    add_block,
    nothing,
    numbered_blocks,
    require_finite_outputs,
    scatters,
)


def antithetic_moments(
    denoiser: Denoiser,
    images: Num[np.ndarray, " n *event"],
    sigma: float,
    key: Key,
    *,
    level: int = 0,
    draws: int | Sequence[int] = 1,
    rows: Int[np.ndarray, " rows"] | None = None,
    batch_size: int = 512,
    block: int | None = None,
) -> CrossMoments:
    """``cross_moments`` over the two examples ``y = image +- sigma eps`` of each draw, ``t = D(y)``.

    With a half the sum and b half the difference of a pair's outputs,

        sum_pair y y^T = 2 (x x^T + sigma^2 eps eps^T),    sum_pair t y^T = 2 (a x^T + b sigma eps^T):

    the products of image and noise cancel, and those of the image with itself are found once for all its draws, with
    the mean of their a. A map that is fitted to these moments is free of the error that independent noises leave
    through ``a eps^T`` and ``b x^T``.

    Args and errors as for ``cross_moments``; ``draws`` counts or numbers pairs. The first of a pair is the example that
    ``cross_moments`` makes of the same address.

    Hammersley and Morton, "A new Monte Carlo technique: antithetic variates", Proc. Camb. Phil. Soc. 52 (1956).
    """
    key = threefry(key)
    images = as_examples("images", images)
    model, size = as_pytree(denoiser), images[0].size
    numbered = list(range(draws)) if isinstance(draws, int) else list(draws)
    place, noise = np.int32(level), np.asarray(sigma, images.dtype)
    with jax.enable_x64(True):
        even_state, odd_state = nothing(size), nothing(size)[3:]
    for number, counts in numbered_blocks(np.arange(len(images)) if rows is None else rows, batch_size, block):
        clean, even = images[number], None
        for draw in numbered:
            inputs, outputs = _evaluate(model, clean, number, noise, key, place, np.int32(draw))
            for output in outputs:
                require_finite_outputs(denoiser, output, sigma, number)
            with jax.enable_x64(True):
                odd_state, half_sum = _add_odd(odd_state, inputs, outputs, counts)
                even = half_sum if even is None else even + half_sum
        with jax.enable_x64(True):
            even_state, odd_state = _add_even(even_state, odd_state, clean, even, len(numbered), counts)
    count, mean_input, mean_output, inputs, cross, square = (np.asarray(part) for part in even_state)
    odd_inputs, odd_cross, odd_square = (np.asarray(part) for part in odd_state)
    pairs = len(numbered)
    return CrossMoments(
        2 * pairs * int(count),
        mean_input,
        mean_output,
        2 * (pairs * inputs + odd_inputs),
        2 * (pairs * cross + odd_cross),
        2 * (pairs * float(square) + float(odd_square)),
    )


@jax.jit
def _evaluate(
    denoiser: Denoiser,
    images: Float[Array, " b *event"],
    numbers: Int[Array, " b"],
    sigma: Scalar,
    key: Key,
    level: Array,
    draw: Array,
) -> tuple[Float[Array, "2 b d"], Float[Array, "2 b d"]]:
    """Noisy inputs and outputs, the noise added and taken away, flattened."""

    def noise_of(image: Event, number: Array) -> Array:
        return noisy_input(key, jnp.zeros_like(image), number, sigma, level, draw)

    noises = jax.vmap(noise_of)(images, numbers)
    inputs = jnp.stack([images + noises, images - noises])
    outputs = jax.vmap(jax.vmap(lambda y: denoise(denoiser, y, sigma)))(inputs)
    flat = (2, images.shape[0], -1)
    return inputs.reshape(flat), outputs.reshape(flat)


@partial(jax.jit, donate_argnums=0)
def _add_odd(
    state: tuple[Any, ...],
    inputs: Float[Array, "2 b d"],
    outputs: Float[Array, "2 b d"],
    counts: Bool[Array, " b"],
) -> tuple[tuple[Any, ...], Float64[Array, "b d"]]:
    """The noises' products with themselves and with b added, and ``|a|^2 + |b|^2``; and a."""
    scatter, cross, square = state
    weights = counts.astype(jnp.float64)[:, None]
    plus, minus = (rows.astype(jnp.float64) * weights for rows in outputs)
    even, odd = (plus + minus) / 2, (plus - minus) / 2
    own_scatter, own_cross = scatters((inputs[0].astype(jnp.float64) - inputs[1]) * weights / 2, odd)
    return (scatter + own_scatter, cross + own_cross, square + jnp.sum(jnp.square(even) + jnp.square(odd))), even


@partial(jax.jit, static_argnames="pairs", donate_argnums=(0, 1))
def _add_even(
    state: tuple[Any, ...],
    odd_state: tuple[Any, ...],
    images: Float[Array, " b *event"],
    even: Float64[Array, "b d"],
    pairs: int,
    counts: Bool[Array, " b"],
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The images and the mean of their a added; of the squares of a, those of its mean are counted there."""
    mean = even / pairs
    scatter, cross, square = odd_state
    state = add_block(state, images.reshape(mean.shape), mean, counts)
    return state, (scatter, cross, square - pairs * jnp.sum(jnp.square(mean)))
