"""Tails of Lipschitz functions: log-survival curves, kurtosis function by function, calibration of a test,
couplings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.style import OKABE_ITO, drawing, legend_below, name_rows, new_figure, panel_grid, style

#: Colour and line style of a kind of function, by the first word of its name: those of ``LipschitzFamily.names``, and
#: "leading".
_KINDS = {
    "norm": (OKABE_ITO["vermilion"], "-"),
    "leading": (OKABE_ITO["blue"], "-"),
    "projection": (OKABE_ITO["sky blue"], "-"),
    "coordinate": ("#4d4d4d", ":"),
    "distance": (OKABE_ITO["orange"], "-."),
    "max": (OKABE_ITO["purple"], ":"),
    "network": (OKABE_ITO["green"], "-."),
}

_LABELS = {"distance": "distance to a set", "max": "largest coordinate", "leading": "leading eigenvector"}


@dataclass(frozen=True)
class TailPanel:
    """Empirical tails of one data set.

    Attributes:
        title: such as ``"samples: bag"``.
        t: deviations in units of the scale s, (levels,).
        survival: fractions beyond, (functions, levels).
        names: of the functions, as ``LipschitzFamily.names``.
        n: values of each function; fractions below 1 / n are not drawn.
    """

    title: str
    t: np.ndarray
    survival: np.ndarray
    names: Sequence[str]
    n: int


@drawing
def tail_panels(panels: Sequence[TailPanel], *, columns: int = 4, title: str = "") -> Figure:
    """``P(|f - E f| > t)`` of each function against t / s, logarithmic, with ``2 exp(-t^2 / 2 s^2)`` and a Gaussian of
    scale s.

    Raises:
        InputError: no panel, or a survival whose shape does not fit names and levels.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    for panel in panels:
        wanted = (len(panel.names), len(panel.t))
        require(panel.survival.shape == wanted, f"survival.shape ({panel.title})", panel.survival.shape, f"{wanted}")
    with style():
        figure, cells = panel_grid(len(panels), columns, 3.5, 3.3, least=5.2, sharex=True, sharey=True)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            for name, curve in zip(panel.names, panel.survival):
                kind = name.split()[0]
                color, line = _KINDS.get(kind, (OKABE_ITO["black"], "-"))
                shown = np.where(curve > 0, curve, np.nan)
                axes.plot(
                    panel.t,
                    shown,
                    color=color,
                    linestyle=line,
                    linewidth=1.1,
                    alpha=0.85,
                    label=_LABELS.get(kind, kind),
                )
            fine = np.linspace(0, panel.t.max(), 200)
            axes.plot(
                fine, 2 * np.exp(-(fine**2) / 2), color=OKABE_ITO["black"], linewidth=1.8, label="bound, 2 exp(-t²/2s²)"
            )
            axes.plot(
                fine,
                2 * scipy.stats.norm.sf(fine),
                color="#7f7f7f",
                linestyle=(0, (1, 1.5)),
                linewidth=1.5,
                label="Gaussian of scale s",
            )
            axes.set_yscale("log")
            axes.set_title(panel.title)
            if cell.left:
                axes.set_ylabel("P(|f − E f| > t)")
            if cell.bottom:
                axes.set_xlabel("t / s")
        cells[0].axes.set_ylim(0.5 / max(panel.n for panel in panels), 1.4)
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure


@drawing
def kurtosis_rows(
    rows: Sequence[str],
    names: Sequence[str],
    excess: Float[np.ndarray, "rows functions"],
    null: Float[np.ndarray, "rows functions"],
    rejected: Sequence[Sequence[bool]] | np.ndarray,
    *,
    title: str = "",
) -> Figure:
    """Excess kurtosis of each function minus what Gaussian data of the same moments have, a row a class; heavier tails
    to the right.

    Args:
        rows: name of each row.
        names: of the functions.
        excess: kurtosis of the data.
        null: its mean over the test's null sets.
        rejected: which functions the test found heavier.
        title: title of the figure.

    Raises:
        InputError: arrays that do not fit.
    """
    shape = (len(rows), len(names))
    rejected = np.asarray(rejected, bool)
    for name, values in (("excess", excess), ("null", null), ("rejected", rejected)):
        require(values.shape == shape, f"{name}.shape", values.shape, f"(rows, functions) = {shape}")
    with style():
        figure = new_figure(7.6, 0.38 * len(rows) + 1.7)
        axes = figure.add_subplot()
        axes.axvline(0, color="#7f7f7f", linewidth=0.9, zorder=1)
        for row in range(len(rows)):
            for column, name in enumerate(names):
                kind, heavy = name.split()[0], bool(rejected[row, column])
                color, _ = _KINDS.get(kind, (OKABE_ITO["black"], "-"))
                axes.plot(
                    [excess[row, column] - null[row, column]],
                    [row],
                    linestyle="none",
                    marker={"norm": "o", "leading": "^", "projection": "v", "distance": "D"}.get(kind, "s"),
                    color=color,
                    markerfacecolor=color if heavy else "white",
                    markersize=6,
                    label=_LABELS.get(kind, kind) + (": heavier" if heavy else ""),
                    zorder=3 if heavy else 2,
                )
        name_rows(axes, rows)
        axes.set_xlabel("excess kurtosis, minus that of Gaussian data with the same mean and covariance")
        axes.set_xscale("symlog", linthresh=1.0)
        legend_below(figure, [axes])
        if title:
            axes.set_title(title)
    return figure


@drawing
def calibration(
    p_values: Float[np.ndarray, " sets"],
    degrees: Sequence[float | int],
    rates: Float[np.ndarray, "settings 3"],
    *,
    level: float = 0.05,
    data: str = "",
) -> Figure:
    """Size and power of a test: p values of Gaussian sets, which must be uniform, and rejections against tails of
    falling weight.

    Args:
        p_values: of sets for which the null hypothesis holds.
        degrees: degrees of freedom of Student-t data, ``inf`` for Gaussian.
        rates: share rejected at each, with its 95 % interval (value, low, high).
        level: nominal level.
        data: what the data on the right are, for the title.

    Raises:
        InputError: as many rates as degrees are not given.
    """
    require(rates.shape == (len(degrees), 3), "rates.shape", rates.shape, f"({len(degrees)}, 3)")
    with style():
        figure = new_figure(8.6, 3.7)
        left, right = figure.subplots(1, 2)
        ordered = np.sort(p_values)
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        left.plot([0, 1], [0, 1], color="#7f7f7f", linewidth=1.0, label="uniform")
        left.step(ordered, share, where="post", color=OKABE_ITO["blue"], label=f"{len(ordered):,} Gaussian sets")
        left.axvline(level, color=OKABE_ITO["vermilion"], linewidth=1.0, label=f"level {level:g}")
        left.set_xlabel("p value")
        left.set_ylabel("share of sets at or below")
        left.set_title(f"size: {np.mean(p_values <= level):.1%} rejected at {level:.0%}")
        left.legend(loc="upper left")
        place = np.arange(len(degrees))
        errors = np.abs(rates[:, 1:] - rates[:, :1]).T
        right.errorbar(place, rates[:, 0], yerr=errors, fmt="o", color=OKABE_ITO["blue"], capsize=3)
        right.axhline(level, color=OKABE_ITO["vermilion"], linewidth=1.0)
        right.set_xticks(place, ["Gaussian" if math.isinf(nu) else f"{nu:g}" for nu in degrees])
        right.set_ylim(-0.03, 1.05)
        right.set_xlabel("degrees of freedom of multivariate Student-t")
        right.set_ylabel("share of sets rejected")
        right.set_title(f"power{f', {data}' if data else ''}")
    return figure


@drawing
def coupling_deviations(
    dimensions: Sequence[int],
    measured: Mapping[str, Float[np.ndarray, "dimensions 3"]],
    exact: Mapping[str, Float[np.ndarray, " dimensions"]],
    bound: float | int,
) -> Figure:
    """Standard deviation of ``||x - y|| / sqrt 2`` against the dimension, for couplings of the same two Gaussian
    marginals: points with 95 % intervals, lines exact.

    Args:
        dimensions: d, rising.
        measured: by coupling, (value, low, high) at each d.
        exact: by coupling.
        bound: the largest deviation that concentration with the marginals' constants allows.

    Raises:
        InputError: arrays that do not fit the dimensions.
    """
    styles = ((OKABE_ITO["vermilion"], "o", "-"), (OKABE_ITO["blue"], "s", "--"))
    with style():
        figure = new_figure(5.8, 3.8)
        axes = figure.add_subplot()
        for (name, values), (color, marker, line) in zip(measured.items(), styles):
            require(
                values.shape == (len(dimensions), 3),
                f"measured[{name!r}].shape",
                values.shape,
                f"({len(dimensions)}, 3)",
            )
            errors = np.abs(values[:, 1:] - values[:, :1]).T
            axes.errorbar(dimensions, values[:, 0], yerr=errors, fmt=marker, color=color, capsize=3, label=name)
            axes.plot(dimensions, exact[name], color=color, linestyle=line, linewidth=1.2)
        axes.axhline(
            bound, color=OKABE_ITO["black"], linewidth=1.2, linestyle=":", label="most that concentration allows"
        )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(list(dimensions), [f"{d:,}" for d in dimensions])
        axes.minorticks_off()
        axes.set_yticks([0.5, 1, 2, 4, 8, 16, 32, 64], ["0.5", "1", "2", "4", "8", "16", "32", "64"])
        axes.set_xlabel("dimension d of x and of y")
        axes.set_ylabel("std of ‖x − y‖ / √2")
        legend_below(figure, [axes])
    return figure
