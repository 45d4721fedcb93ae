"""Curves: accuracy or loss against training size, and training loss against images seen."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from dgu.core.errors import require
from dgu.plots.style import OKABE_ITO, arm_style, drawing, legend_below, new_figure, panel_grid, style

#: Line styles of predictions, in turn: dashes and dots that no arm has.
_PREDICTED: tuple[Any, ...] = ((0, (6, 2)), (0, (1, 1.2)))


@dataclass(frozen=True)
class CurvePanel:
    """The curves of one panel.

    Attributes:
        title: title of the panel, such as ``"4 classes"``.
        n: training sizes, ``(sizes,)``, increasing.
        mean: a curve an arm, ``(arms, sizes)``; NaN where an arm has no such size.
        low: lower end of the 95 % interval, ``(arms, sizes)``.
        high: upper end, ``(arms, sizes)``.
        arms: names of the arms, which choose their styles.
        dimension: d of the data; gives the upper axis n / d. None for no such axis.
        predictions: lines from theory by name, each ``(n, value)`` of equal length; NaN interrupts a line.
    """

    title: str
    n: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    arms: Sequence[str]
    dimension: int | None = None
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


@drawing
def learning_curves(
    panels: Sequence[CurvePanel],
    *,
    quantity: str = "test accuracy (%)",
    xlabel: str = "training images n",
    labels: Mapping[str, str] | None = None,
    title: str = "",
    columns: int = 3,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Figure:
    """A quantity against training size, a panel each for 4 classes, 10 classes, ..., with 95 % bands.

    Args:
        panels: what to draw.
        quantity: label of the vertical axis, with its unit.
        xlabel: label of the lower axis.
        labels: text in the legend for each arm, such as ``{"mixture": "Gaussian mixture, n_fit/d = 2.1"}``.
        title: title of the figure.
        columns: panels side by side.
        limits: the possible range of the quantity, beyond which no axis reaches.

    Raises:
        InputError: no panel, arrays of a panel whose shapes do not fit its sizes and arms, or a prediction of unequal
            lengths.
    """
    _check_panels(panels)
    labels = labels or {}
    with style():
        figure, cells = panel_grid(len(panels), columns, 3.7, 3.4)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            _curves_with_bands(axes, panel, labels)
            # What is measured sets the range: without a ridge the theory drops to guessing at n = d.
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, limits[0]), min(high, limits[1]))
            for (name, (n, value)), line in zip(panel.predictions.items(), itertools.cycle(_PREDICTED)):
                axes.plot(
                    n, value, color="#4d4d4d", linestyle=line, linewidth=1.3, zorder=1.5, label=labels.get(name, name)
                )
            _size_axis(axes, panel, xlabel)
            if cell.left:
                axes.set_ylabel(quantity)
            axes.set_title(panel.title)
        legend_below(figure, [cell.axes for cell in cells])
        if title:
            figure.suptitle(title)
    return figure


@drawing
def difference_curves(
    panels: Sequence[CurvePanel],
    *,
    margin: float,
    quantity: str = "difference of test accuracy (points)",
    xlabel: str = "training images n",
    columns: int = 3,
) -> Figure:
    """Differences between arms against training size, with 95 % bands, about zero and the margin of equivalence.

    Args:
        panels: what to draw; the arms of a panel are the differences.
        margin: positive; the grey band runs from -margin to margin.
        quantity: label of the vertical axis, with its unit.
        xlabel: label of the lower axis.
        columns: panels side by side.

    Raises:
        InputError: as ``learning_curves``, or a margin that is not positive.
    """
    require(0 < margin < math.inf, "margin", margin, "positive")
    _check_panels(panels)
    with style():
        figure, cells = panel_grid(len(panels), columns, 3.7, 3.0)
        for cell, panel in zip(cells, panels):
            axes = cell.axes
            axes.axhspan(-margin, margin, color="#dfe6ee", zorder=0, label=f"margin of equivalence, ±{margin:g}")
            axes.axhline(0.0, color="#7f7f7f", linewidth=0.8, zorder=1)
            _curves_with_bands(axes, panel, {})
            _size_axis(axes, panel, xlabel)
            if cell.left:
                axes.set_ylabel(quantity)
            axes.set_title(panel.title)
        legend_below(figure, [cell.axes for cell in cells])
    return figure


def _check_panels(panels: Sequence[CurvePanel]) -> None:
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    for panel in panels:
        for name, (n, value) in panel.predictions.items():
            require(len(n) == len(value), f"lengths of {name} ({panel.title})", (len(n), len(value)), "equal")
        expected = (len(panel.arms), len(panel.n))
        for name in ("mean", "low", "high"):
            shape = getattr(panel, name).shape
            require(shape == expected, f"shape of {name} ({panel.title})", shape, f"(arms, sizes) = {expected}")


def _curves_with_bands(axes: Axes, panel: CurvePanel, labels: Mapping[str, str]) -> None:
    for place, arm in enumerate(panel.arms):
        look = arm_style(arm, place)
        axes.plot(
            panel.n,
            panel.mean[place],
            color=look.color,
            marker=look.marker,
            linestyle=look.linestyle,
            markeredgecolor="white",
            markeredgewidth=0.5,
            label=labels.get(arm, arm),
        )
        axes.fill_between(panel.n, panel.low[place], panel.high[place], color=look.color, alpha=0.18, linewidth=0)


@drawing
def loss_curve(
    images_seen: Num[np.ndarray, " steps"],
    loss: Num[np.ndarray, " steps"],
    *,
    held_out_seen: Num[np.ndarray, " checks"] | None = None,
    held_out_loss: Num[np.ndarray, " checks"] | None = None,
    quantity: str = "EDM loss (mean over pixels)",
) -> Figure:
    """Training loss against images seen, and the loss on held-out images where given.

    Args:
        images_seen: training images consumed at each record.
        loss: mean loss of the record.
        held_out_seen: images consumed at each check on held-out data.
        held_out_loss: the loss of the check.
        quantity: label of the vertical axis.
    """
    with style():
        figure = new_figure(5.6, 3.4)
        axes = figure.add_subplot()
        axes.plot(np.asarray(images_seen) / 1000, loss, color=OKABE_ITO["blue"], linewidth=1.2, label="training")
        if held_out_seen is not None and held_out_loss is not None:
            axes.plot(
                np.asarray(held_out_seen) / 1000,
                held_out_loss,
                color=OKABE_ITO["vermilion"],
                marker="o",
                linestyle="--",
                label="held out",
            )
            legend_below(figure, [axes])
        axes.set_xlabel("training images seen (thousands)")
        axes.set_ylabel(quantity)
        axes.set_xlim(left=0)
    return figure


def _size_axis(axes: Axes, panel: CurvePanel, xlabel: str) -> None:
    """Logarithmic sizes, marked at the sizes measured (at most seven), with n / d above."""
    axes.set_xscale("log")
    marked = np.asarray(panel.n)[:: math.ceil(len(panel.n) / 7)]
    axes.set_xticks(marked, [f"{size:,}" for size in marked.tolist()], rotation=30, ha="right", rotation_mode="anchor")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(xlabel)
    if panel.dimension is not None:
        d = float(panel.dimension)
        upper = axes.secondary_xaxis(
            "top", functions=(lambda n: np.asarray(n) / d, lambda ratio: np.asarray(ratio) * d)
        )
        upper.set_xscale("log")
        upper.set_xticks(marked / d, [f"{ratio:.2g}" for ratio in (marked / d).tolist()])
        upper.xaxis.set_minor_locator(NullLocator())
        upper.xaxis.set_minor_formatter(NullFormatter())
        upper.set_xlabel(f"n / d   (d = {panel.dimension:,})")
