"""Scores that networks learned, compared with the exact one by lines fitted about each mode."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dgu.analysis import Grid
from experiments.generalization.trainings import SDE

#: Distance from a mode within which lines are fitted to the score.
NEAR = 1.5


@dataclass(frozen=True)
class LearnedScores:
    """Learned scores at the end of training, by the names of the trainings.

    Attributes:
        x: where they are taken, the middles between points of the grid.
        exact: the exact score of the noisy target there.
        learned: those of all seeds, (R, len(x)).
        slopes: (R,) slope of the line fitted about a mode, over that of the exact score, mean of both modes; NaN where
            a seed diverged. zeros: (R,) place where that line is 0, over that of the exact score, mean of both modes.
    """

    x: np.ndarray
    exact: np.ndarray
    learned: dict[tuple[str, int], np.ndarray]
    slopes: dict[tuple[str, int], np.ndarray]
    zeros: dict[tuple[str, int], np.ndarray]


def learned_scores(log_q: Mapping[tuple[str, int], np.ndarray], grid: Grid, mu: float, t_eps: float) -> LearnedScores:
    """The scores from ``log q`` by differences between points of the grid, and lines fitted to them by least squares.

    Args:
        log_q: by the names of the trainings, (R, points) of R seeds.
        grid: its points.
        mu: the target's modes are at +-mu.
        t_eps: time at which the scores were learned.
    """
    x = (grid.coarse[1:] + grid.coarse[:-1]) / 2
    variance = 1 + float(SDE.std(t_eps)) ** 2
    exact = (-x + mu * np.tanh(mu * x / variance)) / variance
    sides = [(np.abs(np.abs(x) - mu) <= NEAR) & side for side in (x < 0, x > 0)]
    truth = np.array([_line(x[side], exact[side]) for side in sides])
    learned = {name: np.diff(each, axis=-1) / grid.step for name, each in log_q.items()}
    ratios = {
        name: np.array([[_line(x[side], one[side]) for side in sides] for one in scores]) / truth
        for name, scores in learned.items()
    }
    slopes = {name: np.mean(ratio[..., 0], axis=1) for name, ratio in ratios.items()}
    zeros = {name: np.mean(ratio[..., 1], axis=1) for name, ratio in ratios.items()}
    return LearnedScores(x, exact, learned, slopes, zeros)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the least-squares line, and where it crosses 0."""
    if not np.isfinite(y).all():
        return np.nan, np.nan
    slope, height = np.polyfit(x, y, 1)
    return float(slope), float(-height / slope)
