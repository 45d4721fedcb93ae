"""The asymptotic accuracy of least squares on the fitted mixture, for the figures of the universality study."""

from typing import Any

import numpy as np

from dgu.analysis.universality.predicted import class_moments, predicted_curve
from dgu.data.splits import class_splits
from experiments.universality_replicates import Images, tasks

#: How the lines of ``PredictedCurve`` are called in figures.
LINES = {
    "ridge": "theory for the mixture: least squares, best ridge",
    "min_norm": "theory for the mixture: least squares, no ridge",
}
#: Replicates whose subsets of classes are averaged over: the time grows with their number.
_SUBSETS_OF = 4


def curve_tasks(config: Any) -> tuple[str, ...]:
    """The problems whose learning curves are those of squared loss."""
    return (*(f"{k}-classes" for k in config.subset_sizes), "all-classes", "pairs")


def predictions(config: Any, images: Images) -> dict[str, np.ndarray]:
    """Asymptotic errors of least squares on the mixture fitted in the first replicate, at the training sizes and between them.

    Averaged over the subsets of the first few replicates. By task, ``n``, ``min_norm``, ``ridge`` and ``best``, as ``PredictedCurve``.
    """
    k = len(images.class_names)
    flat = images.rows(config)
    fit = [class_splits(flat.shape[1], config.splits.parts(), config.seed, 0, label)["fit"] for label in range(k)]
    means, covariances = class_moments(np.stack([flat[label, rows] for label, rows in enumerate(fit)]))
    problems = [tasks(config, k, flat.shape[-1], number) for number in range(min(config.replicates, _SUBSETS_OF))]
    out: dict[str, np.ndarray] = {}
    for name in curve_tasks(config):
        subsets = np.concatenate([each[name].classes for each in problems])
        n = subsets.shape[1] * np.asarray(problems[0][name].per_class, float)
        between = np.sqrt(n[1:] * n[:-1])
        curve = predicted_curve(means, covariances, subsets, np.sort(np.concatenate([n, between])))
        out |= {f"{name}.{what}": getattr(curve, what) for what in ("n", "min_norm", "ridge", "best")}
    return out


def predicted_lines(predicted: dict[str, np.ndarray] | None, task: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Accuracy (%) of asymptotic least squares on the mixture against n, for the tasks that have it."""
    if predicted is None or f"{task}.n" not in predicted:
        return {}
    return {name: (predicted[f"{task}.n"], 100 * (1 - predicted[f"{task}.{line}"])) for line, name in LINES.items()}


def about_predictions(predicted: dict[str, np.ndarray] | None, config: Any, d: int) -> str:
    """What the caption says of the lines, or why there are none."""
    if predicted is None:
        return f"No theory is drawn: d = {d:,} is above max_predicted_dimension = {config.max_predicted_dimension:,}."
    return (
        "Grey lines: the asymptotic accuracy of one-vs-all least squares from the mixture's means and covariances alone (fit of the first "
        "replicate; with the best ridge, and without one, interrupted at n = d). The classifiers drawn are trained otherwise, by SGD on "
        "softmax outputs with early stopping: the lines say what second moments and n allow, not what SGD must reach."
    )
