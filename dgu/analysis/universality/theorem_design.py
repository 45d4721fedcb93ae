"""The problems that the theorem of universality is tried on: laws, spectra and bases; see ``theorem_one``."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dgu.core.errors import require

LAWS = ("rademacher", "uniform", "exponential", "radius", "gaussian")
SPECTRA = ("bounded", "power")
BASES = ("coordinates", "cosines")


@dataclass(frozen=True)
class TheoremDesign:
    """A sequence of problems, one for each dimension.

    Attributes:
        law: distribution of z_j: ``rademacher`` (+-1), ``uniform``, ``exponential`` (less 1); ``radius``, Gaussian z of
            random length; or ``gaussian``, the null: both arms have one distribution.
        spectrum: eigenvalues of Sigma: ``bounded``, evenly spread over [1/2, 3/2]; ``power``, k^-2 (largest 1).
        basis: eigenvectors of Sigma: ``coordinates``, so that the leading features themselves are not Gaussian; or
            ``cosines``, sums of all z_j.
        ratio: n / d, below 1: the classifier interpolates.
        separation: Mahalanobis distance from m to 0; the Bayes error of G is Phi(-separation).
    """

    law: str = "exponential"
    spectrum: str = "bounded"
    basis: str = "coordinates"
    ratio: float = 0.5
    separation: float = 2.0

    def __post_init__(self) -> None:
        for name, allowed in (("law", LAWS), ("spectrum", SPECTRA), ("basis", BASES)):
            require(getattr(self, name) in allowed, name, getattr(self, name), f"one of {', '.join(allowed)}")
        require(0 < self.ratio < 1, "ratio", self.ratio, "above 0 and below 1")
        require(0 < self.separation < float("inf"), "separation", self.separation, "positive and finite")

    def eigenvalues(self, d: int) -> Float[np.ndarray, " d"]:
        """Eigenvalues of Sigma, in float64, descending."""
        if self.spectrum == "bounded":
            return np.linspace(1.5, 0.5, d)
        return np.arange(1, d + 1, dtype=float) ** -2
