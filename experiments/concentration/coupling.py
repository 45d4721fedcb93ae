"""Theorem 3: do couplings of concentrated vectors concentrate? Two standard normal vectors, coupled in two ways."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dgu import analysis, plots
from dgu.analysis.concentration.coupling import COUPLINGS, LARGEST_DEVIATION
from dgu.analysis.stats.estimates import Estimate, standard_deviation
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments.study import Claim, Figure, all_of, at_most

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DIMENSIONS = (16, 256, 4096)
_LABELS = {"coin": "y = ±x by a coin", "independent": "y independent of x"}
#: The coupling that each joint claim is about.
_CLAIMED = {"coupling-concentrates": "coin", "coupling-independent": "independent"}

FIGURE = Figure(
    "coupling",
    "Theorem 3: standard deviation of a 1-Lipschitz function of two standard normal vectors, coupled by a coin (y = x "
    "or y = -x) and independent, against their dimension. Above the line they do not concentrate as each vector does.",
)


def _claim(name: str, statement: str, note: str = "", *, check: bool = False) -> Claim:
    """The deviation stays below what the marginals' constants allow, at every dimension."""
    coupling = _CLAIMED[name]
    parts = (
        Claim(
            f"coupling-{coupling}-{d}",
            f"For {_LABELS[coupling]}, at dimension {d:,}, the standard deviation of ||x - y|| / sqrt 2 is at most "
            f"{LARGEST_DEVIATION:g}.",
            at_most(LARGEST_DEVIATION),
            source="Theorem 3",
        )
        for d in DIMENSIONS
    )
    return Claim(name, statement, all_of(*parts), source="Theorem 3", note=note, check=check)


_AT_MOST = (
    f"the 1-Lipschitz function ||x - y|| / sqrt 2 has a standard deviation of at most {LARGEST_DEVIATION:g}, the most "
    f"that their constants allow, at the dimensions {', '.join(f'{d:,}' for d in DIMENSIONS[:-1])} and "
    f"{DIMENSIONS[-1]:,}, one part each (value: the standard deviation)."
)
CLAIMS = (
    _claim(
        "coupling-concentrates",
        "Two vectors x and y that concentrate also do so jointly, however they are coupled: with x standard normal and "
        f"y = x or y = -x by a fair coin, {_AT_MOST}",
        "So the paper states it; its proof uses the marginal distribution of x in place of that of x given y.",
    ),
    _claim(
        "coupling-independent",
        "Two vectors x and y that concentrate also do so jointly if they are independent: with both standard normal, "
        f"{_AT_MOST}",
        check=True,
    ),
)


def deviations(key: Key, pairs: int) -> dict[str, np.ndarray]:
    """Standard deviation of ||x - y|| / sqrt 2 over ``pairs`` pairs with its 95 % interval, by coupling: (dimensions,
    3)."""
    found = {}
    for name in COUPLINGS:
        distances = analysis.coupled_distances(stream(key, "coupling", name), pairs, DIMENSIONS, name)
        found[name] = standard_deviation(distances).stacked()
    return found


def measured(found: Mapping[str, np.ndarray]) -> dict[str, dict[str, Estimate]]:
    """What was measured for each of ``CLAIMS``."""
    return {
        claim: {
            f"coupling-{name}-{d}": Estimate(value, low, high, method="normal")
            for d, (value, low, high) in zip(DIMENSIONS, found[name].tolist())
        }
        for claim, name in _CLAIMED.items()
    }


def drawn(found: Mapping[str, np.ndarray]) -> "Drawing":
    """The measured deviations beside the exact ones."""
    exact = {label: [analysis.coupled_deviation(d, name) for d in DIMENSIONS] for name, label in _LABELS.items()}
    return plots.coupling_deviations(
        DIMENSIONS,
        {label: found[name] for name, label in _LABELS.items()},
        {label: np.array(values) for label, values in exact.items()},
        LARGEST_DEVIATION,
    )
