"""Figures of generalisation in training time: curves over seeds, densities as they are learned, scatter against a
size.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Num
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dgu.analysis.divergence.kl import Grid, mode_summary
from dgu.core.errors import require
from dgu.plots.style import LOOKS, OKABE_ITO, drawing, legend_below, panel_grid, style


@dataclass(frozen=True)
class SeedCurves:
    """Curves of one panel, one for each seed.

    Attributes:
        title: of the panel.
        x: (E,) places.
        y: (R, E) a curve a seed; non-finite where a run has diverged.
        marks: places of vertical lines by what they mean.
    """

    title: str
    x: np.ndarray
    y: np.ndarray
    marks: Mapping[str, float] = field(default_factory=dict)


@drawing
def seed_curves(
    panels: Sequence[SeedCurves],
    *,
    xlabel: str,
    ylabel: str,
    columns: int = 3,
    log_x: bool = False,
    title: str = "",
) -> Figure:
    """Thin lines for seeds, their median and middle half, on a logarithmic axis; panels share it.

    Raises:
        InputError: no panel, or curves that do not fit their places.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    for panel in panels:
        require(
            panel.y.shape[1:] == panel.x.shape, f"shape of y ({panel.title})", panel.y.shape, f"(R, {len(panel.x)})"
        )
    with style():
        figure, cells = panel_grid(len(panels), columns, 3.6, 2.9, least=5.0, sharey=True)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            shown = np.where(np.isfinite(panel.y), panel.y, np.nan)
            axes.plot(panel.x, shown.T, color=OKABE_ITO["sky blue"], linewidth=0.6, alpha=0.6)
            worst = np.where(np.isfinite(panel.y), panel.y, np.inf)
            low, middle, high = (_finite(worst, q) for q in (0.25, 0.5, 0.75))
            axes.fill_between(
                panel.x, low, high, color=OKABE_ITO["blue"], alpha=0.25, linewidth=0, label="middle half of the seeds"
            )
            axes.plot(panel.x, middle, color=OKABE_ITO["blue"], marker="o", markersize=3, label="median over seeds")
            for (name, place), color in zip(panel.marks.items(), ("vermilion", "green")):
                axes.axvline(place, color=OKABE_ITO[color], linestyle="--", linewidth=1.1, label=name)
            diverged = int((~np.isfinite(panel.y[:, -1])).sum())
            axes.set_title(panel.title + (f" ({diverged} of {len(panel.y)} diverged)" if diverged else ""))
            axes.set_yscale("log")
            if log_x:
                axes.set_xscale("log")
            if cell.left:
                axes.set_ylabel(ylabel)
            if cell.bottom:
                axes.set_xlabel(xlabel)
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure


def _finite(rows: np.ndarray, quantile: float) -> np.ndarray:
    """A quantile over the rows, NaN where it lies at or beside an infinity: of runs that diverged or never got
    there.
    """
    with np.errstate(invalid="ignore"):
        values = np.quantile(rows, quantile, axis=0)
    return np.where(np.isfinite(values), values, np.nan)


@drawing
def density_multiples(
    x: Float[np.ndarray, " points"],
    learned: Float[np.ndarray, "rows columns points"],
    target: Float[np.ndarray, " points"],
    row_names: Sequence[str],
    column_names: Sequence[str],
    texts: Sequence[Sequence[str]],
    *,
    title: str = "",
) -> Figure:
    """Learned densities as small multiples, a row a seed and a column an epoch, each over the target.

    Args:
        x: places.
        learned, target: densities there.
        row_names, column_names: what rows and columns are.
        texts: a note inside each panel, such as the mass of a mode.
        title: of the figure.

    Raises:
        InputError: names that do not fit.
    """
    rows, columns = learned.shape[:2]
    fits = len(row_names) == rows and len(column_names) == columns and len(texts) == rows
    require(fits, "names", (len(row_names), len(column_names)), f"{rows} rows and {columns} columns")
    with style():
        figure, cells = panel_grid(rows * columns, columns, 2.5, 1.75, beside=0.6, sharex=True)
        top = 1.35 * float(target.max())
        for cell, (row, column) in zip(cells, itertools.product(range(rows), range(columns))):
            axes, values = cell.axes, learned[row, column]
            axes.fill_between(x, target, color="#c9ccd1", linewidth=0, label="target")
            axes.plot(x, values, color=OKABE_ITO["vermilion"], linewidth=1.3, label="learned")
            axes.set_ylim(0, max(top, 1.25 * float(np.nanmax(values)) if np.isfinite(values).any() else top))
            axes.set_yticks([])
            axes.grid(False)
            axes.text(0.5, 0.98, texts[row][column], transform=axes.transAxes, fontsize=7.5, ha="center", va="top")
            if row == 0:
                axes.set_title(column_names[column], fontsize=10)
            if cell.left:
                axes.set_ylabel(row_names[row])
            if cell.bottom:
                axes.set_xlabel("x")
        legend_below(figure, [cells[0].axes])
        if title:
            figure.suptitle(title)
    return figure


def mode_densities(
    epochs: Num[np.ndarray, " e"],
    log_q: Float[np.ndarray, "r e points"],
    grid: Grid,
    mu: float | int,
    *,
    seeds: int = 3,
    title: str = "",
) -> Figure:
    """Densities that networks learned of ``(N(-mu, 1) + N(mu, 1)) / 2``, early in training, at a quarter of it, half
    way and near the end; each panel gives the mass of the right mode and the places of both.

    Args:
        epochs: of the measurements.
        log_q: log densities at the grid's coarse points, a row a seed; not finite where a run has diverged.
        grid: these points.
        mu: the target's modes are at +-mu.
        seeds: rows shown at most.
        title: of the figure.

    Raises:
        InputError: log densities that do not fit the measurements or the grid.
    """
    require(
        log_q.shape[1:] == (len(epochs), grid.points), "log_q.shape", log_q.shape, f"(R, {len(epochs)}, {grid.points})"
    )
    last = len(epochs) - 1
    columns = sorted({max(1, round(last * part)) for part in (0.05, 0.25, 0.5, 0.95)})
    shown = log_q[:seeds][:, columns]
    finite = np.isfinite(shown).all(axis=2)
    modes = mode_summary(np.where(np.isfinite(shown), shown, 0.0), grid)
    x = grid.coarse
    target = (np.exp(-((x - mu) ** 2) / 2) + np.exp(-((x + mu) ** 2) / 2)) / np.sqrt(8 * np.pi)

    def text(row: int, column: int) -> str:
        if not finite[row, column]:
            return "diverged"
        # A side that rises up to 0 has no mode of its own.
        places = (modes.left[row, column], modes.right[row, column])
        left, right = (f"{place:.1f}" if abs(place) > 1.5 * grid.step else "none" for place in places)
        return f"right {modes.weight[row, column]:.0%}, modes {left}, {right}"

    return density_multiples(
        x,
        np.exp(shown) / grid.step,
        target,
        [f"seed {row}" for row in range(len(shown))],
        [f"epoch {int(epochs[column])}" for column in columns],
        [[text(row, column) for column in range(len(columns))] for row in range(len(shown))],
        title=title,
    )


@dataclass(frozen=True)
class SizePanel:
    """Points over seeds against a size.

    Attributes:
        title, xlabel, ylabel: of the panel.
        x: (S,) sizes.
        y: a family of (S, R) points by name; +inf for a run that never got there or diverged.
        line: a reference by name, (S,) each.
        ceiling: height at which such runs are drawn, as crosses; None where there are none.
        level: a horizontal line, or None.
        lost: what the crosses are called.
    """

    title: str
    xlabel: str
    ylabel: str
    x: np.ndarray
    y: Mapping[str, np.ndarray]
    line: Mapping[str, np.ndarray] = field(default_factory=dict)
    ceiling: float | int | None = None
    level: float | int | None = None
    lost: str = "never within the run"


@drawing
def against_size(panels: Sequence[SizePanel], *, title: str = "") -> Figure:
    """Every seed as a point, the median as a line, both axes logarithmic; crosses with their number at the ceiling:
    runs lost.

    Raises:
        InputError: no panel, or points that do not fit their sizes.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    with style():
        figure, cells = panel_grid(len(panels), len(panels), 4.6, 3.2)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            for place, (name, points) in enumerate(panel.y.items()):
                require(len(points) == len(panel.x), f"y[{name!r}]", points.shape, f"({len(panel.x)}, R)")
                color, marker = LOOKS[place].color, LOOKS[place].marker
                shift = 1.0 + 0.03 * place
                finite = np.where(np.isfinite(points), points, np.nan)
                axes.plot(panel.x * shift, finite, marker, color=color, markersize=3, alpha=0.45)
                middle = _finite(np.where(np.isfinite(points), points, np.inf).T, 0.5)
                axes.plot(panel.x * shift, middle, color=color, marker=marker, label=f"{name}, median")
                lost = (~np.isfinite(points)).sum(axis=1)
                if panel.ceiling is not None and lost.any():
                    at = lost > 0
                    axes.plot(panel.x[at] * shift, np.full(at.sum(), panel.ceiling), "x", color=color, label=panel.lost)
                    for x, count in zip(panel.x[at], lost[at]):
                        axes.annotate(
                            f"{count}",
                            (x * shift, panel.ceiling),
                            (0, 4),
                            textcoords="offset points",
                            ha="center",
                            fontsize=8,
                        )
            for name, values in panel.line.items():
                axes.plot(panel.x, values, color=OKABE_ITO["black"], linestyle="--", linewidth=1.1, label=name)
            if panel.level is not None:
                axes.axhline(panel.level, color=OKABE_ITO["black"], linestyle=":", linewidth=1.0)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel(panel.xlabel)
            axes.set_ylabel(panel.ylabel)
            axes.set_title(panel.title)
            axes.set_xticks(panel.x, [f"{value:g}" for value in panel.x], minor=False)
            axes.xaxis.set_minor_locator(NullLocator())
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure


@drawing
def score_panels(
    x: Float[np.ndarray, " points"],
    learned: Num[np.ndarray, "rows columns seeds points"],
    exact: Float[np.ndarray, " points"],
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """Learned scores of all seeds over the exact one, a panel each for a row and a column."""
    rows, columns = learned.shape[:2]
    with style():
        figure, cells = panel_grid(rows * columns, columns, 3.4, 2.6, sharex=True, sharey=True)
        span = 1.6 * float(np.abs(exact).max())
        for cell, (row, column) in zip(cells, itertools.product(range(rows), range(columns))):
            axes = cell.axes
            lines = axes.plot(x, learned[row, column].T, color=OKABE_ITO["sky blue"], linewidth=0.7, alpha=0.8)
            lines[0].set_label("learned, a line a seed")
            axes.plot(x, exact, color=OKABE_ITO["black"], linestyle="--", label="exact")
            axes.set_ylim(-span, span)
            axes.set_title(f"{row_names[row]}, {column_names[column]}", fontsize=10)
            if cell.bottom:
                axes.set_xlabel("x")
            if cell.left:
                axes.set_ylabel("score at $t_\\epsilon$")
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure
