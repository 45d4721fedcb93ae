"""Does the KL rise after its minimum? The test that early stopping and far modes share."""

from collections.abc import Mapping

import numpy as np

from dgu.analysis import early_stopping
from dgu.analysis.stats.estimates import Estimate
from experiments.generalization.statistics import WORST, diverged_note, untrained

#: A rise of the KL below this, in nats, counts as none.
RISE = 0.02
#: Measurements of the running mean, and fewest measurements of a curve in which a minimum can be found.
WINDOW, LEAST_MEASURED = 5, 10


def rise(found: Mapping[str, np.ndarray]) -> tuple[Estimate, str]:
    """The rise of the KL after its minimum over the seeds that did not diverge, and a note.

    Args:
        found: ``epochs`` (E,), ``kl`` (R, E) and ``first_nonfinite`` (R,) of R seeds.
    """
    good = np.isfinite(found["kl"]).all(axis=1)
    lost = diverged_note(found["first_nonfinite"])
    if good.sum() < 4:
        return Estimate(0.0, -WORST, WORST, method="too few seeds left"), lost
    tested = early_stopping(found["kl"][good], window=WINDOW)
    at, last = int(found["epochs"][tested.minimum]), int(found["epochs"][-1])
    note = (
        f"The median over seeds is least at epoch {at} of {last}; "
        f"with the seeds that chose it the rise would be {tested.apparent:.3f}"
    )
    return tested.rise, "; ".join(filter(None, (note, lost)))


def untested_rise(epochs: int, evaluations: int) -> str:
    """Why the curves of a run show no minimum followed by a rise, whatever they are; empty where they can."""
    measured = evaluations + 1
    few = f"{measured} measurements of a curve cannot show a minimum: at least {LEAST_MEASURED} are needed"
    return untrained(epochs) or (few if measured < LEAST_MEASURED else "")
