"""Theorem 3: do couplings of concentrated vectors concentrate? Two standard normal vectors, coupled in two ways."""

from collections.abc import Mapping

import matplotlib.figure
import numpy as np

from dgu import analysis, plots
from dgu.analysis.concentration.coupling import COUPLINGS, LARGEST_DEVIATION
from dgu.analysis.stats.estimates import Estimate, normal_estimate
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments.study import Claim, Figure, all_of, at_most

DIMENSIONS = (16, 256, 4096)
_LABELS = {"coin": "y = ±x by a coin", "independent": "y independent of x"}

FIGURE = Figure(
    "coupling",
    "Theorem 3: standard deviation of a 1-Lipschitz function of two standard normal vectors, coupled by a coin (y = x "
    "or y = -x) and independent, against their dimension. Above the line they do not concentrate as each vector does.",
)


def _parts(coupling: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(
            f"coupling-{coupling}-{d}",
            f"For {_LABELS[coupling]}, at dimension {d:,}, the standard deviation of ||x - y|| / sqrt 2 is at most "
            f"{LARGEST_DEVIATION:g}.",
            at_most(LARGEST_DEVIATION),
            source="Theorem 3",
        )
        for d in DIMENSIONS
    )


CLAIMS = (
    Claim(
        "coupling-concentrates",
        "Any coupling of two concentrated vectors concentrates: the standard deviation of ||x - y|| / sqrt 2 stays "
        "below 2, which the constants of the marginals allow, also if y = x or y = -x by a fair coin.",
        all_of(*_parts("coin")),
        source="Theorem 3",
        note="As stated in the paper, whose proof uses the marginal distribution of x in place of that of x given y.",
    ),
    Claim(
        "coupling-independent",
        "An independent coupling of two concentrated vectors concentrates: the standard deviation of ||x - y|| / sqrt "
        "2 stays below 2, which the constants of the marginals allow.",
        all_of(*_parts("independent")),
        source="Theorem 3",
    ),
)


def deviations(key: Key, pairs: int) -> dict[str, np.ndarray]:
    """Standard deviation of ||x - y|| / sqrt 2 over ``pairs`` pairs with its 95 % interval, by coupling: (dimensions,
    3)."""
    found = {}
    for name in COUPLINGS:
        distances = analysis.coupled_distances(stream(key, "coupling", name), pairs, DIMENSIONS, name)
        estimates = [_deviation(values) for values in distances.astype(np.float64)]
        found[name] = np.array([[one.value, one.low, one.high] for one in estimates])
    return found


def _deviation(values: np.ndarray) -> Estimate:
    """The standard deviation of independent values, with the standard error that their kurtosis gives."""
    deviation = values.std(ddof=1)
    kurtosis = np.mean((values - values.mean()) ** 4) / values.var() ** 2
    error = deviation * np.sqrt(max(kurtosis - 1, 1e-6) / (4 * len(values)))
    return normal_estimate(float(deviation), float(error), n=len(values))


def measured(found: Mapping[str, np.ndarray]) -> dict[str, dict[str, Estimate]]:
    """What was measured for each of ``CLAIMS``."""
    return {
        claim: {
            f"coupling-{name}-{d}": Estimate(value, low, high, method="normal")
            for d, (value, low, high) in zip(DIMENSIONS, found[name].tolist())
        }
        for claim, name in (("coupling-concentrates", "coin"), ("coupling-independent", "independent"))
    }


def drawn(found: Mapping[str, np.ndarray]) -> matplotlib.figure.Figure:
    """The measured deviations beside the exact ones."""
    exact = {name: np.array([analysis.coupled_deviation(d, name) for d in DIMENSIONS]) for name in COUPLINGS}
    return plots.coupling_deviations(
        DIMENSIONS,
        {_LABELS[name]: found[name] for name in COUPLINGS},
        {_LABELS[name]: exact[name] for name in COUPLINGS},
        LARGEST_DEVIATION,
    )
