"""The assumptions of Theorem 1 on the samples of each class: claims about each kind, their figure and their table."""

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate
from dgu.core.typing import Key
from experiments.study import Claim, Figure, Measured, Noted, Table, at_least, at_most

FIGURE = Figure(
    "assumptions",
    "The assumptions of Theorem 1 on each class's samples, in units of white Gaussian data of the same size, for "
    "which they hold.",
)
#: The first word of the names of each kind of quantity, by the claim about it.
_KINDS = {
    "assumption-mean": "mean",
    "assumption-moments": "moment",
    "assumption-quadratic-forms": "quadratic",
    "assumption-smallest-singular-value": "smallest",
}


def claims(factor: float) -> tuple[Claim, ...]:
    """What is tested: every kind of quantity is within ``factor`` of white Gaussian data's."""
    bound = f"within a factor {factor:g} of white Gaussian data"
    source, unit = "Theorem 1, assumption", "times white Gaussian data's"
    mean = f"The mean of each class has length O(1) in units in which the deviations have length 1: at most {factor:g}."
    moments = (
        f"Moments up to the sixth of each class's samples along unit directions are of the order 1 / d^(q/2): {bound}."
    )
    forms = (
        f"Variances of quadratic forms of each class's samples vanish as they do for white data of this size: {bound}."
    )
    smallest = f"The smallest singular value of X X^T of each class's samples stays away from 0: {bound}."
    return (
        Claim("assumption-mean", mean, at_most(factor), source),
        Claim("assumption-moments", moments, at_most(factor), source, unit),
        Claim("assumption-quadratic-forms", forms, at_most(factor), source, unit),
        Claim("assumption-smallest-singular-value", smallest, at_least(1 / factor), source, unit),
    )


def quantities(rows: np.ndarray, key: Key) -> dict[str, np.ndarray]:
    """What the assumptions are about, of rows (n, d): names, what the theorem asks, value with interval, and white
    data's."""
    found = analysis.theorem_assumptions(rows, key)
    return {
        "assumption_names": np.array([one.name for one in found]),
        "assumption_wanted": np.array([one.wanted for one in found]),
        "white": np.array([one.white for one in found]),
        "assumptions": np.stack([one.estimate.stacked() for one in found]),
    }


def measured(found: Sequence[Mapping[str, np.ndarray]], classes: Sequence[str]) -> dict[str, Measured]:
    """For each kind, the class and quantity farthest from what the theorem asks."""
    names, white = [str(name) for name in found[0]["assumption_names"]], found[0]["white"]
    values = np.stack([one["assumptions"] for one in found])
    claimed: dict[str, Measured] = {}
    for claim, kind in _KINDS.items():
        places = [place for place, name in enumerate(names) if name.startswith(kind)]
        scaled = values[:, places] / np.where(white[places] > 0, white[places], 1.0)[None, :, None]
        centre = scaled[..., 0]
        farthest = centre.argmin() if kind == "smallest" else centre.argmax()
        k, place = (int(at) for at in np.unravel_index(farthest, centre.shape))
        farthest_found = Estimate(*scaled[k, place].tolist())
        claimed[claim] = Noted(farthest_found, f"Farthest: {names[places[place]]}, {classes[k]}.")
    return claimed


def drawn(found: Sequence[Mapping[str, np.ndarray]], classes: Sequence[str], factor: float) -> matplotlib.figure.Figure:
    """Each quantity in units of white Gaussian data, by class."""
    kept = np.flatnonzero(found[0]["white"] > 0)
    ratios = np.stack([one["assumptions"][kept] / one["white"][kept, None] for one in found])
    names = [str(found[0]["assumption_names"][place]) for place in kept]
    return plots.assumption_ratios(names, ratios, factor=factor, classes=classes)


def table(one: Mapping[str, np.ndarray], name: str) -> Table:
    """Every quantity of one class."""
    rows = [
        (str(title), str(wanted), Estimate(*values).text(".3g"), f"{white:.3g}" if white else "-")
        for title, wanted, values, white in zip(
            one["assumption_names"], one["assumption_wanted"], one["assumptions"], one["white"]
        )
    ]
    header = ("quantity", "required", "measured", "white Gaussian data")
    return Table(f"The assumptions of Theorem 1 on {name}", header, rows)
