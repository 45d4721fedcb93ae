"""Bounds on the error of the subspaces found on both sides of N = d: their constant, whether they hold, and their figure."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dgu import plots
from experiments.molrg_parts.phase_claims import Fraction, joined, normal_interval
from experiments.molrg_parts.phase_config import Config
from experiments.molrg_parts.subject import PAPER
from experiments.study.judged import JudgedClaim


@dataclass(frozen=True)
class Bound:
    """The constant of a bound fitted on the smaller ranks, and how the larger ones keep to it.

    ``constant`` is the smallest with which every cell of the smaller ranks with N >= d keeps the bound in the share
    ``1 - 2^-(N - d + 1)`` of its trials that the theorem promises (its further term in exp(-c N) taken as 0).
    """

    constant: float
    broken: Fraction
    promised: float
    ratio: float
    ratio_error: float

    @classmethod
    def fitted(cls, config: Config, errors: dict[str, np.ndarray]) -> "Bound":
        """From distances and units (trials, ranks, sizes, K)."""
        ranks, sizes = np.asarray(config.ranks), np.asarray(config.sizes)
        ratio = errors["distance"] / errors["unit"]
        fitting = range((len(ranks) + 1) // 2)
        constant, broken, promised = 0.0, [], []
        for row, d in enumerate(ranks.tolist()):
            for column in np.flatnonzero(sizes >= d).tolist():
                allowed = 2.0 ** -(sizes[column] - d + 1)
                of = ratio[:, row, column].ravel()
                if row in fitting:
                    constant = max(constant, float(np.quantile(of, 1 - allowed, method="higher")))
                else:
                    broken.append((of, allowed))
                    promised.append(allowed)
        hits = [of > constant for of, _ in broken]
        # Fewer points than dimensions: against sqrt(2 (d - N)), a trial's mean over its cells.
        short = sizes[None] < ranks[:, None]
        wanted = np.sqrt(2.0 * np.maximum(ranks[:, None] - sizes[None], 0))
        relative = (errors["distance"].mean(axis=3)[:, short] / wanted[short][None]).mean(axis=1)
        return cls(
            constant,
            Fraction.of(np.concatenate(hits)),
            float(np.mean(promised)),
            float(relative.mean()),
            float(relative.std(ddof=1) / np.sqrt(len(relative))),
        )

    def claim(self, name: str, figure: str, method: str) -> JudgedClaim:
        """Both sides of the transition."""
        low, high = self.broken.interval
        about: dict[str, Any] = {"paper": PAPER, "figure": figure, "unit": ""}
        parts = [
            JudgedClaim.at_most(
                id=f"{name}-above",
                value=self.broken.value - self.promised,
                interval=(low - self.promised, high - self.promised),
                threshold=0.0,
                statement=f"N >= d: with the constant {self.constant:.2f} of the smaller ranks, the larger ones break the bound no more often than promised (difference of shares).",
                **about,
            ),
            JudgedClaim.within(
                id=f"{name}-below",
                value=self.ratio,
                interval=normal_interval(self.ratio, self.ratio_error),
                low=0.9,
                high=1.02,
                statement="N < d: the distance is sqrt(2 (d - N)) (their ratio; directions left open may happen to help a little).",
                **about,
            ),
        ]
        return joined(parts, name, figure, f"The error of {method} obeys the bounds on both sides of N = d.")


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
