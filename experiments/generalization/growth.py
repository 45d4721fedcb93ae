"""How the KL grows with the distance of the modes: exponents of mu, beside that of Theorem 2's bound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dgu.analysis import mixture_bound
from experiments.generalization.statistics import WORST, median_over_seeds
from experiments.generalization.subject import NAMES
from experiments.study import NotTested, Table


def exponents(mus: Sequence[float], level: np.ndarray) -> np.ndarray:
    """Of each seed, the exponent of the KL (distances, seeds) as a power of mu, by least squares of logarithms.

    Seeds of which a run diverged are left out.
    """
    kept = level[:, (level < WORST).all(axis=0)]
    return np.asarray(np.polyfit(np.log(mus), np.log(kept), 1)[0]) if kept.size else np.zeros(0)


def exponents_table(mus: Sequence[float], levels: Mapping[str, np.ndarray]) -> Table:
    """Median exponents over seeds with 95 % intervals, by optimiser, and the exact one of the bound's floor."""
    rows: list[tuple[Any, ...]] = []
    for name, level in levels.items():
        found = exponents(mus, level)
        measured: Any = median_over_seeds(found)
        ends = ("", "", "") if isinstance(measured, NotTested) else (measured.value, measured.low, measured.high)
        rows.append((f"KL half way through training, {NAMES[name]}", *map(_shown, ends), len(found)))
    floor = mixture_bound(np.full(len(mus), 2.0), 1000, 1000, np.asarray(mus), degree=2).approximation
    slope = _shown(np.polyfit(np.log(mus), np.log(floor), 1)[0])
    rows.append(("floor of Theorem 2's bound, mu^2 / m", slope, slope, slope, "exact"))
    rows.append(("factor of its other terms, by the proof of Theorem 2 at most", 6.0, 6.0, 6.0, "exact"))
    header = ("quantity", "exponent of mu, median over seeds", "low", "high", "seeds that did not diverge")
    return Table("Growth with the distance of the modes: exponents of mu, with 95 % intervals", header, rows)


def _shown(value: Any) -> Any:
    return value if isinstance(value, str) else round(float(value), 3)
