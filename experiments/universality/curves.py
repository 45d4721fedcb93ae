"""Learning curves: accuracy or loss of linear classifiers against training size, a panel each problem."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import plots
from dgu.data.splits import SplitSizes
from experiments.universality.comparison import intervals, own_accuracy
from experiments.universality.predictions import predicted_lines

#: Labels of the vertical axis.
QUANTITIES = {"accuracy": "test accuracy (%)", "loss": "test loss"}


@dataclass(frozen=True)
class Curves:
    """What learning curves are drawn from.

    Attributes:
        arms: names of the arms, in the order of ``results``.
        n: training sizes by problem.
        dimension: numbers that represent one example, d.
        sizes: of the splits.
        results: of the replicates.
        predicted: as ``predictions.predictions`` returns it, or None.
    """

    arms: tuple[str, ...]
    n: Mapping[str, np.ndarray]
    dimension: int
    sizes: SplitSizes
    results: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray] | None


def learning_curves(curves: Curves, tasks: Sequence[str], what: str, labels: Mapping[str, str]) -> Drawing:
    """Accuracy or loss (``what``) of these problems against training size; ``labels`` name the arms in the legend."""
    panels = [curve_panel(curves, task, what) for task in tasks]
    return plots.learning_curves(panels, quantity=QUANTITIES[what], labels=labels)


def curve_panel(curves: Curves, task: str, what: str) -> plots.CurvePanel:
    """One panel of accuracy (%) or loss of every arm on its own test images against training size."""
    found = curves.results[f"{task}.{what}"]
    accuracy = what == "accuracy"
    values = np.einsum("raasz->raz", found) / found.shape[3]
    mean, low, high = intervals(values * (100 if accuracy else 1), curves.sizes)
    return plots.CurvePanel(
        task.replace("-", " "),
        curves.n[task],
        mean,
        low,
        high,
        curves.arms,
        dimension=curves.dimension,
        predictions=predicted_lines(curves.predicted if accuracy else None, task),
    )


def largest_common_size(results: Mapping[str, np.ndarray], task: str) -> int:
    """Place of the largest size that every arm has images for; the smallest size where there is none."""
    return int(np.flatnonzero(np.isfinite(own_accuracy(results, task)).all((0, 1))).max(initial=0))
