"""Quantities of several denoisers against the noise level, with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from dgu.errors import require
from dgu.plots.style import OKABE_ITO, legend_below, new_figure, style

_LOOKS = (("blue", "o", "-"), ("vermilion", "s", "--"), ("green", "^", "-."), ("purple", "v", ":"),
          ("orange", "D", "-"), ("sky blue", "P", "--"), ("black", "X", "-."))  # fmt: skip


@dataclass(frozen=True)
class LevelPanel:
    """One panel of curves over noise levels.

    Attributes:
        title: of the panel.
        quantity: label of the vertical axis, with its unit.
        sigmas: ``(L,)``, positive.
        curves: mean, low and high by name, ``(L,)`` each; low and high may be the mean.
        log: whether the vertical axis is logarithmic.
        marks: horizontal lines by what they are.
    """

    title: str
    quantity: str
    sigmas: np.ndarray
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    log: bool = False
    marks: Mapping[str, float] = field(default_factory=dict)


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
    require(len(names) <= len(_LOOKS), "number of curves", len(names), f"at most {len(_LOOKS)}")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with style():
        figure = new_figure(max(4.8, 3.9 * columns), 3.2 * rows + 0.7)
        grid = figure.subplots(rows, columns, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(panels):
                axes.set_axis_off()
                continue
            panel = panels[number]
            for name, curve in panel.curves.items():
                shapes = [np.shape(part) for part in curve]
                require(shapes == [panel.sigmas.shape] * 3, f"shape of {name!r} ({panel.title})", shapes, f"three of {panel.sigmas.shape}")  # fmt: skip
                color, marker, line = _LOOKS[names.index(name)]
                mean, low, high = curve
                axes.plot(panel.sigmas, mean, line, marker=marker, color=OKABE_ITO[color], label=name)
                axes.fill_between(panel.sigmas, low, high, color=OKABE_ITO[color], alpha=0.18, linewidth=0)
            for name, height in panel.marks.items():
                axes.axhline(height, color="#7f7f7f", linewidth=1.0, linestyle=(0, (1, 1)), label=name)
            axes.set_xscale("log")
            axes.set_xlim(float(panel.sigmas.max()) * 1.3, float(panel.sigmas.min()) / 1.3)
            if panel.log:
                axes.set_yscale("log")
            axes.set_xlabel("noise level $\\sigma$")
            axes.set_ylabel(panel.quantity)
            axes.set_title(panel.title)
        legend_below(figure, list(grid.flat))
        if title:
            figure.suptitle(title)
    return figure
