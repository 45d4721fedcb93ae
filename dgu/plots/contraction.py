"""Is the sampler a contraction: gains of its steps, what they bound, and the two-point counter-example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dgu.core.errors import require
from dgu.plots.style import OKABE_ITO, drawing, legend_below, new_figure, style


@dataclass(frozen=True)
class GainPanel:
    """Gains of the steps in one setting of the sampler.

    Attributes:
        title: such as ``"churn off"``.
        sigmas: level that each step starts from, ``(steps,)``.
        gains: top singular values, ``(n, steps)``.
        exact: those of a Gaussian, ``(steps,)``, or None.
        pairs: ratios of distances of pairs by what they are, ``(n, steps)`` each.
    """

    title: str
    sigmas: np.ndarray
    gains: np.ndarray
    exact: np.ndarray | None
    pairs: Mapping[str, np.ndarray]


@drawing
def step_gains(panels: Sequence[GainPanel], *, title: str = "") -> Figure:
    """Top singular value of each step's Jacobian against the noise level, with its spread over states; 1 is marked.

    Raises:
        InputError: no panel, or gains that do not fit the levels.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    others = (OKABE_ITO["green"], OKABE_ITO["purple"], OKABE_ITO["sky blue"])
    with style():
        figure = new_figure(5.0 * len(panels) + 0.4, 4.3)
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(grid, panels):
            require(
                panel.gains.shape[1] == len(panel.sigmas), "gains.shape", panel.gains.shape, f"(n, {len(panel.sigmas)})"
            )
            _band(axes, panel.sigmas, panel.gains, OKABE_ITO["blue"], "top singular value: median, range")
            for (name, ratios), color in zip(panel.pairs.items(), others):
                axes.plot(panel.sigmas, np.median(ratios, axis=0), ":", marker=".", color=color, label=name)
            if panel.exact is not None:
                axes.plot(
                    panel.sigmas, panel.exact, "--", color=OKABE_ITO["black"], linewidth=1.1, label="exact, Gaussian"
                )
            axes.axhline(1, color=OKABE_ITO["vermilion"], linewidth=1.0)
            _falling_levels(axes, panel.sigmas)
            axes.set_xlabel("noise level $\\sigma_i$")
            axes.set_title(panel.title)
        grid[0].set_ylabel("expansion in one step")
        grid[0].set_ylim(bottom=0)
        legend_below(figure, list(grid))
        if title:
            figure.suptitle(title)
    return figure


@dataclass(frozen=True)
class ScalePanel:
    """Scales of concentration in one setting of the sampler.

    Attributes:
        title: such as ``"churn on"``.
        sigmas: all noise levels, ``(steps + 1,)``, the last 0.
        curves: scales along the path by what they assume, ``(steps + 1,)`` each.
        measured: scales of the output by what they are, a number each.
    """

    title: str
    sigmas: np.ndarray
    curves: Mapping[str, np.ndarray]
    measured: Mapping[str, float]


@drawing
def scale_recursions(panels: Sequence[ScalePanel], *, title: str = "") -> Figure:
    """The recursion ``s_{i+1}^2 = L_i^2 (s_i^2 + c_i^2)`` against the step, beside what was measured of the output.

    Raises:
        InputError: no panel, or a curve that does not fit the levels.
    """
    require(len(panels) > 0, "number of panels", len(panels), "1 or more")
    colors = [OKABE_ITO[name] for name in ("vermilion", "orange", "blue", "purple")]
    with style():
        figure = new_figure(5.0 * len(panels) + 0.4, 4.6)
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(grid, panels):
            steps = np.arange(len(panel.sigmas))
            for (name, curve), color, line in zip(panel.curves.items(), colors, ("-", "--", "-.", ":")):
                require(len(curve) == len(steps), f"length of {name!r}", len(curve), f"{len(steps)}")
                axes.plot(steps, curve, line, color=color, label=name)
            axes.plot(
                steps[:-1], panel.sigmas[:-1], ":", color="#7f7f7f", linewidth=1.0, label="noise level $\\sigma_i$"
            )
            for (name, value), marker in zip(panel.measured.items(), "osD^v"):
                color = OKABE_ITO["green" if marker == "o" else "black"]
                axes.plot(
                    steps[-1:],
                    [value],
                    marker,
                    color=color,
                    markersize=7,
                    linestyle="none",
                    label=name,
                    clip_on=False,
                    zorder=5,
                )
            axes.set_yscale("log")
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
            axes.set_xlabel("step i")
            axes.set_title(panel.title)
        lowest = min(min(panel.measured.values(), default=np.inf) for panel in panels)
        floor = min(lowest, min(float(curve[-1]) for panel in panels for curve in panel.curves.values()))
        grid[0].set_ylim(bottom=floor / 3)
        grid[0].set_ylabel("scale of concentration $s_i$ (pixel units)")
        legend_below(figure, list(grid))
        if title:
            figure.suptitle(title)
    return figure


@drawing
def counter_example(
    sigmas: Float[np.ndarray, " steps"],
    gains: Float[np.ndarray, "n steps"],
    changes: Float[np.ndarray, "n steps"],
    centre: Float[np.ndarray, " steps"],
    distance: float,
    *,
    title: str = "",
) -> Figure:
    """The two-point mixture: each trajectory's gain in each step, and the change of its norm in the same step.

    Args:
        sigmas: level that each step starts from.
        gains: top singular values of the steps.
        changes: ``|x_{i+1}| - |x_i|`` of the same steps.
        centre: the gain halfway between the points, from the closed form.
        distance: a, of points at +a and -a.
        title: title of the figure.
    """
    expands = gains > 1
    level = np.broadcast_to(sigmas, gains.shape)
    with style():
        figure = new_figure(10.0, 4.2)
        left, right = figure.subplots(1, 2)
        for axes, values in ((left, gains), (right, -changes)):
            shown = {
                False: (OKABE_ITO["sky blue"], ".", "step contracts here"),
                True: (OKABE_ITO["vermilion"], "x", "step expands here"),
            }
            for state, (color, marker, label) in shown.items():
                chosen = (expands == state) & (values > 0)
                axes.plot(
                    level[chosen], values[chosen], marker, color=color, label=label, markersize=4, linestyle="none"
                )
            axes.set_yscale("log")
            axes.axvline(distance, color="#7f7f7f", linestyle=":", label=f"$\\sigma$ = a = {distance:g}")
            _falling_levels(axes, sigmas)
            axes.set_xlabel("noise level $\\sigma_i$")
        left.plot(
            sigmas[:-1],
            np.abs(centre[:-1]),
            "--",
            color=OKABE_ITO["black"],
            linewidth=1.1,
            label="exact, halfway between the points",
        )
        left.axhline(1, color=OKABE_ITO["black"], linewidth=0.8)
        left.set_ylabel("top singular value of the step")
        # To noise 0 a step maps everything to the points: a gain of 0, off the logarithmic scale.
        left.set_ylim(float(gains[:, :-1].min()) / 2, 5 * float(gains.max()))
        right.set_ylabel("fall of the norm, $|x_i| - |x_{i+1}|$")
        right.set_title(
            f"{int((expands & (changes < 0)).sum())} of {int(expands.sum())} expanding steps shorten the state",
            fontsize=10,
        )
        legend_below(figure, [left, right])
        if title:
            figure.suptitle(title)
    return figure


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    axes.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)
    axes.plot(x, np.median(values, axis=0), marker="o", color=color, label=label)


def _falling_levels(axes: Axes, sigmas: np.ndarray) -> None:
    """Noise levels from high to low, as the sampler takes them."""
    axes.set_xscale("log")
    axes.set_xlim(float(sigmas.max()) * 1.2, float(sigmas.min()) / 1.2)
