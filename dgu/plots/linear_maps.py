"""Linear maps of denoisers: their spectra beside a reference's, how symmetric they are, and correlations of vectors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.style import LOOKS, drawing, legend_below, new_figure, panel_grid, style

#: Points of a curve up to which each is marked.
_MARKED = 40


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


@dataclass(frozen=True)
class EpochPanel:
    """A quantity of the maps of all noise levels over the epochs of a distillation.

    Attributes:
        title: of the panel.
        quantity: label of the vertical axis.
        epochs: epochs done, ``(snapshots,)``.
        values: ``(levels, snapshots)``.
        log: whether the vertical axis is logarithmic.
        time: label of the horizontal axis.
        log_time: whether the horizontal axis is logarithmic.
    """

    title: str
    quantity: str
    epochs: np.ndarray
    values: np.ndarray
    log: bool = True
    time: str = "epochs"
    log_time: bool = False


@drawing
def distillation_epochs(
    panels: Sequence[EpochPanel], sigmas: Float[np.ndarray, " levels"], *, title: str = ""
) -> Figure:
    """The course of distillations, a line a noise level; dark lines are high ones.

    Args:
        panels: what to draw, all of the same noise levels.
        sigmas: these levels.
        title: of the figure.

    Raises:
        InputError: no panel, or values that do not fit the levels and epochs.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(sigmas)))
    with style():
        figure, cells = panel_grid(len(panels), 3, 4.4, 3.5, least=5.4)
        for cell, panel in zip(cells, panels):
            axes, fits = cell.axes, (len(sigmas), len(panel.epochs))
            require(panel.values.shape == fits, f"shape of {panel.title!r}", panel.values.shape, f"{fits}")
            for shade, sigma, values in zip(shades, sigmas, panel.values):
                marker = "." if len(values) <= _MARKED else ""
                axes.plot(panel.epochs, values, marker=marker, color=shade, label=f"$\\sigma$ = {sigma:.3g}")
            if panel.log:
                axes.set_yscale("log")
            if panel.log_time:
                axes.set_xscale("log")
            axes.set_xlabel(panel.time)
            axes.set_ylabel(panel.quantity)
            axes.set_title(panel.title)
        legend_below(figure, [cell.axes for cell in cells])
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
