"""Accuracy of linear classifiers on diffusion samples, the mixture and other arms (Figs 5 and 7 of the paper)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Drawing

from dgu import plots
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, Table, all_of, equivalent
from experiments.study.judged import JudgedClaim
from experiments.universality.comparison import as_metrics, difference, gap, intervals, judged, own_accuracy
from experiments.universality.curves import Curves, largest_common_size, learning_curves
from experiments.universality.options import Options
from experiments.universality.predictions import LINES, about_predictions, predictions
from experiments.universality.problems import class_counts, curve_tasks, sizes_per_class
from experiments.universality.subject import PAPER, Subject

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
        "Differences of accuracy between diffusion samples and mixture, with 95 % intervals; the band is the margin "
        "of equivalence.",
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

    def agree(name: str, classifiers: str, source: str) -> Claim:
        statement = (
            f"{classifiers} reach the same accuracy, {within}, when trained and tested on diffusion samples as when "
            "trained and tested on the Gaussian mixture fitted to them."
        )
        return Claim(name, statement, test, source, unit="points")

    subsets = [
        agree(f"{k}-classes", f"Linear classifiers of {k} random classes", "Fig 5") for k in options.subset_sizes
    ]
    together = agree(
        "universality-subsets",
        "Linear classifiers (softmax outputs, squared error) of random subsets of the classes",
        "Fig 5",
    )
    return (
        Claim(together.id, together.statement, all_of(*subsets), together.source),
        agree(
            "universality-all-classes", "Linear classifiers (softmax outputs, squared error) of all classes", "Fig 5"
        ),
        agree("universality-pairs", "Linear classifiers (sigmoid output, squared error) of pairs of classes", "Fig 5"),
        agree("universality-cross-entropy", "Linear classifiers of all classes, trained on cross entropy,", "Fig 7"),
        Claim(
            "universality-null-corrected",
            "The difference of accuracy between diffusion samples and mixture equals that between the mixture and a "
            "mixture fitted again to its samples (the null, which shows the effect of the finite fit alone), "
            f"{within}.",
            test,
            unit="points",
        ),
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
    counts = class_counts(options, len(subject.class_names))
    n = {task: k * np.asarray(sizes_per_class(options, k, d)) for task, k in counts.items()}
    curves = Curves(subject.arms, n, d, sizes, results, found.predicted)
    squared = curve_tasks(options)
    labels = {arm: f"{arm}, n_fit/d = {sizes.fit / d:.2g}" for arm in ("mixture", "null")}
    labels["low rank"] = f"low rank, n_fit/d = {options.low_rank_fit / d:.2g}"
    # The train x test matrix is shown at the largest size that every arm reaches.
    common = {task: largest_common_size(results, task) for task in squared}
    cross = {task: intervals(100 * results[f"{task}.accuracy"][..., common[task]].mean(-1), sizes) for task in squared}
    first = f"{options.subset_sizes[0]}-classes"
    shown = first.replace("-", " ")
    mean, low, high = cross[first]
    accuracies = {task: intervals(100 * own_accuracy(results, task), sizes) for task in counts}
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
            "accuracy_vs_n": (
                learning_curves(curves, squared, "accuracy", labels),
                about_predictions(found.predicted, options, d),
            ),
            "loss_vs_n": learning_curves(curves, squared, "loss", labels),
            "accuracy_vs_n_ce": learning_curves(curves, ["cross-entropy"], "accuracy", labels),
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
            "predicted_accuracy": _predicted_metrics(squared, found.predicted),
            "learning_rates": {task: rate_counts(results[f"{task}.rate"]) for task in counts},
            "claims": as_metrics(decided),
        },
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


def _forest(decided: dict[str, JudgedClaim], margin: float) -> Drawing:
    rows = [part for claim in decided.values() for part in (claim.parts or (claim,))]
    return plots.forest(
        [row.id.removeprefix("universality-").replace("-", " ") for row in rows],
        np.asarray([row.value for row in rows]),
        np.asarray([row.interval for row in rows]),
        margin,
        verdicts=[row.verdict for row in rows],
    )


def _predicted_metrics(tasks: tuple[str, ...], predicted: dict[str, np.ndarray] | None) -> dict[str, Any] | None:
    if predicted is None:
        return None
    return {
        task: {line: _plain((100 * (1 - predicted[f"{task}.{line}"])).tolist()) for line in LINES}
        | {"n": predicted[f"{task}.n"], "best_ridge": predicted[f"{task}.best"]}
        for task in tasks
    }


def as_lists(interval: tuple[np.ndarray, ...]) -> dict[str, list[Any]]:
    """Mean and interval as nested lists."""
    return {name: _plain(part.tolist()) for name, part in zip(("mean", "low", "high"), interval)}


def _plain(value: Any) -> Any:
    """Nested lists with None where nothing was measured (JSON has no NaN)."""
    return [_plain(entry) for entry in value] if isinstance(value, list) else value if np.isfinite(value) else None


def rate_counts(rates: np.ndarray) -> dict[str, int]:
    """How often each learning rate was chosen."""
    values, counts = np.unique(rates[np.isfinite(rates)], return_counts=True)
    return {f"{value:g}": int(count) for value, count in zip(values, counts)}


PART = Part(
    name="accuracy",
    title="Accuracy of linear classifiers",
    question="Do linear classifiers do as well on diffusion samples as on the Gaussian mixture fitted to them?",
    paper=PAPER,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
)
