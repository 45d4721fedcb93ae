"""Generalisation scores against the number of training examples, with fitted sigmoids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dgu.core.errors import require
from dgu.plots.style import LOOKS, OKABE_ITO, drawing, legend_below, panel_grid, style


@dataclass(frozen=True)
class ScorePanel:
    """One panel of scores.

    Attributes:
        title: of the panel.
        xlabel: what the sizes are.
        points: by name ``(sizes (n,), scores (n, runs))``: each run is a point, their mean a line.
        fits: by name ``(sizes (m,), scores (m,))``, drawn dashed in the colour of the points of that name (black
            without).
    """

    title: str
    xlabel: str
    points: Mapping[str, tuple[np.ndarray, np.ndarray]]
    fits: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


@drawing
def score_curves(panels: Sequence[ScorePanel], *, level: float = 0.95, columns: int = 2, title: str = "") -> Figure:
    """Scores over sizes on axes of powers of two; a name has one look in all panels. The dotted line is ``level``.

    Raises:
        InputError: no panel, more than seven names, or scores that do not fit their sizes.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    names = list(dict.fromkeys(name for panel in panels for name in panel.points))
    require(len(names) <= len(LOOKS), "number of names", len(names), f"at most {len(LOOKS)}")
    with style():
        figure, cells = panel_grid(len(panels), columns, 4.4, 3.3, least=4.8)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            for name, (sizes, scores) in panel.points.items():
                shape = np.shape(scores)
                fits = len(shape) == 2 and shape[0] == len(sizes)
                require(fits, f"shape of {name!r} ({panel.title})", shape, f"({len(sizes)}, runs)")
                look = LOOKS[names.index(name)]
                flat = np.repeat(sizes, shape[1]), np.ravel(scores)
                axes.plot(*flat, linestyle="none", marker=look.marker, color=look.color, alpha=0.45, markersize=4)
                axes.plot(sizes, np.mean(scores, axis=1), color=look.color, marker=look.marker, label=name)
            for name, (sizes, scores) in panel.fits.items():
                color = LOOKS[names.index(name)].color if name in names else OKABE_ITO["black"]
                axes.plot(
                    sizes,
                    scores,
                    linestyle=(0, (4, 2)),
                    linewidth=1.1,
                    color=color,
                    label="" if name in names else name,
                )
            axes.axhline(level, color="#7f7f7f", linewidth=1.0, linestyle=(0, (1, 1)), label=f"{level:g}")
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_ylim(-0.03, 1.05)
            axes.set_xlabel(panel.xlabel)
            axes.set_ylabel("generalisation score")
            axes.set_title(panel.title)
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure
