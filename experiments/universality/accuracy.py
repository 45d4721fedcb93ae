"""Accuracy of linear classifiers on diffusion samples, the mixture and other arms (Figs 5 and 7 of the paper)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu import plots
from dgu.analysis.universality.predicted import class_moments, predicted_curve
from dgu.data.splits import SplitSizes, class_splits
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, Table, all_of, equivalent
from experiments.study.judged import JudgedClaim
from experiments.universality.comparison import as_metrics, difference, gap, intervals, judged, own_results
from experiments.universality.options import Options
from experiments.universality.problems import class_counts, curve_tasks, sizes_per_class, tasks
from experiments.universality.subject import PAPER, Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Labels of the vertical axis.
_QUANTITIES = {"accuracy": "test accuracy (%)", "loss": "test loss"}
#: How the lines of ``PredictedCurve`` are called in figures.
_LINES = {
    "ridge": "theory for the mixture: least squares, best ridge",
    "min_norm": "theory for the mixture: least squares, no ridge",
}
#: How the claims about all or some pairs of classes are called in figures; those about subsets have their own names.
_ROWS = {
    "universality-all-classes": "all classes",
    "universality-pairs": "pairs of classes",
    "universality-cross-entropy": "all classes, cross entropy",
    "universality-null-corrected": "all classes, (mixture minus null) subtracted",
}
#: Replicates whose subsets of classes are averaged over in predictions: the time grows with their number.
_SUBSETS_OF = 4

FIGURES = (
    Figure(
        "accuracy_vs_n",
        "Accuracy of linear classifiers (softmax outputs and squared error; for pairs of classes, sigmoid output and "
        "squared error) on test images of the arm that they were trained on, against training size n (upper axis: n / "
        "d, d the number of pixels or features). Bands: 95 % intervals over replicates, corrected for the images that "
        "they share.",
        "fig-5",
    ),
    Figure("loss_vs_n", "Test loss of the same classifiers.", "fig-5"),
    Figure("accuracy_vs_n_ce", "Accuracy of linear classifiers trained on cross entropy, all classes.", "fig-7"),
    Figure(
        "equivalence",
        "Differences of accuracy between diffusion samples and mixture, with 95 % intervals, and in the last row that "
        "difference less the one between mixture and null; the band is the margin of equivalence.",
    ),
    Figure(
        "cross_matrix",
        "Accuracy of classifiers trained on one arm (rows) and tested on another (columns) at the largest training "
        "size that every arm reaches, with half-widths of the 95 % intervals.",
    ),
)


def claims(options: Options) -> tuple[Claim, ...]:
    """What is tested: each difference of accuracy is smaller than the margin."""
    test = equivalent(options.margin, max_standard_error=options.max_standard_error)
    within = f"within {options.margin:g} percentage points"
    undecided = f"undecided if its standard error exceeds {options.max_standard_error:g}"
    same = (
        f"Linear classifiers {{}} reach the same accuracy, {within}, when trained and tested on diffusion samples as "
        "when trained and tested on draws from the Gaussian mixture fitted to other such samples, one Gaussian to a "
        f"class (value: accuracy on samples minus accuracy on mixture; {undecided})."
    )
    numbers = " or ".join(map(str, options.subset_sizes))
    parts = ", one part for each number," * (len(options.subset_sizes) > 1)
    few = "(softmax outputs, squared error) that tell {} randomly chosen classes apart{}"
    of_subsets = same.format(few.format(numbers, parts))
    of_all = same.format("(softmax outputs, squared error) that tell all classes apart")
    of_pairs = same.format("(sigmoid output, squared error) that tell pairs of classes apart")
    by_cross_entropy = same.format("that tell all classes apart, trained on cross entropy,")
    corrected = (
        "For linear classifiers that tell all classes apart, diffusion samples differ from the Gaussian mixture fitted "
        f"to them no more than the finite fit explains: the difference of accuracy equals, {within}, that between the "
        "mixture and the null, a mixture fitted again to as many draws of the mixture (value: samples minus mixture, "
        f"less mixture minus null; {undecided})."
    )
    subsets = [
        Claim(f"{k}-classes", same.format(few.format(k, "")), test, "Fig 5", "points") for k in options.subset_sizes
    ]
    return (
        Claim("universality-subsets", of_subsets, all_of(*subsets), "Fig 5"),
        Claim("universality-all-classes", of_all, test, "Fig 5", "points"),
        Claim("universality-pairs", of_pairs, test, "Fig 5", "points"),
        Claim("universality-cross-entropy", by_cross_entropy, test, "Fig 7", "points"),
        Claim("universality-null-corrected", corrected, test, unit="points"),
    )


@dataclass(frozen=True)
class Measurements:
    """What the part measures.

    Attributes:
        results: of the replicates.
        predicted: as ``predictions`` returns it, None where it is not computed.
    """

    results: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray] | None


def measure(options: Options, subject: Subject, run: Run) -> Measurements:
    """The accuracies of the replicates, and what theory predicts for the mixture."""
    results = subject.replicates
    if subject.dimension > options.max_predicted_dimension:
        return Measurements(results, None)
    predicted = run.stage("predictions", lambda: predictions(options, subject.examples.rows), allow_nonfinite=True)
    return Measurements(results, predicted)


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


def estimates(options: Options, results: dict[str, np.ndarray]) -> dict[str, Measured]:
    """What was measured for each claim."""
    null = gap(results, "all-classes") - gap(results, "all-classes", 1, 2)
    return {
        "universality-subsets": {
            name: difference(options, gap(results, name)) for name in (f"{k}-classes" for k in options.subset_sizes)
        },
        "universality-all-classes": difference(options, gap(results, "all-classes")),
        "universality-pairs": difference(options, gap(results, "pairs")),
        "universality-cross-entropy": difference(options, gap(results, "cross-entropy")),
        "universality-null-corrected": difference(options, null),
    }


def report(options: Options, subject: Subject, found: Measurements) -> Findings:
    """Learning curves, differences and the matrix of arms."""
    results, sizes, d = found.results, options.splits, subject.dimension
    measured = estimates(options, results)
    decided = judged(claims(options), measured)
    counts, squared = class_counts(options, len(subject.class_names)), curve_tasks(options)
    n = {task: k * np.asarray(sizes_per_class(options, k, d)) for task, k in counts.items()}
    labels = {arm: f"{arm}, n_fit/d = {sizes.fit / d:.2g}" for arm in ("mixture", "null")}
    labels["low rank"] = f"low rank, n_fit/d = {options.low_rank_fit / d:.2g}"

    def curves(names: Sequence[str], what: str) -> "Drawing":
        shared: dict[str, Any] = {"arms": subject.arms, "dimension": d, "sizes": sizes, "predicted": found.predicted}
        panels = [curve_panel(results, task, what, n=n[task], **shared) for task in names]
        return plots.learning_curves(panels, quantity=_QUANTITIES[what], labels=labels)

    # The train x test matrix is shown at the largest size that every arm reaches.
    common = {task: largest_common_size(results, task) for task in squared}
    cross = {task: intervals(100 * results[f"{task}.accuracy"][..., common[task]].mean(-1), sizes) for task in squared}
    first = f"{options.subset_sizes[0]}-classes"
    shown = first.replace("-", " ")
    mean, low, high = cross[first]
    accuracies = {task: intervals(100 * own_results(results, task), sizes) for task in counts}
    rows = [
        (task, arm, int(n[task][z]), round(n[task][z] / d, 2), *(round(float(part[a, z]), 2) for part in interval))
        for task, interval in accuracies.items()
        for a, arm in enumerate(subject.arms)
        for z in np.flatnonzero(np.isfinite(interval[0][a]))[-1:]
    ]
    header = ("task", "arm", "n", "n/d", "accuracy", "low", "high")
    return Findings(
        _answer(options, len(subject.class_names), decided),
        claims=measured,
        figures={
            "accuracy_vs_n": (curves(squared, "accuracy"), _about_predictions(found.predicted, options, d)),
            "loss_vs_n": curves(squared, "loss"),
            "accuracy_vs_n_ce": curves(["cross-entropy"], "accuracy"),
            "equivalence": (_forest(decided, options.margin), f"The margin is {options.margin:g} percentage points."),
            "cross_matrix": (
                plots.cross_matrix(mean, (high - low) / 2, subject.arms, subject.arms, title=f"linear, {shown}"),
                f"Here: {shown}, n = {n[first][common[first]]}.",
            ),
        },
        tables=[Table("Accuracy (%) at the largest n of each arm", header, rows)],
        metrics={
            "n": n,
            "accuracy": {task: as_lists(interval) for task, interval in accuracies.items()},
            "cross": {task: as_lists(interval) for task, interval in cross.items()},
            "gaps": {task: 100 * gap(results, task) for task in counts},
            "null_gaps": {task: 100 * gap(results, task, 1, 2) for task in counts},
            "predicted_accuracy": None if found.predicted is None else _predicted_metrics(squared, found.predicted),
            "learning_rates": {task: rate_counts(results[f"{task}.rate"]) for task in counts},
            "claims": as_metrics(decided),
        },
    )


def curve_panel(
    results: Mapping[str, np.ndarray],
    task: str,
    what: str,
    *,
    arms: Sequence[str],
    n: np.ndarray,
    dimension: int,
    sizes: SplitSizes,
    predicted: Mapping[str, np.ndarray] | None,
) -> "plots.CurvePanel":
    """Accuracy (%) or loss (``what``) of every arm on its own test images against the training sizes ``n``, with what
    theory predicts of the accuracy."""
    accuracy = what == "accuracy"
    mean, low, high = intervals(own_results(results, task, what) * (100 if accuracy else 1), sizes)
    lines = {}
    if accuracy and predicted is not None and f"{task}.n" in predicted:
        for line, name in _LINES.items():
            lines[name] = (predicted[f"{task}.n"], 100 * (1 - predicted[f"{task}.{line}"]))
    title = task.replace("-", " ")
    return plots.CurvePanel(title, n, mean, low, high, tuple(arms), dimension=dimension, predictions=lines)


def largest_common_size(results: Mapping[str, np.ndarray], task: str) -> int:
    """Place of the largest size that every arm has images for; the smallest size where there is none."""
    return int(np.flatnonzero(np.isfinite(own_results(results, task)).all((0, 1))).max(initial=0))


def _about_predictions(predicted: Mapping[str, np.ndarray] | None, options: Options, d: int) -> str:
    """What the caption says of the lines, or why there are none."""
    if predicted is None:
        return f"No theory is drawn: d = {d:,} is above max_predicted_dimension = {options.max_predicted_dimension:,}."
    return (
        "Grey lines: the asymptotic accuracy of one-vs-all least squares from the mixture's means and covariances "
        "alone (fit of the first replicate; with the best ridge, and without one, interrupted at n = d). The "
        "classifiers are trained by SGD on softmax outputs with early stopping instead: the lines show what second "
        "moments and n allow, not what SGD must reach."
    )


def _answer(options: Options, classes: int, decided: dict[str, JudgedClaim]) -> str:
    main = decided["universality-all-classes"]
    assert main.value is not None and main.interval is not None  # Every replicate has accuracies.
    word = {"supported": "Yes", "not supported": "No", "undecided": "Undecided"}[main.verdict]
    low, high = main.interval
    others = {
        "after correction by the null": "null-corrected",
        "pairs of classes": "pairs",
        "subsets of classes": "subsets",
        "cross entropy": "cross-entropy",
    }
    values = "; ".join(f"{shown}: {decided[f'universality-{name}'].value:+.2f}" for shown, name in others.items())
    return (
        f"{word}: with all {classes} classes, linear classifiers reach {abs(main.value):.2f} points "
        f"{'more' if main.value > 0 else 'less'} on diffusion samples than on the Gaussian mixture fitted to them (95 "
        f"% interval of the difference {low:+.2f} to {high:+.2f}, margin {options.margin:g}). Differences in other "
        f"comparisons: {values}."
    )


def _forest(decided: dict[str, JudgedClaim], margin: float) -> "Drawing":
    rows = [part for claim in decided.values() for part in (claim.parts or (claim,))]
    return plots.forest(
        [_ROWS.get(row.id, row.id.replace("-", " ")) for row in rows],
        np.asarray([row.value for row in rows]),
        np.asarray([row.interval for row in rows]),
        margin,
        verdicts=[row.verdict for row in rows],
    )


def _predicted_metrics(names: Sequence[str], predicted: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        task: {line: _plain(100 * (1 - predicted[f"{task}.{line}"])) for line in _LINES}
        | {"n": predicted[f"{task}.n"], "best_ridge": predicted[f"{task}.best"]}
        for task in names
    }


def as_lists(interval: tuple[np.ndarray, ...]) -> dict[str, list[Any]]:
    """Mean and interval as nested lists."""
    return {name: _plain(part) for name, part in zip(("mean", "low", "high"), interval)}


def _plain(values: np.ndarray) -> list[Any]:
    """Nested lists with None where nothing was measured (JSON has no NaN)."""
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    return list(plain.tolist())


def rate_counts(rates: np.ndarray) -> dict[str, int]:
    """How often each learning rate was chosen."""
    values, counts = np.unique(rates[np.isfinite(rates)], return_counts=True)
    return {f"{value:g}": int(count) for value, count in zip(values, counts)}


PART = Part(
    "accuracy", "Accuracy of linear classifiers",
    "Do linear classifiers do as well on diffusion samples as on the Gaussian mixture fitted to them?",
    PAPER, claims, FIGURES, measure, report,
)  # fmt: skip
