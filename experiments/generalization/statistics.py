"""Statistics over seeds, and the reasons for which a run cannot test a claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dgu.analysis import early_stopping, median_interval, rank_trend
from dgu.analysis.stats.estimates import Estimate
from experiments.study import Measured, Noted, NotTested

#: Where a diverged run counts when a median or a ratio must be finite, in nats.
WORST = 100.0
#: Networks trained for fewer passes over the data than these are not called trained.
LEAST_EPOCHS = 100
#: Fewest points of which a rank correlation is informative, and fewest seeds of which a median has a 95 % interval.
LEAST_RANKED, LEAST_SEEDS = 4, 6
#: A rise of the KL below this, in nats, counts as none; and how it is measured, in statements of claims.
RISE = 0.02
RISE_MEASURED = (
    "(Value: the mean rise over seeds; the time of the minimum is chosen on one half of the seeds and the rise "
    "measured on the other half, and the other way round.)"
)
#: Measurements of the running mean, and fewest measurements of a curve in which a minimum can be found.
WINDOW, LEAST_MEASURED = 5, 10


#: What is said of claims whose intervals were found too narrow after their first run.
MEDIAN_CHANGED = (
    "the interval was of bootstrap percentiles, which are too narrow for so few seeds; "
    "it is now between order statistics."
)
RATIO_CHANGED = (
    "the value was the ratio of the medians over seeds, with an interval of bootstrap "
    "percentiles, which are too narrow for so few seeds; it is now the median over seeds of the ratio, with an "
    "interval between order statistics."
)


def trend_changed(threshold: float | None) -> str:
    """What is said of claims on rank correlations, which were held to ``threshold`` at first, or to 0 as now (None)."""
    held = "" if threshold is None else f", and was held to {threshold:g}"
    now = "" if threshold is None else ", and held to 0: so few points show whether there is a trend, not its strength"
    return (
        f"the rank correlation was that of the medians over seeds{held}, with an interval "
        "of bootstrap percentiles, which are too narrow for so few seeds; it is now the mean over seeds of each seed's "
        f"rank correlation, with the interval of Page's exact test of trend{now}."
    )


def median_over_seeds(values: np.ndarray) -> Measured:
    """The median of one value a seed, with its interval between order statistics; no test with too few seeds."""
    if len(values) < LEAST_SEEDS:
        few = f"{len(values)} seeds (that did not diverge) are too few for a 95 % interval of their median"
        return NotTested(f"{few}: at least {LEAST_SEEDS} are needed")
    return median_interval(values)


def trend(why: str, x: Sequence[float], rows: np.ndarray, note: str = "") -> Measured:
    """The mean over seeds of Spearman's correlation of x with a seed's row of ``rows`` (R, X), with the interval of
    Page's exact test; no test where there is a reason ``why``.
    """
    return NotTested(why) if why else Noted(rank_trend(x, rows), note)


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
    few = f"{epochs} epochs are too few to train a network: at least {LEAST_EPOCHS} are needed"
    return few if epochs < LEAST_EPOCHS else ""


def unmeasured(epochs: np.ndarray, low: float, high: float) -> str:
    """Why nothing can be said of the time from ``low`` to ``high`` epochs; empty where it was trained and measured."""
    if epochs[-1] < high:
        return f"training ended after {epochs[-1]:g} of {high:g} epochs"
    inside = ((epochs >= low) & (epochs <= high)).any()
    return "" if inside else f"nothing was measured from epoch {low:g} to {high:g}"


def few_ranked(points: Sequence[Any], what: str) -> str:
    """Why a rank correlation over these points is not informative; empty where it is."""
    few = f"a rank correlation over {len(points)} {what} says little: at least {LEAST_RANKED} are needed"
    return few if len(points) < LEAST_RANKED else ""


def untested_rise(epochs: int, evaluations: int) -> str:
    """Why the curves of a run show no minimum followed by a rise, whatever they are; empty where they can."""
    measured = evaluations + 1
    few = f"{measured} measurements of a curve cannot show a minimum: at least {LEAST_MEASURED} are needed"
    return untrained(epochs) or (few if measured < LEAST_MEASURED else "")


def diverged_note(first: np.ndarray) -> str:
    """How many runs diverged, from the step ``first`` at which each did (-1 for none); empty where none did."""
    lost = first[first >= 0]
    if not len(lost):
        return ""
    return f"{len(lost)} of {first.size} runs diverged, at steps {', '.join(map(str, sorted(lost.tolist())[:8]))}"


@dataclass(frozen=True)
class Rise:
    """The rise of the KL after its minimum.

    Attributes:
        estimate: over the seeds that did not diverge.
        note: where the minimum is, and which runs diverged.
        epoch: of the minimum of the smoothed median; None where too few seeds are left to find it.
    """

    estimate: Estimate
    note: str
    epoch: int | None


def rise(epochs: np.ndarray, kl: np.ndarray, first: np.ndarray) -> Rise:
    """Does the KL (R, E) at these epochs (E,) rise after its minimum? ``first`` (R,) is as in ``diverged_note``."""
    good = np.isfinite(kl).all(axis=1)
    lost = diverged_note(first)
    if good.sum() < 4:
        return Rise(Estimate(0.0, -WORST, WORST, method="too few seeds left"), lost, None)
    tested = early_stopping(kl[good], window=WINDOW)
    at, last = int(epochs[tested.minimum]), int(epochs[-1])
    note = (
        f"The median KL over seeds is least at epoch {at} of {last}; "
        f"with the time chosen on the same seeds the rise would be {tested.apparent:.3f} nats"
    )
    return Rise(tested.rise, "; ".join(filter(None, (note, lost))), at)
