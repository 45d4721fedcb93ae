"""Linear maps of denoisers: their spectra beside a reference's, how symmetric they are, and correlations of vectors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float, Num
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.style import LOOKS, drawing, legend_below, new_figure, panel_grid, style


@dataclass(frozen=True)
class MapPanel:
    """Singular values of one noise level.

    Attributes:
        title: such as ``"sigma = 4.07"``.
        values: singular values by name of the map, ``(k,)`` each.
        alignment: ``|left_i . right_i|`` of the first map, ``(k,)``.
    """

    title: str
    values: Mapping[str, np.ndarray]
    alignment: np.ndarray


@drawing
def map_spectra_figure(panels: Sequence[MapPanel], *, columns: int = 4, title: str = "") -> Figure:
    """Singular values against rank, and below them whether left and right vectors agree (a symmetric map: 1
    throughout).

    Raises:
        InputError: no panel.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with style():
        figure = new_figure(max(4.8, 2.9 * columns), 3.6 * rows + 0.7)
        grid = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, height_ratios=[1.0, 0.6] * rows)
        for number in range(rows * columns):
            row, column = divmod(number, columns)
            top, below = grid[2 * row, column], grid[2 * row + 1, column]
            if number >= len(panels):
                top.set_axis_off()
                below.set_axis_off()
                continue
            panel = panels[number]
            rank = np.arange(1, len(panel.alignment) + 1)
            for (name, values), look in zip(panel.values.items(), LOOKS):
                top.plot(rank[: len(values)], values, look.linestyle, color=look.color, label=name)
            below.plot(rank, panel.alignment, ".", color=LOOKS[0].color, markersize=3)
            below.set_ylim(-0.03, 1.05)
            top.set_title(panel.title)
            below.set_xlabel("rank")
            if number + columns >= len(panels):
                below.tick_params(labelbottom=True)
            if column == 0:
                top.set_ylabel("singular value")
                below.set_ylabel("|left · right|")
        legend_below(figure, list(grid[::2].flat))
        if title:
            figure.suptitle(title)
    return figure


@drawing
def distillation_epochs(
    epochs: Num[np.ndarray, "snapshots"],
    nmse: Float[np.ndarray, "snapshots levels"],
    losses: Float[np.ndarray, "levels epochs"],
    sigmas: Float[np.ndarray, "levels"],
    *,
    title: str = "",
) -> Figure:
    """The course of a distillation by Adam: distance of the weights to a reference's, and the loss, a line a noise
    level.

    Args:
        epochs: epochs done at each snapshot.
        nmse: NMSE of the weights there.
        losses: mean loss of every epoch.
        sigmas: noise levels; dark lines are high ones.
        title: of the figure.
    """
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(sigmas)))
    with style():
        figure = new_figure(9.2, 4.2)
        left, right = figure.subplots(1, 2)
        for level, sigma in enumerate(sigmas):
            label = f"$\\sigma$ = {sigma:.3g}"
            left.plot(epochs, nmse[:, level], marker=".", color=shades[level], label=label)
            right.plot(np.arange(1, losses.shape[1] + 1), losses[level], color=shades[level], label=label)
        for axes, quantity in ((left, "NMSE of weights"), (right, "loss (mean over pixels)")):
            axes.set_yscale("log")
            axes.set_xlabel("epochs")
            axes.set_ylabel(quantity)
        legend_below(figure, [left, right])
        if title:
            figure.suptitle(title)
    return figure


@drawing
def correlation_matrices(
    matrices: Float[np.ndarray, "panels k m"],
    titles: Sequence[str],
    *,
    rows_are: str,
    columns_are: str,
    columns: int = 5,
    title: str = "",
) -> Figure:
    """Heat maps of ``|U^T V|`` from 0 to 1, a panel each.

    Args:
        matrices: of each panel.
        titles: a title each.
        rows_are, columns_are: what the vectors of the rows and columns are.
        columns: panels side by side.
        title: of the figure.

    Raises:
        InputError: titles that do not fit the matrices.
    """
    require(len(titles) == len(matrices) > 0, "number of titles", len(titles), f"{len(matrices)}, 1 or more")
    k, m = matrices.shape[1:]
    with style():
        height = 2.45 * max(0.6, min(1.6, k / m))
        figure, cells = panel_grid(len(titles), columns, 2.3, height, beside=1.2, least=0.0, sharex=True, sharey=True)
        for cell, matrix, name in zip(cells, matrices, titles):
            image = cell.axes.imshow(
                matrix, cmap="cividis", vmin=0, vmax=1, interpolation="nearest", extent=(0.5, m + 0.5, k + 0.5, 0.5)
            )
            cell.axes.set_title(name, fontsize=9)
            cell.axes.grid(False)
            if cell.left:
                cell.axes.set_ylabel(rows_are)
            if cell.bottom:
                cell.axes.set_xlabel(columns_are)
        figure.colorbar(image, ax=[cell.axes for cell in cells], label="|cosine|", shrink=0.8)
        if title:
            figure.suptitle(title)
    return figure
