"""Quantities against what a sweep varies (data-set size, width, images seen), on a logarithmic axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from dgu.core.errors import require
from dgu.plots.style import LOOKS, drawing, legend_below, panel_grid, style

#: Marks on an axis before some are left out.
_TICKS = 8


@dataclass(frozen=True)
class SweepPanel:
    """One panel of curves over what a sweep varies.

    Attributes:
        title: of the panel.
        xlabel: label of the horizontal axis.
        quantity: label of the vertical axis, with its unit.
        curves: ``(x, mean, low, high)`` by name, four vectors of one length, x positive; low and high may be the mean.
        marks: horizontal lines by what they are.
        log: whether the vertical axis is logarithmic, too.
        falling: whether the horizontal axis falls, as noise levels do along a sampler.
    """

    title: str
    xlabel: str
    quantity: str
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
    marks: Mapping[str, float] = field(default_factory=dict)
    log: bool = False
    falling: bool = False


@drawing
def sweep_curves(panels: Sequence[SweepPanel], *, columns: int = 3, title: str = "") -> Figure:
    """Curves with bands, a panel each; a name has one look in all panels.

    Args:
        panels: what to draw.
        columns: panels side by side.
        title: of the figure.

    Raises:
        InputError: no panel, a curve whose vectors differ in length or whose x is not positive, or more than seven
            names.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    require(len(names) <= len(LOOKS), "number of curves", len(names), f"at most {len(LOOKS)}")
    for panel in panels:
        for name, curve in panel.curves.items():
            lengths = [len(part) for part in curve]
            require(len(set(lengths)) == 1, f"lengths of {name!r} ({panel.title})", lengths, "four equal ones")
            require(bool((np.asarray(curve[0]) > 0).all()), f"x of {name!r} ({panel.title})", "0 or less", "positive")
    with style():
        figure, cells = panel_grid(len(panels), columns, 3.9, 3.2, least=4.8)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            for name, (x, mean, low, high) in panel.curves.items():
                look = LOOKS[names.index(name)]
                axes.plot(x, mean, look.linestyle, marker=look.marker, color=look.color, label=name)
                axes.fill_between(x, low, high, color=look.color, alpha=0.18, linewidth=0)
            for name, height in panel.marks.items():
                axes.axhline(height, color="#7f7f7f", linewidth=1.0, linestyle=(0, (1, 1)), label=name)
            if panel.log:
                axes.set_yscale("log")
            _marked_axis(axes, panel)
            axes.set_xlabel(panel.xlabel)
            axes.set_ylabel(panel.quantity)
            axes.set_title(panel.title)
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure


def _marked_axis(axes: Axes, panel: SweepPanel) -> None:
    """A logarithmic axis marked where something was measured."""
    places = np.unique(np.concatenate([np.asarray(curve[0]) for curve in panel.curves.values()]))
    apart = math.log(places[-1] / places[0]) / _TICKS
    shown = list(places[:1])
    for place in places[1:]:
        if math.log(place / shown[-1]) >= apart:
            shown.append(place)
    axes.set_xscale("log")
    if panel.falling:
        axes.invert_xaxis()
    names = [f"{place:.2g}" if place < 10 else f"{place:,.0f}" for place in shown]
    axes.set_xticks(shown, names, rotation=30, ha="right", rotation_mode="anchor")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
