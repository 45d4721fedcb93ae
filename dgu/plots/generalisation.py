"""Generalisation scores against the number of training examples, with fitted sigmoids."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from dgu.errors import require
from dgu.plots.style import OKABE_ITO, legend_below, new_figure, style

_LOOKS = (("blue", "o"), ("vermilion", "s"), ("green", "^"), ("purple", "v"), ("orange", "D"), ("sky blue", "P"), ("black", "X"))  # fmt: skip


@dataclass(frozen=True)
class ScorePanel:
    """One panel of scores.

    Attributes:
        title: of the panel.
        xlabel: what the sizes are.
        points: by name ``(sizes (n,), scores (n, runs))``: each run is a point, their mean a line.
        fits: by name ``(sizes (m,), scores (m,))``, drawn dashed in the colour of the points of that name (black without).
    """

    title: str
    xlabel: str
    points: Mapping[str, tuple[np.ndarray, np.ndarray]]
    fits: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def score_curves(panels: Sequence[ScorePanel], *, level: float = 0.95, columns: int = 2, title: str = "") -> Figure:
    """Scores over sizes on axes of powers of two; a name has one look in all panels. The dotted line is ``level``.

    Raises:
        InputError: no panel, more than seven names, or scores that do not fit their sizes.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    names = list(dict.fromkeys(name for panel in panels for name in panel.points))
    require(len(names) <= len(_LOOKS), "number of names", len(names), f"at most {len(_LOOKS)}")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with style():
        figure = new_figure(max(4.8, 4.4 * columns), 3.3 * rows + 0.7)
        grid = figure.subplots(rows, columns, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number >= len(panels):
                axes.set_axis_off()
                continue
            panel = panels[number]
            for name, (sizes, scores) in panel.points.items():
                shape = np.shape(scores)
                fits = len(shape) == 2 and shape[0] == len(sizes)
                require(fits, f"shape of {name!r} ({panel.title})", shape, f"({len(sizes)}, runs)")
                color, marker = _LOOKS[names.index(name)]
                flat = np.repeat(sizes, shape[1]), np.ravel(scores)
                axes.plot(*flat, linestyle="none", marker=marker, color=OKABE_ITO[color], alpha=0.45, markersize=4)
                axes.plot(sizes, np.mean(scores, axis=1), color=OKABE_ITO[color], marker=marker, label=name)
            for name, (sizes, scores) in panel.fits.items():
                color = OKABE_ITO[_LOOKS[names.index(name)][0]] if name in names else OKABE_ITO["black"]
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
        legend_below(figure, list(grid.flat))
        if title:
            figure.suptitle(title)
    return figure
