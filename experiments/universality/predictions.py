"""The asymptotic accuracy of least squares on the fitted mixture, drawn beside the learning curves."""

from collections.abc import Mapping

import numpy as np

from dgu.analysis.universality.predicted import class_moments, predicted_curve
from dgu.data.splits import class_splits
from experiments.universality.options import Options
from experiments.universality.problems import curve_tasks, tasks

#: How the lines of ``PredictedCurve`` are called in figures.
LINES = {
    "ridge": "theory for the mixture: least squares, best ridge",
    "min_norm": "theory for the mixture: least squares, no ridge",
}
#: Replicates whose subsets of classes are averaged over: the time grows with their number.
_SUBSETS_OF = 4


def predictions(options: Options, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Asymptotic errors of least squares on the mixture of the first replicate, at the training sizes and between them.

    Averaged over the subsets of the first few replicates; ``rows`` are the examples, (K, P, d). By task, ``n``,
    ``min_norm``, ``ridge`` and ``best``, as ``PredictedCurve``.
    """
    k, count, d = rows.shape
    fit = [class_splits(count, options.splits.parts(), options.seed, 0, label)["fit"] for label in range(k)]
    means, covariances = class_moments(np.stack([rows[label, places] for label, places in enumerate(fit)]))
    problems = [tasks(options, k, d, number) for number in range(min(options.replicates, _SUBSETS_OF))]
    out: dict[str, np.ndarray] = {}
    for name in curve_tasks(options):
        subsets = np.concatenate([each[name].classes for each in problems])
        n = subsets.shape[1] * np.asarray(problems[0][name].per_class, float)
        between = np.sqrt(n[1:] * n[:-1])
        curve = predicted_curve(means, covariances, subsets, np.sort(np.concatenate([n, between])))
        out |= {f"{name}.{what}": getattr(curve, what) for what in ("n", "min_norm", "ridge", "best")}
    return out


def predicted_lines(predicted: Mapping[str, np.ndarray] | None, task: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Accuracy (%) of asymptotic least squares on the mixture against n, for the tasks that have it."""
    if predicted is None or f"{task}.n" not in predicted:
        return {}
    return {name: (predicted[f"{task}.n"], 100 * (1 - predicted[f"{task}.{line}"])) for line, name in LINES.items()}


def about_predictions(predicted: Mapping[str, np.ndarray] | None, options: Options, d: int) -> str:
    """What the caption says of the lines, or why there are none."""
    if predicted is None:
        return f"No theory is drawn: d = {d:,} is above max_predicted_dimension = {options.max_predicted_dimension:,}."
    return (
        "Grey lines: the asymptotic accuracy of one-vs-all least squares from the mixture's means and covariances "
        "alone (fit of the first replicate; with the best ridge, and without one, interrupted at n = d). The "
        "classifiers are trained by SGD on softmax outputs with early stopping instead: the lines show what second "
        "moments and n allow, not what SGD must reach."
    )
