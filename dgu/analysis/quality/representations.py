"""Representations of images, for studies that are run on features in place of pixels.

Any callable from a batch of images to a batch of rows will do (``dgu.analysis.extract_features`` applies it in blocks),
such as the penultimate layer of a classifier, ``train_convnet(...).features``; or the random convolutions of this file,
which need no training; or an array computed elsewhere, checked by ``checked_features``.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Num

from dgu.analysis.quality.distances import extract_features
from dgu.core.arrays import as_floats, as_jax_floats
from dgu.core.brief import short_repr
from dgu.core.errors import InputError, require
from dgu.core.keys import stream, threefry
from dgu.core.typing import Key


@short_repr
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RandomConvolutions:
    """Layers of random 3x3 convolutions with ReLU, 2x2 mean pooling between them, and means over a grid of cells at the
    end.

    A pytree; make it with ``random_convolutions``. Fields: ``kernels`` (3, 3, in, out) of each layer; ``grid`` cells a
    side, static. The features are of size ``grid^2`` times the channels of the last layer, whatever the size of the
    images.
    """

    kernels: tuple[Any, ...]
    grid: int = field(metadata={"static": True})

    def __call__(self, images: Num[ArrayLike, "n h w c"]) -> Float[Array, "n d"]:
        """Features of a batch. Every kernel preserves the second moment of what it sees (He's variance, 2 / inputs)."""
        x = as_jax_floats("images", images)
        for number, kernel in enumerate(self.kernels):
            x = _mean_pool(x, x.shape[1] // 2, x.shape[2] // 2) if number else x
            x = jax.lax.conv_general_dilated(
                x,
                kernel.astype(x.dtype),
                (1, 1),
                "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=jax.lax.Precision.HIGHEST,
            )
            x = jax.nn.relu(x)
        return _mean_pool(x, self.grid, self.grid).reshape(x.shape[0], -1)


def _mean_pool(x: Array, rows: int, columns: int) -> Array:
    """Means over ``rows`` x ``columns`` equal cells; what does not fill a cell at the lower and right edges is left
    out.
    """
    n, height, width, channels = x.shape
    tall, wide = height // rows, width // columns
    cut = x[:, : rows * tall, : columns * wide].reshape(n, rows, tall, columns, wide, channels)
    return jnp.mean(cut, axis=(2, 4))


def random_convolutions(
    key: Key, shape: tuple[int, int, int], *, channels: tuple[int, ...] = (32, 32), grid: int = 2
) -> RandomConvolutions:
    """Random convolutional features of images of ``shape`` (h, w, c): ``grid^2 * channels[-1]`` of them, 128 by
    default.

    Args:
        key: of the kernels.
        shape: of one image.
        channels: of each layer; the image is halved between layers.
        grid: cells a side that the last layer is averaged over.

    Raises:
        InputError: sizes below 1, or images that the halvings make smaller than the grid.
    """
    key = threefry(key)
    require(len(shape) == 3 and min(shape) >= 1, "shape", shape, "(h, w, c), no dimension below 1")
    require(len(channels) >= 1 and min(channels) >= 1, "channels", channels, "one or more positive numbers")
    require(grid >= 1, "grid", grid, "at least 1")
    smallest = min(shape[:2]) >> (len(channels) - 1)
    require(smallest >= grid, "shape", shape, f"at least {grid << (len(channels) - 1)} pixels a side")
    widths = (shape[2], *channels)
    kernels = tuple(
        jax.random.normal(stream(key, "layer", number), (3, 3, before, after)) * (2 / (9 * before)) ** 0.5
        for number, (before, after) in enumerate(pairwise(widths))
    )
    return RandomConvolutions(kernels, grid)


def represent(
    images: Num[ArrayLike, "classes n h w c"], features: Any, name: str = "features"
) -> Float[np.ndarray, "classes n d"]:
    """Features of the images of each class, in blocks of fixed size.

    Args:
        images: (K, n, h, w, c).
        features: callable from a batch of images (block, h, w, c) to rows (block, d).
        name: what the features are called in an error.

    Raises:
        InputError: ``features`` gives another number of rows or non-finite values.
    """
    shape = np.shape(images)
    try:
        rows = extract_features(as_floats("images", images).reshape(-1, *shape[2:]), features)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return rows.reshape(*shape[:2], -1)


def checked_features(values: Num[ArrayLike, "..."], rows: int, name: str = "features") -> Float[np.ndarray, "rows d"]:
    """Features computed elsewhere as float32 rows (rows, d).

    Args:
        values: (rows, ...), flattened.
        rows: how many images there are.
        name: what the array is called in an error, with its value.

    Raises:
        InputError: another number of rows, NaN or infinities (the first row that has one is named), or nothing that
            varies.
    """
    values = as_floats(name, values)
    require(
        values.ndim >= 2 and values.shape[0] == rows, f"{name}: shape", values.shape, f"({rows}, d), a row an image"
    )
    flat = values.reshape(rows, -1).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    require(bad.size == 0, f"{name}: row", bad[:1].tolist(), "finite numbers, not NaN or infinite")
    require(bool((np.ptp(flat, axis=0) > 0).any()), name, "constant", "features that differ from image to image")
    return flat
