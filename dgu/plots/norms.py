"""Norms along the sampler: the panel of histograms and pictures at a few levels, and the change of the norm in each
step.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from dgu.analysis.stats.estimates import Estimate
from dgu.core.errors import require
from dgu.plots.style import OKABE_ITO, drawing, legend_below, new_figure, panel_grid, style

#: What the panel shows of a step, by the names of ``dgu.analysis.observe_norms``.
QUANTITIES = {"x": "state $x_i$", "denoised": "denoised $D$", "slope": "slope $d_i$"}
_COLORS = {"x": OKABE_ITO["blue"], "denoised": OKABE_ITO["green"], "slope": OKABE_ITO["purple"]}


@drawing
def norm_panel(
    sigmas: Float[np.ndarray, " levels"],
    steps: Sequence[int],
    norms: Mapping[str, Float[np.ndarray, "n k"]],
    pictures: Mapping[str, Float[np.ndarray, "k h w c"]],
    expected: Mapping[str, Float[np.ndarray, " k"]] | None = None,
    *,
    title: str = "",
) -> Figure:
    """Norms and pictures of one trajectory at a few steps, a column each, below the noise schedule (Ghane et al., Fig
    4).

    Args:
        sigmas: the whole grid of noise levels, the last 0.
        steps: the steps shown.
        norms: of each of ``QUANTITIES`` the norms over n trajectories at those steps.
        pictures: of each the picture of one trajectory at those steps; each is stretched to its own range.
        expected: of each the exact expectation of the norm for a Gaussian, drawn as a dashed line.
        title: title of the figure.

    Raises:
        InputError: a quantity is missing or does not fit the steps.
    """
    columns = len(steps)
    for name in QUANTITIES:
        require(name in norms and name in pictures, "quantities", sorted(norms), f"{', '.join(QUANTITIES)}, in both")
        require(norms[name].shape[1] == columns, f"norms[{name!r}].shape", norms[name].shape, f"(n, {columns})")
        require(len(pictures[name]) == columns, f"pictures[{name!r}].shape", pictures[name].shape, f"({columns}, ...)")
    with style():
        figure = new_figure(1.35 * columns + 0.6, 9.6)
        grid = figure.add_gridspec(7, columns, height_ratios=[1.5, 1, 0.8, 1, 0.8, 1, 0.8])
        schedule = figure.add_subplot(grid[0, :])
        num_steps = len(sigmas) - 1
        schedule.plot(np.arange(num_steps), sigmas[:-1], color=OKABE_ITO["black"], linewidth=1.2)
        schedule.plot(steps, sigmas[list(steps)], "o", color=OKABE_ITO["vermilion"])
        schedule.set_yscale("log")
        schedule.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        schedule.set_xlabel("step i")
        schedule.set_ylabel("noise level $\\sigma_i$")
        for row, (name, label) in enumerate(QUANTITIES.items()):
            for column, step in enumerate(steps):
                picture = figure.add_subplot(grid[2 * row + 1, column])
                _show(picture, pictures[name][column])
                if row == 0:
                    picture.set_title(f"$\\sigma$ = {sigmas[step]:.3g}", fontsize=9)
                if column == 0:
                    picture.set_ylabel(label)
                histogram = figure.add_subplot(grid[2 * row + 2, column])
                histogram.hist(norms[name][:, column], bins=20, color=_COLORS[name])
                if expected is not None:
                    histogram.axvline(expected[name][column], color=OKABE_ITO["black"], linestyle="--", linewidth=1.2)
                histogram.set_yticks([])
                histogram.grid(False)
                histogram.xaxis.set_major_locator(MaxNLocator(2))
                histogram.tick_params(labelsize=7.5)
                if column == 0:
                    histogram.set_ylabel("count")
                if column == columns // 2:
                    dashed = " (dashed: exact expectation for the Gaussian)" if expected is not None else ""
                    histogram.set_xlabel(f"norm of the {label}{dashed}", fontsize=9)
        if title:
            figure.suptitle(title)
    return figure


def _show(axes: Axes, picture: np.ndarray) -> None:
    low, high = float(picture.min()), float(picture.max())
    shown = (picture - low) / ((high - low) or 1.0)
    axes.imshow(shown.squeeze(-1) if shown.shape[-1] == 1 else shown, cmap="gray", interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


@drawing
def norm_changes(
    sigmas: Float[np.ndarray, " steps"],
    changes: Sequence[Float[np.ndarray, "n steps"]],
    names: Sequence[str],
    shares: Sequence[Estimate],
    expected: Sequence[Float[np.ndarray, " steps"]] | None = None,
    *,
    columns: int = 4,
    title: str = "",
) -> Figure:
    """``|x_{i+1}| - |x_i|`` against the noise level, a panel a class, and the share of trajectories it is negative in.

    Ghane et al., Fig 9. The axis is linear about 0 and logarithmic further out. Bands: all trajectories, and the middle
    90 %; line: the median; dashed: the exact expectation for the class's Gaussian.

    Args:
        sigmas: level that each step starts from.
        changes: of each class.
        names: of the classes.
        shares: share of falling norms at each step, over all classes, as ``dgu.analysis.falling_share`` gives them.
        expected: expectation of the change for each class's Gaussian.
        columns: panels side by side.
        title: title of the figure.

    Raises:
        InputError: numbers of classes or steps that differ.
    """
    require(len(changes) == len(names) > 0, "number of names", len(names), f"the number of classes, {len(changes)}")
    require(
        all(one.shape[1] == len(sigmas) for one in changes),
        "steps",
        [one.shape[1] for one in changes],
        f"{len(sigmas)}",
    )
    require(len(shares) == len(sigmas), "number of shares", len(shares), f"the number of steps, {len(sigmas)}")
    largest = max(float(np.abs(one).max()) for one in changes)
    highest = max(float(one.max()) for one in changes)
    threshold = 10.0 ** math.floor(math.log10(max(float(np.median(np.abs(changes[0][:, -2:]))), 1e-6 * largest)))
    with style():
        figure, cells = panel_grid(len(names) + 1, columns, 3.1, 2.5, sharex=True)
        for number, cell in enumerate(cells):
            axes = cell.axes
            axes.set_xscale("log")
            axes.set_xlim(sigmas.max() * 1.2, sigmas.min() / 1.2)
            if cell.bottom:
                axes.set_xlabel("noise level $\\sigma_i$")
            if number == len(names):
                _shares(axes, sigmas, shares)
                continue
            change = changes[number]
            axes.fill_between(
                sigmas,
                change.min(0),
                change.max(0),
                color=OKABE_ITO["blue"],
                alpha=0.15,
                linewidth=0,
                label="all trajectories",
            )
            low, middle, high = np.quantile(change, [0.05, 0.5, 0.95], axis=0)
            axes.fill_between(sigmas, low, high, color=OKABE_ITO["blue"], alpha=0.3, linewidth=0, label="middle 90 %")
            axes.plot(sigmas, middle, color=OKABE_ITO["blue"], label="median")
            if expected is not None:
                axes.plot(
                    sigmas,
                    expected[number],
                    color=OKABE_ITO["black"],
                    linestyle="--",
                    linewidth=1.1,
                    label="exact, Gaussian",
                )
            axes.axhline(0, color=OKABE_ITO["vermilion"], linewidth=0.9)
            axes.set_yscale("symlog", linthresh=threshold, linscale=0.5)
            powers = np.arange(math.floor(math.log10(largest)), math.log10(threshold) - 0.5, -2)
            axes.set_yticks([*(-(10.0**powers)), 0.0, threshold])
            axes.set_ylim(-1.5 * largest, 2 * max(highest, threshold))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_title(names[number])
            if cell.left:
                axes.set_ylabel("$|x_{i+1}| - |x_i|$")
        legend_below(figure, [cell.axes for cell in cells[:-1]])
        if title:
            figure.suptitle(title)
    return figure


def _shares(axes: Axes, sigmas: np.ndarray, shares: Sequence[Estimate]) -> None:
    value, low, high = (np.array([getattr(share, name) for share in shares]) for name in ("value", "low", "high"))
    axes.errorbar(
        sigmas, 100 * value, 100 * np.maximum([value - low, high - value], 0), fmt="o", color=OKABE_ITO["vermilion"]
    )
    axes.set_title("norms that fall, all classes (%)")
    axes.set_ylim(min(40.0, 100 * low.min() - 3), 103)
