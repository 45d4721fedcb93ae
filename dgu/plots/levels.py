"""Quantities of several denoisers against the noise level, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.bands import Curve, ends
from dgu.plots.style import LOOKS, drawing, legend_below, panel_grid, style


@dataclass(frozen=True)
class LevelPanel:
    """One panel of curves over noise levels.

    Attributes:
        title: of the panel.
        quantity: label of the vertical axis, with its unit.
        sigmas: ``(L,)``, positive.
        curves: by name an ``Estimate`` at each level, its mean, low and high, or values without a band, ``(L,)`` each.
        log: whether the vertical axis is logarithmic.
        marks: horizontal lines by what they are.
        bounds: by name of a curve, at which levels its values are lower bounds, ``(L,)``: drawn as open triangles.
    """

    title: str
    quantity: str
    sigmas: np.ndarray
    curves: Mapping[str, Curve]
    log: bool = False
    marks: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, np.ndarray] = field(default_factory=dict)


@drawing
def level_curves(panels: Sequence[LevelPanel], *, columns: int = 3, title: str = "") -> Figure:
    """Curves over noise levels, from high to low as a sampler takes them; a name has one look in all panels.

    Args:
        panels: what to draw.
        columns: panels side by side.
        title: of the figure.

    Raises:
        InputError: no panel, a curve that does not fit the levels, or more than seven names.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    require(len(names) <= len(LOOKS), "number of curves", len(names), f"at most {len(LOOKS)}")
    with style():
        figure, cells = panel_grid(len(panels), columns, 3.9, 3.2, least=4.8)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            for name, curve in panel.curves.items():
                mean, low, high = ends(curve)
                shapes = [np.shape(part) for part in (mean, low, high)]
                require(
                    shapes == [panel.sigmas.shape] * 3,
                    f"shape of {name!r} ({panel.title})",
                    shapes,
                    f"three of {panel.sigmas.shape}",
                )
                look = LOOKS[names.index(name)]
                axes.plot(panel.sigmas, mean, look.linestyle, marker=look.marker, color=look.color, label=name)
                axes.fill_between(panel.sigmas, low, high, color=look.color, alpha=0.18, linewidth=0)
                below = panel.bounds.get(name, np.zeros(panel.sigmas.shape, bool))
                if below.any():
                    axes.plot(
                        panel.sigmas[below], mean[below], linestyle="none", marker="^", markersize=9, zorder=3,
                        markerfacecolor="white", markeredgecolor=look.color, label=f"{name}: lower bound",
                    )  # fmt: skip
            for name, height in panel.marks.items():
                axes.axhline(height, color="#7f7f7f", linewidth=1.0, linestyle=(0, (1, 1)), label=name)
            axes.set_xscale("log")
            axes.set_xlim(float(panel.sigmas.max()) * 1.3, float(panel.sigmas.min()) / 1.3)
            if panel.log:
                axes.set_yscale("log")
            axes.set_xlabel("noise level $\\sigma$")
            axes.set_ylabel(panel.quantity)
            axes.set_title(panel.title)
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure
