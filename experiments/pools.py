"""Intervals for parts whose replicates split one pool of images: options, stored pools drawn anew, and the interval.

What the replicates measure on the images' own pool, a version in closed form measures on pools that are drawn anew from
the images: ``SE^2 = S^2 / J + V``, see ``dgu.analysis.stats.pools``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.pools import pool_variance, pooled_interval
from experiments.study import Options, Run, option
from experiments.study.progress import progress

#: Ranges of a difference of shares in percentage points, and of a difference of two such differences.
POINTS, CORRECTED_POINTS = (-100.0, 100.0), (-200.0, 200.0)
#: What changed in all intervals of this kind, for the notes of claims.
VARIANCE_CHANGED = (
    "Until 1 December 2026 the variance between pools counted as 0 in the interval where its estimate was below 0, so "
    "that intervals were too narrow where it is small (91 % in place of 95 %); since then it is the mean of what is "
    "above 0 within the error of the estimate, and t has Satterthwaite's degrees of freedom of the two parts."
)
ResultsT = TypeVar("ResultsT")


@dataclass(frozen=True)
class Resampling(Options):
    """Base of the options of such a part."""

    resampled_pools: int = option(24, ge=2)
    """Pools that are drawn anew from the images (a smoothed bootstrap) to see how much results vary from pool to pool,
    with least squares in place of SGD."""
    resampled_splits: int = option(2, ge=2)
    """Splits of each of these pools."""


def on_resampled_pools(
    config: Resampling, run: Run, compute: Callable[[int], Mapping[str, np.ndarray]], name: str = "resampled"
) -> dict[str, np.ndarray]:
    """What ``compute`` finds on each pool, by its number, stacked, (pool, split, ...) each; stages ``NAME-NNN``."""
    numbers = progress(range(config.resampled_pools), f"{run.part}: {name}", unit="pools")
    found = [run.stage(f"{name}-{number:03d}", compute, number) for number in numbers]
    return {what: np.stack([one[what] for one in found]) for what in found[0]}


def interval(
    read: Callable[[ResultsT], np.ndarray],
    replicates: ResultsT,
    resampled: ResultsT,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """The mean over replicates of what ``read`` finds, with the variance between pools in its interval.

    Args:
        read: from results to numbers, with the leading axes that the results have.
        replicates: results on the images' own pool, with a leading axis of replicates.
        resampled: results on pools drawn anew, with two leading axes, of pools and splits.
        bounds: the range of what is estimated, to which the interval is cut.
    """
    between = pool_variance(np.moveaxis(read(resampled), (0, 1), (-2, -1)))
    return pooled_interval(np.moveaxis(read(replicates), 0, -1), between, bounds=bounds)
