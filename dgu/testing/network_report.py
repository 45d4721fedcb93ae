"""What the check of a trained network measured, beside the scale that it is judged by."""

from dataclasses import dataclass

import numpy as np

from dgu.testing.network_measures import MEASURES, NetworkMeasures
from dgu.testing.network_scale import FACTOR, NetworkScale, judged


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
        beside = {**self.scale.exact, **self.scale.spoilt}
        exact, spoilt = (", ".join(named) or "none" for named in (self.scale.exact, self.scale.spoilt))
        names = ", ".join(self.scale.good)
        head = ["measure", "sigma", "value [95 % interval]", "good", "bound", "verdict", *beside]
        rows = [head]
        for name, verdicts in self.verdicts.items():
            estimate = getattr(self.measures, name)
            columns = [
                self._on_scale(column)
                for column in (
                    self.scale.largest(name),
                    self.scale.bound(name),
                    *(getattr(one, name).value for one in beside.values()),
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
                f"on the right, denoisers that are exact: {exact}; and that are spoilt: {spoilt}.",
                *table,
            ]
        )

    def _on_scale(self, column: np.ndarray) -> np.ndarray:
        """The entries of a column of the scale at the levels of the measures."""
        return column[[self.scale.sigmas.index(sigma) for sigma in self.measures.sigmas]]
