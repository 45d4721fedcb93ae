"""Scores that networks learned of a mixture with two modes, compared with the exact one by lines about each mode."""

from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.analysis.divergence.kl import Grid
from dgu.core.arrays import as_floats
from dgu.core.brief import short_repr
from dgu.core.errors import require


@short_repr
@dataclass(frozen=True)
class ModeScores:
    """Learned scores of R runs, at the middles between points of a grid.

    Attributes:
        x: (points - 1,), the places.
        exact: the exact score of the noisy target there.
        learned: those of all runs, (R, points - 1).
        slopes: (R,) slope of the line fitted about a mode, over that of the exact score, mean of both modes; NaN where
            a score is not finite.
        zeros: (R,) place where that line is 0, over that of the exact score, mean of both modes.
    """

    x: np.ndarray
    exact: np.ndarray
    learned: np.ndarray
    slopes: np.ndarray
    zeros: np.ndarray


def mode_scores(
    log_q: Num[ArrayLike, "r points"], grid: Grid, mu: float | int, sigma: float | int, *, near: float | int = 1.5
) -> ModeScores:
    """Scores by differences of ``log q`` between points of the grid, and lines fitted to them by least squares.

    The target is ``(N(-mu, 1) + N(mu, 1)) / 2`` with noise ``sigma``, whose score is ``(mu tanh(mu x / v) - x) / v``
    with ``v = 1 + sigma^2``.

    Args:
        log_q: log densities at the grid's coarse points, a row a run.
        grid: these points.
        mu: the target's modes are at +-mu.
        sigma: the noise level at which the scores were learned.
        near: distance from a mode within which the lines are fitted.

    Raises:
        InputError: rows that do not fit the grid, or fewer than two places near a mode.
    """
    rows = as_floats("log_q", log_q)
    require(rows.ndim == 2 and rows.shape[1] == grid.points, "log_q.shape", rows.shape, f"(R, {grid.points})")
    x = (grid.coarse[1:] + grid.coarse[:-1]) / 2
    variance = 1 + sigma**2
    exact = (-x + mu * np.tanh(mu * x / variance)) / variance
    sides = [(np.abs(np.abs(x) - mu) <= near) & side for side in (x < 0, x > 0)]
    fewest = min(int(side.sum()) for side in sides)
    require(fewest >= 2, "places of the grid near a mode", fewest, "2 or more")
    truth = np.array([_line(x[side], exact[side]) for side in sides])
    learned = np.diff(rows, axis=-1) / grid.step
    ratios = np.array([[_line(x[side], one[side]) for side in sides] for one in learned]) / truth
    slopes, zeros = (np.mean(ratios[..., which], axis=1) for which in range(2))
    return ModeScores(x, exact, learned, slopes, zeros)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the least-squares line, and where it crosses 0."""
    if not np.isfinite(y).all():
        return np.nan, np.nan
    slope, height = np.polyfit(x, y, 1)
    return float(slope), float(-height / slope)
