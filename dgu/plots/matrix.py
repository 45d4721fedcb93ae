"""The matrix of what was trained on against what was tested on."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.plots.style import drawing, new_figure, style


@drawing
def cross_matrix(
    values: Float[np.ndarray, "train test"],
    errors: Float[np.ndarray, "train test"],
    train_arms: Sequence[str],
    test_arms: Sequence[str],
    *,
    quantity: str = "test accuracy (%)",
    title: str = "",
) -> Figure:
    """A heat map with each value and the half-width of its 95 % interval written in its cell.

    Args:
        values: the value of each pair; NaN leaves its cell blank.
        errors: half-width of its 95 % interval.
        train_arms: names of the rows.
        test_arms: names of the columns.
        quantity: label of the colour bar, with its unit.
        title: title of the figure.
    """
    with style():
        figure = new_figure(1.15 * len(test_arms) + 2.6, 0.8 * len(train_arms) + 1.5)
        axes = figure.add_subplot()
        shades = matplotlib.colormaps["cividis"]
        image = axes.imshow(values, cmap=shades, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if not np.isfinite(value):
                continue
            red, green, blue, _ = shades(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{value:.1f}\n± {errors[row, column]:.1f}"
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black", fontsize=10)
        axes.set_xticks(range(len(test_arms)), test_arms)
        axes.set_yticks(range(len(train_arms)), train_arms)
        axes.set_xlabel("tested on")
        axes.set_ylabel("trained on")
        axes.tick_params(length=0)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.colorbar(image, ax=axes, label=quantity, shrink=0.9)
        if title:
            axes.set_title(title)
    return figure
