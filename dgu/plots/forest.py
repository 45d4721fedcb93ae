"""Estimates with their intervals against an equivalence margin."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.style import VERDICTS, drawing, legend_below, name_rows, new_figure, style


@drawing
def forest(
    labels: Sequence[str],
    estimates: Float[np.ndarray, " rows"],
    intervals: Float[np.ndarray, "rows 2"],
    margin: float | int,
    *,
    verdicts: Sequence[str],
    quantity: str = "difference of test accuracy, diffusion minus mixture (percentage points)",
    title: str = "",
) -> Figure:
    """A row an estimate: the point, its 95 % interval, its numbers in words; the band is the equivalence margin.

    Args:
        labels: name of each row.
        estimates: point estimates.
        intervals: 95 % intervals (low, high).
        margin: the band runs from -margin to margin.
        verdicts: "supported", "not supported" or "undecided" for each row, shown by colour and marker.
        quantity: label of the axis, with its unit.
        title: title of the figure.

    Raises:
        InputError: labels or verdicts do not fit the estimates, or a verdict is none of the three.
    """
    require(
        len(labels) == len(estimates), "number of labels", len(labels), f"the number of estimates, {len(estimates)}"
    )
    require(len(verdicts) == len(estimates), "number of verdicts", len(verdicts), f"{len(estimates)}")
    for verdict in verdicts:
        require(verdict in VERDICTS, "verdict", verdict, "one of " + ", ".join(VERDICTS))
    with style():
        figure = new_figure(8.2, 0.36 * len(labels) + 1.7)
        axes = figure.add_subplot()
        axes.axvspan(-margin, margin, color="#dfe6ee", zorder=0, label=f"equivalence margin, ±{margin:g}")
        axes.axvline(0.0, color="#7f7f7f", linewidth=0.8, zorder=1)
        for row, verdict in enumerate(verdicts):
            (low, high), (color, marker) = intervals[row], VERDICTS[verdict]
            axes.plot([low, high], [row, row], color=color, linewidth=2.0, solid_capstyle="butt", zorder=2)
            point: dict[str, Any] = {"color": color, "marker": marker, "markersize": 7.5, "markeredgecolor": "white"}
            axes.plot([estimates[row]], [row], label=verdict, linestyle="none", zorder=3, **point)
            text = f"{estimates[row]:+.2f} [{low:+.2f}, {high:+.2f}]"
            axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, clip_on=False)
        name_rows(axes, labels)
        axes.set_xlabel(quantity)
        legend_below(figure, [axes])
        if title:
            axes.set_title(title)
    return figure
