"""Controls of the analysis of spectra: planted power laws, white data, and the Gram matrix beside the covariance."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu import analysis, plots
from dgu.analysis.moments.power_laws import planted_exponents
from dgu.analysis.moments.spectra import gram_covariance_difference, white_eigenvalues
from dgu.analysis.stats.resampling import t_interval
from dgu.core.keys import stream
from dgu.core.typing import Key
from experiments.concentration.subject import Subject
from experiments.study import Claim, Figure, Noted, all_of, within

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Rows, dimension and exponent of the planted power law.
PLANTED = (160, 40, 1.2)
#: White data with more rows than dimensions, and with fewer.
_WHITE = {"more": "more rows than dimensions", "fewer": "fewer rows than dimensions"}
#: The edges of the spectrum and the place of the eigenvalues at them, largest first.
_EDGES = {"lower": -1, "upper": 0}

FIGURE = Figure(
    "white_spectra",
    "Eigenvalues of white data with the Marchenko-Pastur density, for more rows than dimensions and for fewer.",
)

WHITE_EDGES = Claim(
    "spectra-white-edges",
    "A control: the largest and the smallest non-zero covariance eigenvalues of white Gaussian data lie within 10 % of "
    "the edges that the Marchenko-Pastur law gives (four parts: the lower and the upper edge, with more rows than "
    "dimensions and with fewer; value: eigenvalue over edge, mean over data sets).",
    all_of(
        *(
            Claim(
                f"spectra-white-{edge}-{name}",
                f"With {_WHITE[name]}, the extreme covariance eigenvalue of white Gaussian data is within 10 % of the "
                f"{edge} Marchenko-Pastur edge (value: eigenvalue over edge, mean over data sets).",
                within(0.9, 1.1),
                unit="of the edge",
            )
            for name in _WHITE
            for edge in _EDGES
        )
    ),
    source="control",
    paper="own",
)


def planted(key: Key, sets: int, draws: int) -> dict[str, np.ndarray]:
    """Intervals of the exponent of Gaussian data sets with a planted power law: (sets, 2)."""
    n, d, exponent = PLANTED
    return {"intervals": planted_exponents(stream(key, "planted"), n, d, exponent, sets=sets, draws=draws)[:, 1:]}


def white(subject: Subject, sets: int) -> dict[str, Any]:
    """Eigenvalues of ``sets`` white data sets of about the samples' dimension; and how far Gram and covariance
    disagree on the first class."""
    d = min(subject.dimension, 200)
    out: dict[str, Any] = {"identity": gram_covariance_difference(subject.rows[0][:500])}
    for name, (n, width) in {"more": (4 * d + 1, d), "fewer": (d + 1, 4 * d)}.items():
        out[f"{name}.eigenvalues"] = white_eigenvalues(sets, n, width, seed=11)
        out[f"{name}.sizes"] = np.array([n - 1, width])
    return out


def edges(found: Mapping[str, np.ndarray]) -> dict[str, Noted]:
    """What was measured for ``WHITE_EDGES``: extreme eigenvalues in units of the edge, mean over data sets."""
    measured = {}
    for name in _WHITE:
        n, d = (int(size) for size in found[f"{name}.sizes"])
        exact = dict(zip(_EDGES, analysis.marchenko_pastur_edges(n, d)))
        for edge, place in _EDGES.items():
            values = found[f"{name}.eigenvalues"][:, place] / exact[edge]
            measured[f"spectra-white-{edge}-{name}"] = Noted(
                t_interval(values), f"White data with n = {n + 1}, d = {d}."
            )
    return measured


def drawn(found: Mapping[str, np.ndarray]) -> "Drawing":
    """Eigenvalues of white data beside their density."""
    panels = []
    for name, title in (("more", "more rows than numbers"), ("fewer", "fewer rows than numbers")):
        n, d = (int(size) for size in found[f"{name}.sizes"])
        x = np.linspace(*analysis.marchenko_pastur_edges(n, d), 400)
        density = analysis.marchenko_pastur_density(x, n, d)
        panels.append(plots.WhitePanel(f"{title}: n = {n + 1}, d = {d}", found[f"{name}.eigenvalues"], x, density))
    return plots.white_spectra(panels)
