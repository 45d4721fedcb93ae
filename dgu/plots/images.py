"""Grids of images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from matplotlib.figure import Figure

from dgu.core.arrays import as_floats
from dgu.core.errors import require
from dgu.plots.style import drawing, new_figure, style


def stretched(images: Num[np.ndarray, "*batch h w c"]) -> Float[np.ndarray, "*batch h w c"]:
    """Images for ``image_grid``, each brought to [-1, 1] about the middle of its own range; constant ones to -1."""
    images = as_floats("images", images)
    low, high = (end(axis=(-3, -2, -1), keepdims=True) for end in (images.min, images.max))
    return (2 * (images - low) / np.maximum(high - low, 1e-12) - 1).astype(np.float32)


@drawing
def image_grid(
    images: Any,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    pixel_range: tuple[float | int, float | int] = (-1.0, 1.0),
    title: str = "",
) -> Figure:
    """Images in rows and columns, such as a row a class and a block of columns each for real, diffusion and mixture.

    Args:
        images: of NumPy or JAX, grey (``c = 1``) or RGB (``c = 3``): (rows, columns, h, w, c), the images of each
            place; or (n, h, w, c), (n, h, w), which are placed row by row, and blank where they do not fill the last.
            Bytes (uint8) are shown as they are, other numbers by ``pixel_range``.
        row_labels: a label for each row; None for none.
        column_labels: a label for each block of neighbouring columns; the blocks are equally wide and set apart. None
            for one block without a label.
        columns: images in a row, where ``images`` does not say it; None for about as many as there are rows.
        pixel_range: values shown as black and as white; what lies outside is clipped.
        title: title of the figure.

    Raises:
        InputError: the labels do not fit the images, there is no image, or they have neither one nor three channels.
    """
    images, pixel_range = _in_places(images, columns, pixel_range)
    rows, columns, height, width, channels = images.shape
    row_labels = [""] * rows if row_labels is None else row_labels
    column_labels = [""] if column_labels is None else column_labels
    require(channels in (1, 3), "channels", channels, "1 (grey) or 3 (RGB)")
    require(len(row_labels) == rows, "number of row_labels", len(row_labels), f"the number of rows, {rows}")
    blocks = len(column_labels)
    require(blocks > 0 and columns % blocks == 0, "number of column_labels", blocks, f"a divisor of {columns} columns")
    low, high = pixel_range
    gap, block_gap, per_block = max(1, height // 14), max(3, width // 3), columns // blocks
    left = np.array([column * (width + gap) + (column // per_block) * block_gap for column in range(columns)])
    top = np.arange(rows) * (height + gap)
    canvas = np.ones((top[-1] + height, left[-1] + width, channels))
    for row in range(rows):
        for column in range(columns):
            shown = np.clip((images[row, column] - low) / (high - low), 0.0, 1.0)
            canvas[top[row] : top[row] + height, left[column] : left[column] + width] = shown

    inches = min(0.42, 11.0 / columns)  # of one image
    with style():
        size = canvas.shape[1] / width * inches, canvas.shape[0] / height * inches * height / width
        # Inches for the labels, about: those of the rows, and what those of narrow blocks stick out by.
        rows_need, blocks_need = (0.085 * max(len(label) for label in labels) for labels in (row_labels, column_labels))
        margin = (max(1.3, 0.5 + rows_need) if any(row_labels) else 0.3) + max(0.0, blocks_need - size[0] / blocks) / 2
        figure = new_figure(size[0] + margin, size[1] + (0.8 if title else 0.5 if any(column_labels) else 0.2))
        axes = figure.add_subplot()
        axes.set_anchor("E")  # What room is left goes to the labels.
        axes.imshow(
            canvas.squeeze(-1) if channels == 1 else canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
        )
        axes.set_yticks(top + (height - 1) / 2, row_labels)
        firsts = left[::per_block]
        axes.set_xticks((firsts + left[per_block - 1 :: per_block] + width - 1) / 2, column_labels)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if title:
            axes.set_title(title)
    return figure


def _in_places(
    images: Any, columns: int | None, pixel_range: tuple[float | int, float | int]
) -> tuple[Num[np.ndarray, "rows columns h w c"], tuple[float | int, float | int]]:
    """The images by row and column, and the values that are black and white."""
    images = np.asarray(images)
    pixel_range = (0, 255) if images.dtype == np.uint8 else pixel_range
    images = images[..., None] if images.ndim == 3 else images
    allowed = "(n, h, w), (n, h, w, c) or (rows, columns, h, w, c), without an axis of length 0"
    require(images.ndim in (4, 5) and images.size > 0, "images.shape", images.shape, allowed)
    if images.ndim == 5:
        require(columns in (None, images.shape[1]), "columns", columns, "left out: the images are in rows and columns")
        return as_floats("images", images), pixel_range
    require(columns is None or columns >= 1, "columns", columns, "1 or more")
    count = len(images)
    wide = min(count, columns or math.ceil(math.sqrt(count)))
    floats = as_floats("images", images)
    placed = np.concatenate([floats, np.full((-count % wide, *images.shape[1:]), pixel_range[1], floats.dtype)])
    return placed.reshape(-1, wide, *images.shape[1:]), pixel_range
