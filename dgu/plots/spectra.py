"""Eigenvalue spectra on logarithmic axes, with the ratios of arms below."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dgu.errors import require
from dgu.plots.style import arm_style, legend_below, new_figure, style


@dataclass(frozen=True)
class SpectrumPanel:
    """The spectra of one panel: ``eigenvalues[arm]``, descending, ``(k,)`` or ``(replicates, k)`` for a 95 % band."""

    title: str
    eigenvalues: Mapping[str, np.ndarray]


def spectra(
    panels: Sequence[SpectrumPanel],
    *,
    quantity: str = "eigenvalue (squared pixel units)",
    ratios: Sequence[tuple[str, str]] = (),
    labels: Mapping[str, str] | None = None,
    title: str = "",
    columns: int = 5,
    floor: float = 1e-10,
) -> Figure:
    """Spectra against rank, log-log, a panel a class or a mixture.

    Args:
        panels: what to draw.
        quantity: label of the vertical axis, with its unit.
        ratios: pairs ``(arm, reference)`` whose ratio is drawn in a second panel below each, such as
            ``(("mixture", "diffusion"), ("null", "mixture"))``: the null shows what the finite fit alone does.
        labels: text in the legend for each arm.
        title: title of the figure.
        columns: panels side by side.
        floor: eigenvalues below this fraction of the largest are left out as rounding.

    Raises:
        InputError: no panel, an arm of ``ratios`` that a panel lacks, or arms of unequal length there.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    for panel in panels:
        for pair in ratios:
            require(all(arm in panel.eigenvalues for arm in pair), "ratios", pair, f"arms of the panel {panel.title!r}")
            shapes = [panel.eigenvalues[arm].shape for arm in pair]
            require(shapes[0] == shapes[1], f"shapes of {pair} ({panel.title})", shapes, "equal")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    labels = labels or {}
    heights = [1.0, 0.55] if ratios else [1.0]
    with style():
        figure = new_figure(max(4.6, (2.5 if columns > 3 else 3.5) * columns), (2.5 * sum(heights)) * rows + 0.7)
        grid = figure.subplots(
            rows * len(heights), columns, squeeze=False, sharex=True, sharey="row", height_ratios=heights * rows
        )
        reach = np.asarray([0.8, 1.2])  # what the axes of the ratios show at least
        for number in range(rows * columns):
            row, column = divmod(number, columns)
            cells = grid[row * len(heights) : (row + 1) * len(heights), column]
            if number >= len(panels):
                for axes in cells:
                    axes.set_axis_off()
                continue
            panel = panels[number]
            top = cells[0]
            for place, (arm, values) in enumerate(panel.eigenvalues.items()):
                _band(top, _masked(values, floor), arm, place, labels.get(arm, arm))
            top.set_yscale("log")
            top.set_xscale("log")
            top.set_title(panel.title)
            for place, (arm, reference) in enumerate(ratios):
                quotient = _masked(panel.eigenvalues[arm], floor) / _masked(panel.eigenvalues[reference], floor)
                middle = _band(
                    cells[1], quotient, arm, place, f"{labels.get(arm, arm)} / {labels.get(reference, reference)}"
                )
                reach = np.append(reach, middle[np.isfinite(middle)])
            if ratios:
                cells[1].axhline(1.0, color="#7f7f7f", linewidth=0.8, zorder=0)
                if column == 0:
                    cells[1].set_ylabel("ratio")
                if number == 0:
                    cells[1].legend(loc="best", fontsize=8, handlelength=2.5)
            if column == 0:
                top.set_ylabel(quantity)
            if number + columns >= len(panels):
                cells[-1].set_xlabel("rank of eigenvalue")
                cells[-1].tick_params(labelbottom=True)
        # The lines decide: the band of the last ranks, where eigenvalues are rounding, can reach far.
        for axes in grid[1::2].flat if ratios else ():
            axes.set_ylim(max(0.0, reach.min() - 0.1), min(reach.max() + 0.1, 3.0))
        legend_below(figure, list(grid[:: len(heights)].flat))
        if title:
            figure.suptitle(title)
    return figure


def _masked(values: Num[np.ndarray, "*replicates k"], floor: float) -> Num[np.ndarray, "*replicates k"]:
    values = np.asarray(values, float)
    return np.where(values > floor * values.max(), values, np.nan)


def _band(axes: Axes, values: Num[np.ndarray, "*replicates k"], arm: str, place: int, label: str) -> np.ndarray:
    """One line, and where there are replicates their median with the range that holds 95 % of them; gives the line."""
    look = arm_style(arm, place)
    rank = np.arange(1, values.shape[-1] + 1)
    middle = values
    if values.ndim == 2:
        low, middle, high = np.quantile(values, [0.025, 0.5, 0.975], axis=0)
        axes.fill_between(rank, low, high, color=look.color, alpha=0.18, linewidth=0)
    axes.plot(rank, middle, color=look.color, linestyle=look.linestyle, linewidth=1.4, label=label)
    return np.asarray(middle)
