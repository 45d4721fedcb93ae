"""Tails of samples that start from Gaussian and from heavy-tailed noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, StrMethodFormatter

from dgu.core.errors import require
from dgu.plots.style import OKABE_ITO, drawing, legend_below, new_figure, style

_LOOKS = (
    (OKABE_ITO["black"], "-"),
    (OKABE_ITO["vermilion"], "-"),
    (OKABE_ITO["blue"], "-"),
    (OKABE_ITO["green"], "-"),
)


@dataclass(frozen=True)
class StartPanel:
    """One denoiser under one setting of the sampler.

    Attributes:
        title: such as ``"trained network, churn off"``.
        values: of each start the measured values, ``(n,)``, positive.
        exact: of each start many draws of the exact law, where it is known.
    """

    title: str
    values: Mapping[str, np.ndarray]
    exact: Mapping[str, np.ndarray]


@drawing
def start_tails(
    panels: Sequence[Sequence[StartPanel]], *, quantity: str = "norm over its median", title: str = ""
) -> Figure:
    """How many samples exceed a multiple of the median, a panel each denoiser and setting, in rows and columns.

    On these logarithmic axes a power-law tail is a straight line and a Gaussian one falls ever more steeply.

    Args:
        panels: rows of panels, of one length.
        quantity: label of the horizontal axis; values are divided by their own median.
        title: title of the figure.

    Raises:
        InputError: no panel, or rows that differ in length.
    """
    require(len(panels) > 0 and len(panels[0]) > 0, "number of panels", len(panels), "one row or more, none empty")
    columns = {len(row) for row in panels}
    require(len(columns) == 1, "panels in a row", sorted(columns), "the same in each row")
    with style():
        figure = new_figure(3.6 * len(panels[0]) + 0.4, 3.0 * len(panels) + 0.7)
        grid = figure.subplots(len(panels), len(panels[0]), squeeze=False, sharex=True, sharey=True)
        largest = 1.0
        fewest = min(len(one) for row in panels for panel in row for one in panel.values.values())
        for row, of_row in zip(grid, panels):
            for axes, panel in zip(row, of_row):
                for (name, values), (color, line) in zip(panel.values.items(), _LOOKS):
                    largest = max(largest, _survival(axes, values, color, line, 1.8, name))
                for (name, values), (color, _) in zip(panel.exact.items(), _LOOKS):
                    _survival(axes, values, color, "--", 1.0, f"exact law: {name}")
                axes.set_title(panel.title)
                axes.set_xscale("log")
                axes.set_yscale("log")
            row[0].set_ylabel("share of samples beyond")
        for axes in grid.flat:
            axes.set_xlim(0.8, 1.15 * largest)
            axes.set_ylim(0.5 / fewest, 1)
            axes.xaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 10, 20, 50, 100]))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        for axes in grid[-1]:
            axes.set_xlabel(quantity)
        legend_below(figure, list(grid.flat))
        if title:
            figure.suptitle(title)
    return figure


def _survival(axes: Axes, values: np.ndarray, color: str, line: str, width: float, label: str) -> float:
    """Draw the empirical survival function of ``values`` over their median; returns the largest ratio."""
    ratios = np.sort(np.asarray(values, np.float64)) / np.median(values)
    beyond = 1 - np.arange(len(ratios)) / len(ratios)
    axes.step(ratios, beyond, line, where="pre", color=color, linewidth=width, label=label)
    return float(ratios[-1])
