"""Differences of test error against the dimension: does universality set in?"""

from collections.abc import Mapping

import numpy as np
import scipy
from jaxtyping import Num
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from dgu.plots.style import arm_style, drawing, legend_below, new_figure, style


@drawing
def universality_trend(
    dimensions: Num[np.ndarray, "dimensions"],
    sizes: Mapping[str, tuple[np.ndarray, np.ndarray]],
    differences: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    margin: float = 0.0,
) -> Figure:
    """Left the mean ``|err_X - err_G|`` against d on logarithmic axes, right the mean difference with its sign.

    Args:
        dimensions: d, increasing.
        sizes: by design, mean size of the difference and its standard error, each (dimensions,), in percentage points.
        differences: the same of the signed difference.
        margin: differences within it are shaded; 0 for no such band.
    """
    with style():
        figure = new_figure(8.6, 3.9)
        left, right = figure.subplots(1, 2)
        for axes, drawn in ((left, sizes), (right, differences)):
            for place, (name, (mean, error)) in enumerate(drawn.items()):
                look = arm_style(("diffusion", "mixture", "null", "real")[place] if place < 4 else name, place)
                axes.errorbar(
                    dimensions,
                    mean,
                    scipy.stats.norm.ppf(0.975) * np.asarray(error),
                    color=look.color,
                    marker=look.marker,
                    linestyle=look.linestyle,
                    capsize=2,
                    label=name,
                )
            axes.set_xscale("log", base=2)
            axes.set_xticks(dimensions, [f"{d:,}" for d in np.asarray(dimensions).tolist()])
            axes.set_xlabel("dimension d (n / d fixed)")
        left.set_yscale("log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter(NullFormatter())
        first = next(iter(sizes.values()))[0]
        guide = first[0] * (np.asarray(dimensions) / dimensions[0]) ** -0.5
        left.plot(dimensions, guide, color="#7f7f7f", linewidth=1, label="slope -1/2", zorder=1)
        left.set_ylabel("mean |err X - err G| (percentage points)")
        right.set_ylabel("mean err X - err G (percentage points)")
        right.axhline(0, color="black", linewidth=0.8)
        if margin:
            right.axhspan(-margin, margin, color="#7f7f7f", alpha=0.15, linewidth=0, label=f"margin of {margin:g}")
        legend_below(figure, [left, right])
    return figure
