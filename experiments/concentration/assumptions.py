"""The assumptions of Theorem 1 on the samples of each class: claims about each kind, their figure and their table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dgu import analysis, plots
from dgu.analysis.stats.estimates import Estimate
from dgu.core.typing import Key
from experiments.study import Claim, Figure, Measured, Noted, Table, at_least, at_most

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

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
    source, unit = "Theorem 1, assumption", "times white Gaussian data's"
    scaled = "scaled such that the mean squared distance from the class's mean is 1,"
    white = "for white Gaussian data of the same size (value: the {} ratio of all {})."
    mean = (
        f"As Theorem 1 assumes, the samples of each class, {scaled} have a mean of length O(1): at most {factor:g} "
        "(value: the largest length of all classes)."
    )
    moments = (
        f"As Theorem 1 assumes, the samples of each class, {scaled} have moments of order q = 2, 4 and 6 that fall as "
        "d^(-q/2) with the number d of pixels, along random directions and leading eigenvectors of their covariance: "
        f"at most {factor:g} times those {white.format('largest', 'moments and classes')}"
    )
    forms = (
        f"As Theorem 1 assumes, quadratic forms x^T C x of the samples of each class, {scaled} vary little, for C the "
        "identity and the projections onto a random half of the dimensions and onto the leading eigenvector: their "
        f"variances are at most {factor:g} times those {white.format('largest', 'forms and classes')}"
    )
    smallest = (
        "As Theorem 1 assumes, samples of one class are far from linearly dependent. The measure is the smallest "
        "singular value of X X^T, where the rows of X are samples of one class, at most about half as many as an image "
        f"has pixels, {scaled.removesuffix(',')}. In every class it is at least 1 / {factor:g} of that of images whose "
        "pixels are independent Gaussians of equal variance (value: the ratio of the two in the class where it is "
        "smallest; near 0, some combination of the samples almost vanishes)."
    )
    return (
        Claim("assumption-mean", mean, at_most(factor), source, one_network=True),
        Claim("assumption-moments", moments, at_most(factor), source, unit, one_network=True),
        Claim("assumption-quadratic-forms", forms, at_most(factor), source, unit, one_network=True),
        Claim("assumption-smallest-singular-value", smallest, at_least(1 / factor), source, unit, one_network=True),
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
        claimed[claim] = Noted(farthest_found, f"This is “{names[places[place]]}” of the class {classes[k]}.")
    return claimed


def drawn(found: Sequence[Mapping[str, np.ndarray]], classes: Sequence[str], factor: float) -> "Drawing":
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
