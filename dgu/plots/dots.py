"""Values with their 95 % intervals, a row each, several sources beside each other."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.analysis.stats.estimates import Estimate
from dgu.core.errors import require
from dgu.plots.style import arm_style, drawing, legend_below, name_rows, new_figure, style


@drawing
def interval_dots(
    rows: Sequence[str],
    series: Mapping[str, Float[np.ndarray, "rows 3"] | Sequence[Estimate | None]],
    *,
    quantity: str,
    marks: Mapping[str, float | int] | None = None,
    title: str = "",
) -> Figure:
    """A dot with its interval for each row and source.

    Args:
        rows: names of the rows, from the top.
        series: for each source an ``Estimate`` a row, None where it has no such row; or an array (rows, 3) of values
            with both ends, NaN where it has none.
        quantity: label of the axis, with its unit.
        marks: vertical lines by their name, such as what a perfect model shows.
        title: title of the figure.

    Raises:
        InputError: no rows, or a source of another shape.
    """
    require(len(rows) > 0 and len(series) > 0, "(rows, series)", (len(rows), len(series)), "1 or more of each")
    arrays = {name: _rows(values) for name, values in series.items()}
    for name, values in arrays.items():
        require(values.shape == (len(rows), 3), f"shape of {name}", values.shape, f"({len(rows)}, 3)")
    with style():
        figure = new_figure(7.2, (0.14 + 0.12 * len(series)) * len(rows) + 1.3)
        axes = figure.add_subplot()
        for name, at in (marks or {}).items():
            axes.axvline(at, color="#7f7f7f", linewidth=0.9, linestyle="--", zorder=0, label=name)
        for place, (name, values) in enumerate(arrays.items()):
            look = arm_style(name, place)
            height = np.arange(len(rows)) + (place - (len(series) - 1) / 2) * 0.22
            for at, (_, low, high) in zip(height, values):
                axes.plot([low, high], [at, at], color=look.color, linewidth=1.8, solid_capstyle="butt")
            axes.plot(
                values[:, 0],
                height,
                linestyle="none",
                color=look.color,
                marker=look.marker,
                markersize=5.5,
                markeredgecolor="white",
                label=name,
            )
        name_rows(axes, rows)
        axes.set_xlabel(quantity)
        legend_below(figure, [axes])
        if title:
            axes.set_title(title)
    return figure


def _rows(values: np.ndarray | Sequence[Estimate | None]) -> np.ndarray:
    """Values with both ends of their intervals, ``(rows, 3)``."""
    if isinstance(values, np.ndarray):
        return values
    ends = [(np.nan,) * 3 if one is None else (one.value, one.low, one.high) for one in values]
    return np.array(ends, np.float64).reshape(-1, 3)
