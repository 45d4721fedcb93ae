"""Phase transitions of subspace recovery as heat maps, and the error of the subspaces against its bound."""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from dgu.core.errors import require
from dgu.plots.style import LOOKS, OKABE_ITO, drawing, legend_below, panel_grid, style


@drawing
def phase_maps(
    panels: Mapping[str, Float[np.ndarray, "ranks sizes"]],
    ranks: Sequence[int],
    sizes: Sequence[int],
    *,
    title: str = "",
) -> Figure:
    """Share of successful trials in each cell of rank d and size N, a panel a method, with the line N = d of the
    theory.

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
    with style():
        figure, cells = panel_grid(len(panels), 2, 4.3, 2.6, beside=0.7)
        for cell, (name, share) in zip(cells, panels.items()):
            axes = cell.axes
            image = axes.imshow(
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
            axes.plot(across, up, color="white", linewidth=3.2)
            axes.plot(across, up, color=OKABE_ITO["vermilion"], label="theory: success to the right, N ≥ d")
            axes.set_xlim(sizes[0] - 0.5, sizes[-1] + 0.5)
            axes.set_ylim(ranks[0] - 0.5, ranks[-1] + 0.5)
            axes.set_xticks(list(sizes))
            axes.set_yticks(list(ranks))
            axes.grid(False)
            axes.set_title(name)
            axes.set_xlabel("points N on each subspace")
            axes.set_ylabel("rank d")
        figure.colorbar(image, ax=[cell.axes for cell in cells], label="share of trials with success", shrink=0.9)
        legend_below(figure, [cells[0].axes])
        if title:
            figure.suptitle(title)
    return figure


@drawing
def subspace_errors(
    panels: Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]]],
    bounds: Mapping[str, Mapping[int, np.ndarray]],
    sizes: Sequence[int],
) -> Figure:
    """Distance of the projectors against the number of points, for several ranks, with what the theory allows.

    Args:
        panels: by title and rank d, median of ``|U U^T - V V^T|_F`` over trials and its 5 and 95 % quantiles,
            ``(sizes,)``.
        bounds: by the same titles and ranks, the bound: from above where N >= d, and what it is at least where N < d.
        sizes: N, increasing.
    """
    with style():
        figure, cells = panel_grid(len(panels), len(panels), 4.4, 3.4, beside=0.4, sharey=True)
        for cell, (title, curves) in zip(cells, panels.items()):
            axes = cell.axes
            for look, (rank, (middle, low, high)) in zip(itertools.cycle(LOOKS), curves.items()):
                axes.plot(sizes, middle, color=look.color, marker=look.marker, label=f"d = {rank}, median of trials")
                axes.fill_between(sizes, low, high, color=look.color, alpha=0.2, linewidth=0)
                for side in (np.asarray(sizes) < rank, np.asarray(sizes) >= rank):
                    bound = np.where(side, bounds[title][rank], np.nan)
                    axes.plot(sizes, bound, color=look.color, linestyle="--", linewidth=1.2)
            told = "bound: from above where N ≥ d, from below where N < d"
            axes.plot([], [], color="black", linestyle="--", linewidth=1.2, label=told)
            axes.fill_between([], [], [], color="black", alpha=0.2, label="5 to 95 % of trials")
            axes.set_yscale("log")
            axes.set_xticks(list(sizes))
            axes.set_title(title)
            axes.set_xlabel("points N on each subspace")
        cells[0].axes.set_ylabel("Frobenius distance of the projectors")
        legend_below(figure, [cells[0].axes])
    return figure
