"""How much of the exact denoiser's output at a noisy training image is that image: the risk of its being repeated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Float64, Integer, Num

from dgu.core.arrays import as_indices
from dgu.core.errors import require, require_whole
from dgu.core.keys import threefry
from dgu.core.noisy import checked_images, checked_levels, in_blocks, noisy_input, over_levels
from dgu.core.typing import Key
from dgu.models.mixtures import EmpiricalDenoiser


def source_weights(
    images: Num[ArrayLike, " n *event"],
    sigmas: Num[ArrayLike, " levels"],
    key: Key,
    *,
    of: Integer[ArrayLike, " k"] | None = None,
    draws: int = 4,
    batch_size: int = 16,
) -> Float64[np.ndarray, "levels k"]:
    """Mean weight of training image i among all at ``x = x_i + sigma eps``, over draws of eps: a map of risk.

        w_i(x) = exp(-|x - x_i|^2 / (2 sigma^2)) / sum_j exp(-|x - x_j|^2 / (2 sigma^2))

    is the share of ``x_i`` in the output of ``EmpiricalDenoiser`` there, 1 when all that it makes from here is a copy
    and ``1 / n`` when it cannot tell. A row is a noise level, a column an image: images that stand alone are copied at
    higher noise than those in a crowd. Averaged over images it falls from 1 to ``1 / n`` about ``collapse_level``. Of
    two equal images each has half.

    Args:
        images: the training images, 2 or more.
        sigmas: noise levels, positive.
        key: of the noise, addressed by the number of the image, of the level and of the draw.
        of: numbers of the images that are asked about, all by default.
        draws: noises for each image and level.
        batch_size: images at a time.

    Raises:
        InputError: values out of range.

    Biroli et al., arXiv 2402.18491.
    """
    key = threefry(key)
    rows = checked_images(images, 2)
    levels = checked_levels(sigmas, {})
    require(bool((levels > 0).all()), "sigmas", levels.tolist(), "positive")
    require_whole("draws", draws)
    chosen = np.arange(len(rows), dtype=np.int32) if of is None else as_indices("of", of)
    require(int(chosen.max()) < len(rows), "of", int(chosen.max()), f"below {len(rows)}, the number of images")
    blocks, places = in_blocks(rows[chosen], batch_size)
    found = _weights(EmpiricalDenoiser(rows), key, blocks, chosen[places], levels.astype(rows.dtype), draws=int(draws))
    return np.asarray(found, np.float64).reshape(len(levels), -1)[:, : len(chosen)]


@partial(jax.jit, static_argnames="draws")
def _weights(
    data: EmpiricalDenoiser, key: Key, blocks: Array, numbers: Array, sigmas: Array, *, draws: int
) -> Float[Array, "..."]:
    count = np.shape(data.data)[0]

    def one(row: Array, number: Array, sigma: Array, level: Array) -> Array:
        def weight(draw: Array) -> Array:
            x = noisy_input(key, row, number, sigma, level, draw)
            own = -jnp.sum(jnp.square(x - row)) / (2 * jnp.square(sigma))
            constant = np.log(count) + x.size / 2 * jnp.log(2 * jnp.pi * jnp.square(sigma))
            total = data.log_density(x, sigma) + constant.astype(x.dtype)
            return jnp.exp(jnp.minimum(own - total, 0))

        return jnp.mean(jax.vmap(weight)(jnp.arange(draws)))

    return over_levels(one, jnp.asarray(blocks), jnp.asarray(numbers), jnp.asarray(sigmas))
