"""Scales of concentration along the sampler: the recursion over its steps, beside the measured scale of its output."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu import analysis, plots
from dgu.samplers import Churn
from experiments.study import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What the recursion assumes of the steps.
PUBLISHED, NOISE = "Theorem 2: gain 1, no noise", "gain 1, noise of the churn"
WORST, TYPICAL = "largest measured gains", "median measured gains"


def recursions(gains: np.ndarray, churn: Churn, sigmas: np.ndarray) -> dict[str, np.ndarray]:
    """Scales along the path, (levels,), by what is assumed of the steps; ``gains`` are measured, (trajectories,
    steps)."""
    _, added = analysis.churn_levels(sigmas, churn)
    ones = np.ones(len(added))
    assumed = {
        PUBLISHED: (ones, np.zeros(len(added))),
        NOISE: (ones, added),
        WORST: (gains.max(axis=0), added),
        TYPICAL: (np.median(gains, axis=0), added),
    }
    return {name: analysis.scale_recursion(*values, float(sigmas[0])) for name, values in assumed.items()}


def figure(
    arms: Mapping[str, Mapping[str, np.ndarray]],
    sigmas: np.ndarray,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    deviations: Mapping[str, float],
) -> "Figure":
    """The recursions of each arm, its measured ``generator`` constant, and where given the deviation of its samples."""
    panels = []
    for name, arm in arms.items():
        measured = {"measured: Lipschitz constant in all noise": _rms(arm["generator"])}
        if name in deviations:
            measured["measured: leading deviation of the samples"] = deviations[name]
        panels.append(plots.ScalePanel(name, sigmas, curves[name], measured))
    return plots.scale_recursions(panels)


def table(arms: Mapping[str, Mapping[str, np.ndarray]], curves: Mapping[str, Mapping[str, np.ndarray]]) -> Table:
    """Where each recursion ends, in each arm, and the measured constant."""
    rows: list[tuple[Any, ...]] = [
        (label, *(float(own[label][-1]) for own in curves.values())) for label in (PUBLISHED, NOISE, WORST, TYPICAL)
    ]
    rows.append(("measured: constant in all noise, rms", *(_rms(arm["generator"]) for arm in arms.values())))
    return Table("Scale of the output", ("", *arms), rows)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
