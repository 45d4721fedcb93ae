"""Numerical ranks of a network's Jacobian along its sampling trajectories, as the paper measures dimension."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dgu import analysis
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.subspaces.numerical_rank import JacobianRanks
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments.study.progress import Progress

#: Ranks at the states of one trajectory: ``(number of the trajectory, states, their noise levels, key)``.
RanksOf = Callable[[int, np.ndarray, np.ndarray, Key], JacobianRanks]


def along_paths(
    denoiser: Any,
    key: Key,
    grid: np.ndarray,
    shape: Sequence[int],
    trajectories: int,
    ranks_of: RanksOf,
    labels: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Ranks at the first state of every Heun step on the levels of ``grid``, and the states themselves.

    Returns:
        ``ranks``, their interval ``low`` and ``high``, and ``is_bound``, whether a rank is a lower bound, each
        ``(levels, trajectories)``; ``states`` ``(trajectories, levels, H, W, C)``.
    """
    paths = analysis.trace_trajectories(
        denoiser, stream(key, "paths"), range(trajectories), grid, shape=shape, labels=labels, batch_size=trajectories
    )
    found = []
    with Progress("Jacobians of the network", total=trajectories, unit="trajectories") as bar:
        for number, states in enumerate(paths.x_hat):
            found.append(ranks_of(number, states, grid[:-1], jax.random.fold_in(key, number)))
            bar.update()
    named = {"ranks": "rank", "low": "low", "high": "high", "is_bound": "is_bound"}
    ranks = {name: np.stack([getattr(one, field) for one in found], axis=1) for name, field in named.items()}
    return ranks | {"states": paths.x_hat}


def least_rank(ranks: np.ndarray, width: int) -> tuple[int, Estimate]:
    """The level at which the mean over trajectories of ``ranks`` (levels, trajectories) is least, and that mean: the
    intrinsic dimension (50), in images of ``width`` numbers."""
    lowest = int(ranks.mean(axis=1).argmin())
    return lowest, analysis.t_interval(ranks[lowest], bounds=(0, width))
