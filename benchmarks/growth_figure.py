"""Time and memory of each function against how much larger a size is than the smallest: one figure for a paper."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.growth_fit import shown
from dgu.plots.style import LOOKS, new_figure, style

#: Panels side by side, and their size in inches.
COLUMNS, WIDTH, HEIGHT = 4, 2.6, 2.3
NAMES = {"d": "$d$", "n": "$n$", "N": "$N$"}


def _panel(axes: Axes, curves: list[dict[str, Any]], values: str, unit: float) -> None:
    """The curves of one function: medians in ``values``, divided by ``unit``."""
    for look, curve in zip(LOOKS, curves):
        sizes = [size / curve["sizes"][0] for size in curve["sizes"]]
        memory = values == "bytes"
        exponent = curve["memory_exponent" if memory else "time_exponent"]
        label = NAMES.get(curve["parameter"], curve["parameter"]) + ("" if exponent is None else f" {shown(exponent)}")
        heights = [None if at is None else (at if memory else at["median"]) / unit for at in curve[values]]
        # Nothing below a thousandth: resident memory is counted in pages.
        heights = [float("nan") if height is None else max(height, 1e-3) for height in heights]
        axes.plot(sizes, heights, look.linestyle, marker=look.marker, color=look.color, label=label, linewidth=1.2)
        if not memory:
            low, high = ([at[end] / unit for at in curve[values]] for end in ("quartile_low", "quartile_high"))
            axes.fill_between(sizes, low, high, color=look.color, alpha=0.18, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5), numticks=9))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=6.5, handlelength=1.8, borderpad=0.2, labelspacing=0.25, loc="upper left")
    # Room for the legend above the curves.
    axes.set_ylim(low, high * (high / low) ** (0.18 * len(curves)))


def draw(curves: list[dict[str, Any]]) -> Figure:
    """The figure: for each function a panel of time and below it one of memory; exponents stand in the legends.

    Args:
        curves: as ``benchmarks/growth.py`` keeps them.
    """
    by_function: dict[str, list[dict[str, Any]]] = {}
    for curve in curves:
        by_function.setdefault(curve["function"], []).append(curve)
    columns = min(COLUMNS, len(by_function))
    bands = -(-len(by_function) // columns)
    with style():
        figure = new_figure(WIDTH * columns, HEIGHT * 2 * bands)
        grid = figure.subplots(2 * bands, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
            axes.tick_params(labelsize=7)
        for number, (name, own) in enumerate(by_function.items()):
            row, column = 2 * (number // columns), number % columns
            for axes, values, unit, label in (
                (grid[row, column], "seconds", 1.0, "time, s"),
                (grid[row + 1, column], "bytes", 1e6, "memory, MB"),
            ):
                axes.set_axis_on()
                _panel(axes, own, values, unit)
                if column == 0:
                    axes.set_ylabel(label, fontsize=8)
            grid[row, column].set_title(name, fontsize=9, family="monospace")
            grid[row + 1, column].set_xlabel("size / smallest size", fontsize=8)
    return figure
