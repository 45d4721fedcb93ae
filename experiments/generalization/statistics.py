"""Statistics over seeds, and the reasons for which a run cannot test a claim."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from dgu.analysis.stats.estimates import Estimate
from experiments.study import Measured, NotTested

#: Where a diverged run counts when a median or a ratio must be finite, in nats.
WORST = 100.0
#: Networks trained for fewer passes over the data than these are not called trained.
LEAST_EPOCHS = 100
#: Fewest points of which a rank correlation is informative.
LEAST_RANKED = 4


def bootstrap(statistic: Callable[..., Any], *samples: np.ndarray, draws: int = 2000) -> Estimate:
    """A statistic of samples over seeds and its percentile 95 % interval, each sample redrawn by itself.

    ``statistic`` takes samples with seeds on axis 0 and reduces that axis; all draws are given to it at once, as axis
    1. Where a sample is empty, because every seed diverged, nothing is known: 0, from -``WORST`` to ``WORST``.
    """
    if not all(len(sample) for sample in samples):
        return Estimate(0.0, -WORST, WORST, method="no seed left")
    rng = np.random.default_rng(0)
    value = float(statistic(*samples))
    found = statistic(*(sample[rng.integers(0, len(sample), (len(sample), draws))] for sample in samples))
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value, min(float(low), value), max(float(high), value), method="percentile bootstrap over seeds")


def mean(values: np.ndarray) -> Any:
    """Over seeds, on axis 0."""
    return np.mean(values, axis=0)


def median(values: np.ndarray) -> Any:
    """Over seeds, on axis 0."""
    return np.median(values, axis=0)


def ratio_of_medians(above: np.ndarray, below: np.ndarray) -> Any:
    """Of two samples over seeds, on axis 0."""
    return median(above) / median(below)


def trend(x: Sequence[float], rows: np.ndarray) -> Any:
    """Spearman's correlation of x with the median over seeds (axis 0) of rows (R, ..., X); 0 where all are equal."""
    a, b = (stats.rankdata(values, axis=-1) - (len(x) + 1) / 2 for values in (np.asarray(x), median(rows)))
    norms = np.sqrt(np.sum(a**2) * np.sum(b**2, axis=-1))
    return np.where(norms > 0, np.sum(a * b, axis=-1) / np.where(norms > 0, norms, 1.0), 0.0)


def finite(kl: np.ndarray) -> np.ndarray:
    """The KL with that of diverged runs at ``WORST``."""
    return np.where(np.isfinite(kl), np.minimum(kl, WORST), WORST)


def shown(level: np.ndarray) -> np.ndarray:
    """For figures: levels of diverged runs at infinity."""
    return np.where(level >= WORST, np.inf, level)


def window(epochs: np.ndarray, low: float, high: float) -> np.ndarray:
    """Which measurements lie from ``low`` to ``high`` epochs; the last one where none does."""
    inside = (epochs >= low) & (epochs <= high)
    return inside if inside.any() else epochs == epochs[-1]


def unless(why: str, measured: Measured) -> Measured:
    """What was measured, or why the claim was not tested where there is a reason ``why``."""
    return NotTested(why) if why else measured


def untrained(epochs: int) -> str:
    """Why nothing can be said of networks trained for so many epochs; empty where it can."""
    return f"{epochs} epochs are too few to train a network: at least {LEAST_EPOCHS} are needed" * (
        epochs < LEAST_EPOCHS
    )


def unmeasured(epochs: np.ndarray, low: float, high: float) -> str:
    """Why nothing can be said of the time from ``low`` to ``high`` epochs; empty where it was trained and measured."""
    if epochs[-1] < high:
        return f"training ended after {epochs[-1]:g} of {high:g} epochs"
    inside = ((epochs >= low) & (epochs <= high)).any()
    return "" if inside else f"nothing was measured from epoch {low:g} to {high:g}"


def few_ranked(points: Sequence[Any], what: str) -> str:
    """Why a rank correlation over these points is not informative; empty where it is."""
    if len(points) >= LEAST_RANKED:
        return ""
    return f"a rank correlation over {len(points)} {what} says little: at least {LEAST_RANKED} are needed"


def diverged_note(first: np.ndarray) -> str:
    """How many runs diverged, and when; empty where none did."""
    lost = first[first >= 0]
    if not len(lost):
        return ""
    return f"{len(lost)} of {first.size} runs diverged, at steps {', '.join(map(str, sorted(lost.tolist())[:8]))}"
