"""Grids of images."""

from collections.abc import Sequence

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
    images: Float[np.ndarray, "rows columns h w c"],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    pixel_range: tuple[float | int, float | int] = (-1.0, 1.0),
    title: str = "",
) -> Figure:
    """Images in rows and columns, such as a row a class and a block of columns each for real, diffusion and mixture.

    Args:
        images: the images of each place, grey (``c = 1``) or RGB (``c = 3``).
        row_labels: a label for each row.
        column_labels: a label for each block of neighbouring columns; the blocks are equally wide and set apart.
        pixel_range: values shown as black and as white; what lies outside is clipped.
        title: title of the figure.

    Raises:
        InputError: the labels do not fit the images, or they have neither one nor three channels.
    """
    rows, columns, height, width, channels = images.shape
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
        margin = max(1.3, 0.5 + rows_need) + max(0.0, blocks_need - size[0] / blocks) / 2
        figure = new_figure(size[0] + margin, size[1] + (0.8 if title else 0.5))
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
