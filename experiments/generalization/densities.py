"""The figure of learned densities through training."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dgu import plots
from dgu.analysis import Grid, mode_summary


def density_figure(found: Mapping[str, np.ndarray], grid: Grid, mu: float, name: str, rows: int = 3) -> Figure:
    """Learned densities of the first seeds early in training, at a quarter of it, half way and near the end.

    Args:
        found: ``epochs`` (E,), ``kl`` (R, E) and ``log_q`` (R, E, points) of R seeds.
        grid: where ``log_q`` was measured.
        mu: the target's modes are at +-mu.
        name: the optimiser, for the title.
        rows: seeds shown at most.
    """
    last = len(found["epochs"]) - 1
    columns = sorted({max(1, round(last * part)) for part in (0.05, 0.25, 0.5, 0.95)})
    rows = min(rows, len(found["kl"]))
    log_q = found["log_q"][:rows][:, columns]
    modes = mode_summary(np.where(np.isfinite(log_q), log_q, 0.0), grid)
    x = grid.coarse
    target = (np.exp(-((x - mu) ** 2) / 2) + np.exp(-((x + mu) ** 2) / 2)) / np.sqrt(8 * np.pi)

    def text(r: int, c: int) -> str:
        if not np.isfinite(log_q[r, c]).all():
            return "diverged"
        # A side that rises up to 0 has no mode of its own.
        places = (modes.left[r, c], modes.right[r, c])
        left, right = (f"{place:.1f}" if abs(place) > 1.5 * grid.step else "none" for place in places)
        return f"right {modes.weight[r, c]:.0%}, modes {left}, {right}"

    return plots.density_multiples(
        x,
        np.exp(log_q) / grid.step,
        target,
        [f"seed {r}" for r in range(rows)],
        [f"epoch {int(found['epochs'][c])}" for c in columns],
        [[text(r, c) for c in range(len(columns))] for r in range(rows)],
        title=f"Modes at ±{mu:g}, {name}",
    )
