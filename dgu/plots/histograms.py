"""Distributions of one number, several sources over each other."""

import itertools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.style import arm_style, drawing, legend_below, new_figure, style


@drawing
def histograms(
    series: Mapping[str, Float[np.ndarray, " _"]],
    *,
    quantity: str,
    marks: Mapping[str, float | int] | None = None,
    bins: int = 60,
    title: str = "",
) -> Figure:
    """Densities as steps on common bins, from the smallest value of all to the largest.

    Args:
        series: the values of each source, finite.
        quantity: label of the axis, with its unit.
        marks: vertical lines by their name, such as a threshold.
        bins: of the range.
        title: title of the figure.

    Raises:
        InputError: no source, or one without values.
    """
    require(len(series) > 0, "number of series", len(series), "1 or more")
    for name, values in series.items():
        require(len(values) > 0, f"values of {name}", len(values), "1 or more")
    low, high = min(map(np.min, series.values())), max(map(np.max, series.values()))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    with style():
        figure = new_figure(6.6, 3.8)
        axes = figure.add_subplot()
        for place, (name, values) in enumerate(series.items()):
            look = arm_style(name, place)
            heights, _ = np.histogram(values, edges, density=True)
            axes.stairs(heights, edges, color=look.color, linestyle=look.linestyle, linewidth=1.6, label=name)
            axes.stairs(heights, edges, color=look.color, fill=True, alpha=0.12)
        for (name, at), dashes in zip((marks or {}).items(), itertools.cycle((":", "-.", (0, (6, 3))))):
            axes.axvline(at, color="#444444", linewidth=1.1, linestyle=dashes, label=name)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(quantity)
        axes.set_ylabel("density")
        legend_below(figure, [axes])
        if title:
            axes.set_title(title)
    return figure
