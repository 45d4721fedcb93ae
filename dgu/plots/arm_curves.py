"""Curves of a few arms over each other, with every seed of each: such as the losses of two networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator

from dgu.core.errors import require
from dgu.plots.style import LOOKS, OKABE_ITO, drawing, legend_below, panel_grid, style


@dataclass(frozen=True)
class ArmPanel:
    """One panel.

    Attributes:
        title, xlabel, ylabel: of it.
        x: (X,) places.
        curves: by arm, (R, X), a row a seed.
        reference: dashed lines by arm, (X,) each, in the arm's colour.
        reference_name: what these are.
        log_x, log_y: logarithmic axes.
        level: a horizontal line, or None.
    """

    title: str
    xlabel: str
    ylabel: str
    x: np.ndarray
    curves: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray] = field(default_factory=dict)
    reference_name: str = "reference"
    log_x: bool = False
    log_y: bool = True
    level: float | None = None


@drawing
def arm_curves(panels: Sequence[ArmPanel], *, title: str = "") -> Figure:
    """The mean over seeds of each arm, the range of the seeds as a band, and references dashed.

    Raises:
        InputError: no panel, curves that do not fit their places, or more arms than there are colours.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    with style():
        figure, cells = panel_grid(len(panels), len(panels), 4.1, 3.2, least=5.4)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            require(len(panel.curves) <= len(LOOKS), "number of arms", len(panel.curves), f"at most {len(LOOKS)}")
            for (arm, rows), look in zip(panel.curves.items(), LOOKS):
                fits = rows.ndim == 2 and rows.shape[1:] == panel.x.shape
                require(fits, f"shape of {arm} ({panel.title})", rows.shape, f"(R, {len(panel.x)})")
                color = look.color
                axes.fill_between(panel.x, rows.min(axis=0), rows.max(axis=0), color=color, alpha=0.25, linewidth=0)
                axes.plot(panel.x, rows.mean(axis=0), color=color, marker=look.marker, markersize=3.5, label=arm)
                if arm in panel.reference:
                    name = f"{arm}: {panel.reference_name}"
                    axes.plot(panel.x, panel.reference[arm], color=color, linestyle="--", linewidth=1.1, label=name)
            if panel.level is not None:
                axes.axhline(panel.level, color=OKABE_ITO["black"], linestyle=":", linewidth=1.0)
            if panel.log_x:
                axes.set_xscale("log")
                axes.set_xticks(panel.x, [f"{value:.2g}" for value in panel.x])
                axes.xaxis.set_minor_locator(NullLocator())
            if panel.log_y:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
            axes.set_xlabel(panel.xlabel)
            axes.set_ylabel(panel.ylabel)
            axes.set_title(panel.title)
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure
