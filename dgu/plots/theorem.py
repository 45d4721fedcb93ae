"""Differences of test error against the dimension: does universality set in?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Num
from matplotlib.figure import Figure

from dgu.plots.style import arm_style, drawing, legend_below, new_figure, style

#: Distance of neighbouring series in octaves of d, so that their bars do not cover each other.
_APART = 0.12


@drawing
def universality_trend(
    dimensions: Num[np.ndarray, " dimensions"],
    panels: Sequence[Mapping[str, Num[np.ndarray, "dimensions 3"]]],
    *,
    margin: float = 0.0,
) -> Figure:
    """The mean of ``err_X - err_G`` over pairs against d, with its interval, in one or more panels.

    Args:
        dimensions: d, increasing.
        panels: by design, value, low and high of the mean at each d, in percentage points; a design has the same look
            in all panels.
        margin: differences within it are shaded; 0 for no such band.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel))
    with style():
        figure = new_figure(4.3 * len(panels), 3.9)
        cells = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(cells, panels):
            for place, (name, rows) in enumerate(panel.items()):
                number = names.index(name)
                look = arm_style(("diffusion", "mixture", "null", "real")[number] if number < 4 else name, number)
                value, low, high = np.asarray(rows, float).T
                x = np.asarray(dimensions) * 2.0 ** (_APART * (place - (len(panel) - 1) / 2))
                axes.errorbar(
                    x,
                    value,
                    (value - low, high - value),
                    color=look.color,
                    marker=look.marker,
                    linestyle=look.linestyle,
                    capsize=2,
                    label=name,
                )
            axes.set_xscale("log", base=2)
            axes.set_xticks(dimensions, [f"{d:,}" for d in np.asarray(dimensions).tolist()])
            axes.set_xlabel("dimension d (n / d fixed)")
            axes.set_ylabel("mean of err X - err G (points)")
            axes.axhline(0, color="black", linewidth=0.8)
            if margin:
                axes.axhspan(-margin, margin, color="#7f7f7f", alpha=0.15, linewidth=0, label=f"margin of {margin:g}")
        legend_below(figure, list(cells))
    return figure
