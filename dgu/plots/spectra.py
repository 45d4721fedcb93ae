"""Eigenvalue spectra on logarithmic axes or as powers, with the ratios of arms below; power laws; white spectra; the
assumptions of a theorem.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.style import OKABE_ITO, arm_style, drawing, legend_below, name_rows, new_figure, panel_grid, style


@dataclass(frozen=True)
class SpectrumPanel:
    """The spectra of one panel: ``eigenvalues[arm]``, descending, ``(k,)`` or ``(replicates, k)`` for a 95 % band."""

    title: str
    eigenvalues: Mapping[str, np.ndarray]


@drawing
def spectra(
    panels: Sequence[SpectrumPanel],
    *,
    quantity: str = "eigenvalue (squared pixel units)",
    ratios: Sequence[tuple[str, str]] = (),
    corrected: tuple[float | int, float | int] | None = None,
    power: float | None = None,
    labels: Mapping[str, str] | None = None,
    title: str = "",
    columns: int = 5,
    floor: float = 1e-10,
) -> Figure:
    """Spectra against rank, log-log or as powers of the eigenvalues, a panel a class or a mixture.

    Args:
        panels: what to draw.
        quantity: label of the vertical axis, with its unit.
        ratios: pairs ``(arm, reference)`` whose ratio is drawn in a second panel below each, such as
            ``(("mixture", "diffusion"), ("null", "mixture"))``: the null shows what the finite fit alone does.
        corrected: of two ratios r and r0, draw r / r0, too, replicate by replicate, with dotted lines at these two
            numbers, the range of what counts as equal.
        power: draw the eigenvalues to this power, on linear axes; None draws themselves on logarithmic ones.
        labels: text in the legend for each arm.
        title: title of the figure.
        columns: panels side by side.
        floor: eigenvalues below this fraction of the largest are left out as rounding.

    Raises:
        InputError: no panel, an arm of ``ratios`` that a panel lacks, or arms of unequal length there; ``corrected``
            without two ratios.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    require(corrected is None or len(ratios) == 2, "number of ratios", len(ratios), "2, r and r0, with corrected")
    for panel in panels:
        for pair in ratios:
            require(all(arm in panel.eigenvalues for arm in pair), "ratios", pair, f"arms of the panel {panel.title!r}")
            shapes = [panel.eigenvalues[arm].shape for arm in pair]
            require(shapes[0] == shapes[1], f"shapes of {pair} ({panel.title})", shapes, "equal")
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    labels = labels or {}
    heights = [1.0, 0.55] if ratios else [1.0]
    with style():
        figure = new_figure(max(4.6, (2.5 if columns > 3 else 3.5) * columns), (2.5 * sum(heights)) * rows + 0.7)
        grid = figure.subplots(
            rows * len(heights), columns, squeeze=False, sharex=True, sharey="row", height_ratios=heights * rows
        )
        reach = np.asarray([0.8, 1.2])  # what the axes of the ratios show at least
        for number in range(rows * columns):
            row, column = divmod(number, columns)
            cells = grid[row * len(heights) : (row + 1) * len(heights), column]
            if number >= len(panels):
                for axes in cells:
                    axes.set_axis_off()
                continue
            panel = panels[number]
            top = cells[0]
            for place, (arm, values) in enumerate(panel.eigenvalues.items()):
                shown = _masked(values, floor)
                _band(top, shown if power is None else shown**power, arm, place, labels.get(arm, arm))
            if power is None:
                top.set_yscale("log")
                top.set_xscale("log")
            top.set_title(panel.title)
            quotients = []
            for place, (arm, reference) in enumerate(ratios):
                quotients.append(_masked(panel.eigenvalues[arm], floor) / _masked(panel.eigenvalues[reference], floor))
                name = "" if corrected is None else f"{('r', 'r0')[place]} = "
                name += f"{labels.get(arm, arm)} / {labels.get(reference, reference)}"
                middle = _band(cells[1], quotients[-1], arm, place, name)
                reach = np.append(reach, middle[np.isfinite(middle)])
            if corrected is not None:
                middle = _band(cells[1], quotients[0] / quotients[1], "together", 0, "r / r0")
                reach = np.concatenate([reach, middle[np.isfinite(middle)], corrected])
                for end in corrected:
                    cells[1].axhline(end, color=OKABE_ITO["black"], linewidth=0.8, linestyle=":", zorder=0)
            if ratios:
                cells[1].axhline(1.0, color="#7f7f7f", linewidth=0.8, zorder=0)
                if column == 0:
                    cells[1].set_ylabel("ratio")
            if column == 0:
                top.set_ylabel(quantity if power is None else f"{quantity} to the power {power:g}")
            if number + columns >= len(panels):
                cells[-1].set_xlabel("rank of eigenvalue")
                cells[-1].tick_params(labelbottom=True)
        # The lines decide: the band of the last ranks, where eigenvalues are rounding, can reach far.
        for axes in grid[1::2].flat if ratios else ():
            axes.set_ylim(max(0.0, reach.min() - 0.1), min(reach.max() + 0.1, 3.0))
        legend_below(figure, list(grid.flat))
        if title:
            figure.suptitle(title)
    return figure


def _masked(values: Num[np.ndarray, "*replicates k"], floor: float) -> Num[np.ndarray, "*replicates k"]:
    values = np.asarray(values, float)
    return np.where(values > floor * values.max(), values, np.nan)


def _band(axes: Axes, values: Num[np.ndarray, "*replicates k"], arm: str, place: int, label: str) -> np.ndarray:
    """One line, and where there are replicates their median with the range that holds 95 % of them; gives the line."""
    look = arm_style(arm, place)
    rank = np.arange(1, values.shape[-1] + 1)
    middle = values
    if values.ndim == 2:
        low, middle, high = np.quantile(values, [0.025, 0.5, 0.975], axis=0)
        axes.fill_between(rank, low, high, color=look.color, alpha=0.18, linewidth=0)
    axes.plot(rank, middle, color=look.color, linestyle=look.linestyle, linewidth=1.4, label=label)
    return np.asarray(middle)


@dataclass(frozen=True)
class PowerLawPanel:
    """A spectrum of one class in each arm, and the power law fitted to it.

    Attributes:
        title: of the panel.
        eigenvalues: by arm, (r,) descending.
        laws: by arm, (prefactor, exponent, first rank, last rank) of the line drawn.
        text: a line written in the panel, such as the exponents with their intervals.
    """

    title: str
    eigenvalues: Mapping[str, np.ndarray]
    laws: Mapping[str, tuple[float, float, int, int]]
    text: str


@drawing
def power_laws(
    panels: Sequence[PowerLawPanel], *, labels: Mapping[str, str] | None = None, columns: int = 5, floor: float = 1e-6
) -> Figure:
    """Covariance spectra against rank, log-log, with the fitted lines over their ranges of ranks.

    Args:
        panels: what to draw.
        labels: text in the legend for each arm.
        columns: panels side by side.
        floor: eigenvalues below this fraction of the largest are left out.

    Raises:
        InputError: no panel.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    labels = labels or {}
    with style():
        figure, cells = panel_grid(len(panels), columns, 2.6, 2.7, sharex=True, sharey=True)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            for place, (arm, values) in enumerate(panel.eigenvalues.items()):
                look, shown = arm_style(arm, place), _masked(values, floor)
                rank = np.arange(1, len(shown) + 1)
                axes.plot(
                    rank, shown, color=look.color, linestyle=look.linestyle, linewidth=1.3, label=labels.get(arm, arm)
                )
                if arm in panel.laws:
                    prefactor, exponent, first, last = panel.laws[arm]
                    ends = np.array([first, last], float)
                    axes.plot(
                        ends,
                        prefactor * ends**-exponent,
                        color=OKABE_ITO["black"],
                        linewidth=2.2,
                        alpha=0.45,
                        label="power laws, over the ranks fitted",
                    )
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(panel.title)
            axes.text(0.04, 0.05, panel.text, transform=axes.transAxes, fontsize=8, va="bottom")
            if cell.left:
                axes.set_ylabel("eigenvalue (squared pixel units)")
            if cell.bottom:
                axes.set_xlabel("rank of eigenvalue")
        legend_below(figure, [cell.axes for cell in cells])
    return figure


@dataclass(frozen=True)
class WhitePanel:
    """Eigenvalues of white data, and the density they should have: ``x`` and ``density``, one number each."""

    title: str
    eigenvalues: np.ndarray
    x: np.ndarray
    density: np.ndarray


@drawing
def white_spectra(panels: Sequence[WhitePanel]) -> Figure:
    """Histograms of white data's covariance eigenvalues with the Marchenko-Pastur density.

    Raises:
        InputError: no panel.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    with style():
        figure = new_figure(4.2 * len(panels) + 0.4, 3.6)
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(grid, panels):
            values = np.ravel(panel.eigenvalues)
            axes.hist(
                values, bins=40, density=True, color=OKABE_ITO["sky blue"], alpha=0.6, label="eigenvalues of white data"
            )
            axes.plot(panel.x, panel.density, color=OKABE_ITO["black"], linewidth=1.6, label="Marchenko-Pastur")
            for edge in (panel.x[0], panel.x[-1]):
                axes.axvline(edge, color=OKABE_ITO["vermilion"], linewidth=1.0, linestyle="--", label="edges")
            axes.set_xlabel("eigenvalue")
            axes.set_title(panel.title)
        grid[0].set_ylabel("density")
        legend_below(figure, list(grid))
    return figure


@drawing
def assumption_ratios(
    names: Sequence[str],
    ratios: Float[np.ndarray, "classes assumptions 3"],
    *,
    factor: float | int,
    classes: Sequence[str] = (),
) -> Figure:
    """Assumptions of Theorem 1 in units of white Gaussian data, a row each, a point with its 95 % interval a class.

    Args:
        names: of the assumptions.
        ratios: (value, low, high) of each class; values of 0 are drawn at the left edge.
        factor: the shaded band runs from 1 / factor to factor.
        classes: names of the classes, for the legend; where there are more than 10 it is left out.

    Raises:
        InputError: names do not fit the ratios.
    """
    require(ratios.shape[1:] == (len(names), 3), "ratios.shape", ratios.shape, f"(classes, {len(names)}, 3)")
    count = len(ratios)
    edge = 10 ** np.floor(np.log10(max(np.min(ratios[..., 0], where=ratios[..., 0] > 0, initial=1.0), 1e-6)))
    with style():
        figure = new_figure(8.2, 0.46 * len(names) + 1.6)
        axes = figure.add_subplot()
        axes.axvspan(
            1 / factor, factor, color="#dfe6ee", zorder=0, label=f"within a factor {factor:g} of white Gaussian data"
        )
        axes.axvline(1, color="#7f7f7f", linewidth=0.8, zorder=1)
        for row in range(len(names)):
            for number in range(count):
                height = row + (number - (count - 1) / 2) * 0.6 / max(count, 2)
                value, low, high = np.maximum(ratios[number, row], edge / 2)
                color = list(OKABE_ITO.values())[(number % 7) + (number % 7 >= 4)]
                axes.plot([low, high], [height, height], color=color, linewidth=1.1)
                label = classes[number] if number < len(classes) and count <= 10 else None
                axes.plot(
                    [value],
                    [height],
                    marker="o.sD^vPX<>"[number % 10],
                    color=color,
                    markersize=3.5,
                    linestyle="none",
                    label=label,
                )
        axes.set_xscale("log")
        name_rows(axes, names)
        axes.set_xlabel("ratio to white Gaussian data of the same size")
        legend_below(figure, [axes])
    return figure
