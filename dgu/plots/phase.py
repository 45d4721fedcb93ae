"""Phase transitions of subspace recovery as heat maps, and the error of the subspaces against its bound."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.errors import require
from dgu.plots.style import arm_style, legend_below, new_figure, style


def phase_maps(
    panels: Mapping[str, Float[np.ndarray, "ranks sizes"]],
    ranks: Sequence[int],
    sizes: Sequence[int],
    *,
    title: str = "",
) -> Figure:
    """Share of successful trials in each cell of rank d and size N, a panel a method, with the line N = d of the theory.

    Args:
        panels: by title, shares from 0 to 1.
        ranks, sizes: consecutive numbers: rows from bottom to top, and columns.

    Raises:
        InputError: no panels, or one whose shape is not ``(ranks, sizes)``.
    """
    require(len(panels) >= 1, "panels", 0, "one or more")
    for name, share in panels.items():
        shape = (len(ranks), len(sizes))
        require(np.shape(share) == shape, f"panels[{name!r}].shape", np.shape(share), f"{shape}")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure = new_figure(4.3 * columns + 0.7, 2.6 * rows + 0.6)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, (name, share) in zip(axes, panels.items()):
            image = place.imshow(
                share,
                origin="lower",
                aspect="auto",
                cmap=matplotlib.colormaps["cividis"],
                vmin=0,
                vmax=1,
                extent=(sizes[0] - 0.5, sizes[-1] + 0.5, ranks[0] - 0.5, ranks[-1] + 0.5),
            )
            # The line between cells: those to its right have N >= d.
            across = [d - 0.5 for d in ranks for _ in "ab"]
            up = [d + side for d in ranks for side in (-0.5, 0.5)]
            place.plot(across, up, color="white", linewidth=3.2)
            place.plot(across, up, color=arm_style("diffusion").color, label="theory: success to the right, N ≥ d")
            place.set_xlim(sizes[0] - 0.5, sizes[-1] + 0.5)
            place.set_ylim(ranks[0] - 0.5, ranks[-1] + 0.5)
            place.set_xticks(list(sizes))
            place.set_yticks(list(ranks))
            place.grid(False)
            place.set_title(name)
            place.set_xlabel("points N on each subspace")
            place.set_ylabel("rank d")
        for place in axes[len(panels) :]:
            place.set_axis_off()
        figure.colorbar(image, ax=list(axes), label="share of trials with success", shrink=0.9)
        legend_below(figure, [axes[0]])
        if title:
            figure.suptitle(title)
    return figure


def subspace_errors(
    panels: Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]]],
    bounds: Mapping[str, Mapping[int, np.ndarray]],
    sizes: Sequence[int],
) -> Figure:
    """Distance of the projectors against the number of points, for several ranks, with what the theory allows.

    Args:
        panels: by title and rank d, median of ``|U U^T - V V^T|_F`` over trials and its 5 and 95 % quantiles, ``(sizes,)``.
        bounds: by the same titles and ranks, the bound: from above where N >= d, and what it is at least where N < d.
        sizes: N, increasing.
    """
    with style():
        figure = new_figure(4.4 * len(panels) + 0.4, 4.1)
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for place, (title, curves) in zip(axes, panels.items()):
            for number, (rank, (middle, low, high)) in enumerate(curves.items()):
                look = arm_style(("diffusion", "mixture", "null", "real")[number] if number < 4 else "", number)
                place.plot(sizes, middle, color=look.color, marker=look.marker, label=f"d = {rank}, median of trials")
                place.fill_between(sizes, low, high, color=look.color, alpha=0.2, linewidth=0)
                for side in (np.asarray(sizes) < rank, np.asarray(sizes) >= rank):
                    bound = np.where(side, bounds[title][rank], np.nan)
                    place.plot(sizes, bound, color=look.color, linestyle="--", linewidth=1.2)
            told = "bound: from above where N ≥ d, from below where N < d"
            place.plot([], [], color="black", linestyle="--", linewidth=1.2, label=told)
            place.fill_between([], [], [], color="black", alpha=0.2, label="5 to 95 % of trials")
            place.set_yscale("log")
            place.set_xticks(list(sizes))
            place.set_title(title)
            place.set_xlabel("points N on each subspace")
        axes[0].set_ylabel("Frobenius distance of the projectors")
        legend_below(figure, [axes[0]])
    return figure
