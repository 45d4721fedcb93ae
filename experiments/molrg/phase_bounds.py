"""Bounds on the error of the subspaces found on both sides of N = d: their constant, whether they hold, and their
figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dgu import plots
from dgu.analysis.stats.estimates import Estimate, normal_estimate
from experiments.molrg.phase_claims import share
from experiments.molrg.phase_config import Config
from experiments.study import Claim, Noted, all_of, at_most, within
from experiments.study.claims import Measured


@dataclass(frozen=True)
class Bound:
    """The constant of a bound fitted on the smaller ranks, and how well larger ranks obey it. Make it with ``fitted``.

    ``constant`` is the smallest with which every cell of the smaller ranks with N >= d keeps the bound in the share
    ``1 - 2^-(N - d + 1)`` of its trials that the theorem promises (its further term in exp(-c N) taken as 0).

    Attributes:
        constant: see above.
        broken: share of the trials of the larger ranks with N >= d that break the bound.
        allowed: share that the theorem allows to break it.
        ratio: where N < d, the distance over its exact value ``sqrt(2 (d - N))``.
    """

    constant: float
    broken: Estimate
    allowed: float
    ratio: Estimate

    @classmethod
    def fitted(cls, config: Config, errors: dict[str, np.ndarray]) -> "Bound":
        """From distances and units (trials, ranks, sizes, K)."""
        ranks, sizes = np.asarray(config.ranks), np.asarray(config.sizes)
        ratio = errors["distance"] / errors["unit"]
        fitting = range((len(ranks) + 1) // 2)
        constant, tested, allowances = 0.0, [], []
        for row, d in enumerate(ranks.tolist()):
            for column in np.flatnonzero(sizes >= d).tolist():
                allowed = 2.0 ** -(sizes[column] - d + 1)
                of_cell = ratio[:, row, column].ravel()
                if row in fitting:
                    constant = max(constant, float(np.quantile(of_cell, 1 - allowed, method="higher")))
                else:
                    tested.append(of_cell)
                    allowances.append(allowed)
        # Fewer points than dimensions: against sqrt(2 (d - N)), a trial's mean over its cells.
        short = sizes[None] < ranks[:, None]
        exact = np.sqrt(2.0 * np.maximum(ranks[:, None] - sizes[None], 0))
        relative = (errors["distance"].mean(axis=3)[:, short] / exact[short][None]).mean(axis=1)
        return cls(
            constant,
            share(np.concatenate([of_cell > constant for of_cell in tested])),
            float(np.mean(allowances)),
            normal_estimate(float(relative.mean()), float(relative.std(ddof=1) / np.sqrt(len(relative)))),
        )

    def measured(self, claim: str) -> Measured:
        """Both parts of the claim with this id."""
        broken = Noted(
            self.broken.map(lambda found: found - self.allowed), f"The fitted constant is {self.constant:.2f}."
        )
        return {f"{claim}-above": broken, f"{claim}-below": self.ratio}


def bound_claim(claim: str, source: str, method: str) -> Claim:
    """The claim ``claim``, that the error of a method obeys the bounds of a theorem."""
    return Claim(
        claim,
        f"The error of the subspaces that {method} finds obeys the theorem's bounds on both sides of N = d.",
        all_of(
            Claim(
                f"{claim}-above",
                f"For {method} with N >= d and the constant fitted on the smaller ranks, the larger ranks violate the "
                "bound no more often than the theorem allows (shown: the share of violations less the allowed share).",
                at_most(0.0),
                source=source,
            ),
            Claim(
                f"{claim}-below",
                f"For {method} with N < d, the distance between the estimated and the true projector is sqrt(2 (d - "
                "N)) (shown: the ratio of the two; directions that the points leave undetermined may agree with the "
                "true ones by chance).",
                within(0.9, 1.02),
                source=source,
            ),
        ),
        source=source,
    )


def error_figure(config: Config, errors: dict[int, dict[str, np.ndarray]], bounds: dict[int, Bound]) -> Figure:
    """A small, a middle and the largest rank."""
    shown = (config.ranks[0], config.ranks[len(config.ranks) // 2], config.ranks[-1])
    sizes = np.asarray(config.sizes)
    titles = {1: "PCA, one subspace", 2: "K-subspaces, two subspaces"}
    panels: dict[str, dict[int, Any]] = {title: {} for title in titles.values()}
    lines: dict[str, dict[int, Any]] = {title: {} for title in titles.values()}
    for k, title in titles.items():
        for d in shown:
            row = config.ranks.index(d)
            distance = errors[k]["distance"][:, row].mean(axis=2)
            panels[title][d] = tuple(np.quantile(distance, q, axis=0) for q in (0.5, 0.05, 0.95))
            above = bounds[k].constant * np.median(errors[k]["unit"][:, row], axis=(0, 2))
            lines[title][d] = np.where(sizes >= d, above, np.sqrt(2.0 * np.maximum(d - sizes, 0)))
    return plots.subspace_errors(panels, lines, config.sizes)
