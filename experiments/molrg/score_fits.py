"""Sigmoids through generalisation scores: over the number of training examples, and over that for each dimension."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.sigmoids import SigmoidFit, fit_sigmoids
from experiments.study import Measured, Noted, NotTested

#: Why no sigmoid is fitted.
NO_CROSSING = "the scores of this run do not cross 1/2"


@dataclass(frozen=True, eq=False)
class Fits:
    """Sigmoids through the scores of networks of one kind. Make it with ``of``.

    Attributes:
        pooled: one sigmoid over log2 (N / ID) for all curves; None for scores that never cross 1/2.
        over_n: one over log2 N for all curves.
        crossing: log2 (N / ID) at which the level is reached; None without ``pooled``.
        exponent: power of the intrinsic dimension to which the midpoints of a sigmoid for each curve are proportional;
            None for one dimension, or scores that never cross 1/2, as is ``spread``.
        spread: standard deviation of the midpoints over log2 N, and over log2 (N / ID), in octaves.
    """

    pooled: SigmoidFit | None = None
    over_n: SigmoidFit | None = None
    crossing: Estimate | None = None
    exponent: Estimate | None = None
    spread: tuple[float, float] | None = None

    @classmethod
    def of(
        cls, dimensions: Sequence[float] | np.ndarray, counts: np.ndarray, scores: np.ndarray, level: float
    ) -> "Fits":
        """From scores (curves, sizes, runs), the curves' dimensions and their numbers of examples (curves, sizes)."""
        if not scores.min() < 0.5 < scores.max():
            return cls()  # Nothing says where the scores would cross 1/2.
        shift = np.log2(np.asarray(dimensions, float))
        log_count = np.broadcast_to(np.log2(counts)[:, :, None], scores.shape)
        log_ratio = log_count - shift[:, None, None]
        number = np.broadcast_to(np.arange(len(shift))[:, None, None], scores.shape)
        pooled, over_n = (fit_sigmoids(x.ravel(), scores.ravel(), None) for x in (log_ratio, log_count))
        crossing = pooled.crossing(level)
        if not np.ptp(shift):
            return cls(pooled, over_n, crossing)
        curves = fit_sigmoids(log_count.ravel(), scores.ravel(), number.ravel())
        spread = float(curves.spread().value), float(curves.spread(shift).value)
        return cls(pooled, over_n, crossing, curves.exponent(shift), spread)


def collapse(fits: Fits, curves: int) -> Measured:
    """What was measured for a claim on the exponent, of so many ``curves``."""
    if fits.exponent is None or fits.spread is None:
        return NotTested("only one curve, of one intrinsic dimension" if curves < 2 else NO_CROSSING)
    over_n, over_ratio = fits.spread
    note = f"The standard deviation of the midpoints is {over_n:.2f} in log2 N and {over_ratio:.2f} in log2 (N / ID)."
    return Noted(fits.exponent, note)


def crossed(fits: Fits, curves: int, trained: str) -> Measured:
    """What was measured for a claim on N / ID at the level; ``trained`` says how the networks were trained."""
    if fits.crossing is None:
        return NotTested(f"{NO_CROSSING}; {trained}")
    together = "all curves together" if curves > 1 else "one curve"
    at = fits.crossing.map(lambda power: 2**power)
    return Noted(at, f"The sigmoid is one in log2 (N / ID), fitted to {together}; {trained}.")


def panels(
    title: str, names: Sequence[str], dimensions: Sequence[float] | np.ndarray, counts: np.ndarray, scores: np.ndarray,
    fits: Fits,
) -> "list[plots.ScorePanel]":  # fmt: skip
    """The same scores over N and over N / ID, each with the one sigmoid that fits all of them best."""
    found = []
    for xlabel, sizes, fit in (
        ("N", np.asarray(counts, float), fits.over_n),
        ("N / ID", counts / np.asarray(dimensions, float)[:, None], fits.pooled),
    ):
        points = dict(zip(names, zip(sizes, scores)))
        fine = np.geomspace(sizes.min(), sizes.max(), 80)
        sigmoid = {} if fit is None else {"sigmoid": (fine, fit(np.log2(fine)))}
        found.append(plots.ScorePanel(title, xlabel, points, sigmoid))
    return found


def ends(estimate: Estimate | None) -> list[Any] | None:
    """Value and interval, for the metrics."""
    return None if estimate is None else [estimate.value, estimate.low, estimate.high]
