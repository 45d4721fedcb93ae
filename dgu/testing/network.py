"""The check of a trained network: its distance from a posterior mean beside that of networks known to be good."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Num

from dgu.core.errors import require
from dgu.core.typing import Denoiser, Key
from dgu.testing.network_measures import MEASURES, NetworkMeasures, network_measures
from dgu.testing.network_scale import FACTOR, NetworkScale, judged
from dgu.testing.reports import DenoiserCheckError


@dataclass(frozen=True, eq=False)
class NetworkReport:
    """What ``check_network`` measured, beside the scale that it is judged by. ``str`` of it is a table.

    Attributes:
        measures: of the network.
        scale: the networks that it is compared with; each level of ``measures`` is one of theirs.
    """

    measures: NetworkMeasures
    scale: NetworkScale

    @property
    def verdicts(self) -> dict[str, dict[float, str]]:
        """For each measure and noise level ``"within"`` the bound, ``"outside"``, or ``"undecided"``: the 95 % interval
        straddles the bound, and more images would tell.
        """
        found: dict[str, dict[float, str]] = {}
        for name in MEASURES:
            estimate, bounds = getattr(self.measures, name), self._on_scale(self.scale.bound(name))
            found[name] = {
                sigma: judged(one.low, one.high, bound)
                for sigma, one, bound in zip(self.measures.sigmas, estimate, bounds)
            }
        return found

    @property
    def defects(self) -> tuple[str, ...]:
        """One line for each measure that is outside at some level, beginning with its name; the level that is farthest
        out is shown.
        """
        lines = []
        for name, verdicts in self.verdicts.items():
            outside = [place for place, verdict in enumerate(verdicts.values()) if verdict == "outside"]
            if outside:
                estimate, bounds = getattr(self.measures, name), self._on_scale(self.scale.bound(name))
                worst = max(outside, key=lambda place: abs(estimate[place].value) / max(bounds[place], 1e-300))
                where = ", ".join(f"{self.measures.sigmas[place]:g}" for place in outside)
                lines.append(
                    f"{name}: {MEASURES[name]}: {estimate[worst].text('.3g')} at sigma = "
                    f"{self.measures.sigmas[worst]:g}, bound {bounds[worst]:.3g} (outside at {where})"
                )
        return tuple(lines)

    def __str__(self) -> str:
        spoilt = list(self.scale.spoilt)
        names = ", ".join(self.scale.good)
        head = ["measure", "sigma", "value [95 % interval]", "good", "bound", "verdict", *spoilt]
        rows = [head]
        for name, verdicts in self.verdicts.items():
            estimate = getattr(self.measures, name)
            columns = [
                self._on_scale(column)
                for column in (
                    self.scale.largest(name),
                    self.scale.bound(name),
                    *(getattr(one, name).value for one in self.scale.spoilt.values()),
                )
            ]
            for place, (sigma, verdict) in enumerate(verdicts.items()):
                good, bound, *others = (f"{column[place]:.2g}" for column in columns)
                rows.append([name, f"{sigma:g}", estimate[place].text(".2g"), good, bound, verdict, *others])
        widths = [max(map(len, column)) for column in zip(*rows)]
        table = ["  ".join(entry.ljust(width) for entry, width in zip(row, widths)).rstrip() for row in rows]
        return "\n".join(
            [
                f"{self.measures.images} images, {self.measures.probes} probes each. good: largest size of {names}; "
                f"bound: {FACTOR:g} times the end of its interval;",
                f"on the right, denoisers that are spoilt: {', '.join(spoilt) or 'none'}.",
                *table,
            ]
        )

    def _on_scale(self, column: np.ndarray) -> np.ndarray:
        """The entries of a column of the scale at the levels of the measures."""
        return column[[self.scale.sigmas.index(sigma) for sigma in self.measures.sigmas]]


def check_network(
    denoiser: Denoiser,
    images: Num[ArrayLike, "n *event"],
    key: Key,
    *,
    labels: ArrayLike | Sequence[Any] | None = None,
    sigmas: Sequence[float] | None = None,
    scale: NetworkScale | None = None,
    probes: int = 2,
    batch_size: int = 32,
    strict: bool = True,
) -> NetworkReport:
    """Measure how far a trained network is from a posterior mean, and raise where it is farther than good ones are.

    ``check_posterior_mean`` holds a denoiser to what is exact, and no trained network passes it. Here four defects,
    asymmetry, divergence, orthogonality and bias (see ``network_measures``), may be as large as three times those of
    networks known to be good, at each noise level (see ``NetworkScale``). A defect counts as outside where its whole 95
    % interval is: with few images little is decided, and ``verdicts`` says what.

    - ``c D`` is outside in ``orthogonality`` (``1 / c - 1``) and ``divergence``.
    - A network that is given a wrong class, or is blind to it, is outside in ``bias``.
    - One that has memorised its training images is outside in ``divergence`` on others.

    It proves nothing good: an exact posterior mean of other data, of nearly the same images, passes.

    Args:
        denoiser, images, labels, key, probes, batch_size: as in ``network_measures``: held-out images with their
            classes.
        sigmas: noise levels, among those of the scale; by default all of them.
        scale: by default ``NetworkScale.bundled()``: of images in [-1, 1] with 14 x 14 pixels.
        strict: raise where a defect is outside; else the report alone says so.

    Raises:
        DenoiserCheckError: a defect is outside; ``error.report`` is the report.
        InputError: as ``network_measures``; a noise level that the scale does not have.
    """
    scale = NetworkScale.bundled() if scale is None else scale
    levels = scale.sigmas if sigmas is None else tuple(float(sigma) for sigma in sigmas)
    require(set(levels) <= set(scale.sigmas), "sigmas", levels, f"among those of the scale, {scale.sigmas}")
    measures = network_measures(
        denoiser, images, key, labels=labels, sigmas=levels, probes=probes, batch_size=batch_size
    )
    report = NetworkReport(measures, scale)
    if strict and report.defects:
        raise DenoiserCheckError(report)
    return report
