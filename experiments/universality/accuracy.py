"""Accuracy of linear classifiers on diffusion samples, the mixture and other arms (Figs 5 and 7 of the paper)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.universality.predicted import class_moments, predicted_curve
from experiments.pools import CORRECTED_POINTS, POINTS, VARIANCE_CHANGED
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, all_of, different, equivalent
from experiments.study.judged import JudgedClaim
from experiments.universality.comparison import (
    Reading,
    Results,
    accuracies,
    as_metrics,
    at_last,
    gap,
    judged,
    null_corrected,
    smallest_margin,
)
from experiments.universality.options import Options
from experiments.universality.problems import Panel, by_cross_entropy, tasks
from experiments.universality.replicates import cross_arms, crossed_size, real_sizes
from experiments.universality.subject import PAPER, Subject
from experiments.universality.tables import (
    LINES,
    accuracy_table,
    as_lists,
    gap_table,
    headline,
    pool_metrics,
    predicted_metrics,
    rate_counts,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

#: Labels of the vertical axis.
_QUANTITIES = {"accuracy": "test accuracy (%)", "loss": "test loss"}
#: Losses of linear classifiers in the words of claims.
_LOSSES = {
    "softmax_mse": "softmax outputs, squared error",
    "logit_mse": "raw outputs, squared error",
    "cross_entropy": "trained on cross entropy",
}
#: Replicates whose subsets of classes are averaged over in predictions: the time grows with their number.
_SUBSETS_OF = 4
#: What changed, in the words of the note that each claim carries.
_CHANGED = (
    "the gap was that between samples and a mixture fitted to other samples, with the error of that fit in it; its "
    "interval, the corrected resampled t, was about twice too wide; and no verdict was given where the standard error "
    "exceeded 0.8. It is corrected by the null since, the mixture is fitted to all samples, and the interval has the "
    f"variance between pools in it. {VARIANCE_CHANGED}"
)

FIGURES = (
    Figure(
        "accuracy_vs_n",
        "Accuracy of linear classifiers (softmax outputs; for two classes, sigmoid output and squared error) on test "
        "images of the arm that they were trained on, against training size n (upper axis: n / d, d the number of "
        "pixels or features). Bands: 95 % intervals, variation between pools of images included.",
        "fig-5 fig-7",
    ),
    Figure(
        "gap_vs_n",
        "Differences of these accuracies between diffusion samples and mixture, between mixture and null (what the "
        "finite fit alone does), and the first less the second (the null-corrected gap), against training size, all "
        "of them paired by split. Bands: 95 % intervals, variation between pools of images included; the grey band is "
        "the margin of equivalence.",
        "fig-5 fig-7",
    ),
    Figure(
        "loss_vs_n",
        "Test loss of the classifiers. Bands: 95 % intervals over splits of the images, without the variation between "
        "pools of images.",
        "fig-5 fig-7",
    ),
    Figure(
        "equivalence",
        "Null-corrected gaps of accuracy between diffusion samples and mixture at the largest training size, with "
        "95 % intervals. The band is the margin of equivalence; green: the whole interval lies within it, red: "
        "outside of it, grey: neither.",
    ),
    Figure(
        "cross_matrix",
        "Accuracy of linear classifiers trained on one arm (rows) and tested on another (columns) at the largest "
        "training size that every arm reaches, with half-widths of the 95 % intervals of each number alone. The "
        "disjoint mixture, the null of its draws and the low-rank mixture are fitted to images that no classifier "
        "is trained or tested on.",
    ),
)


def claims(options: Options) -> tuple[Claim, ...]:
    """What is tested: each null-corrected gap is smaller than the margin, and is not zero."""
    few = [(f"{k}-classes", f"tell {k} randomly chosen classes apart") for k in options.subset_sizes]
    loss = _LOSSES[options.losses[0]]
    compared = {
        "all-classes": ("tell all classes apart", loss, "Fig 5"),
        "pairs": ("tell pairs of classes apart", "sigmoid output, squared error", "Fig 5"),
    }
    if by_cross_entropy(options):
        compared["cross-entropy"] = ("tell all classes apart", "trained on cross entropy", "Fig 7")
    same, other = equivalent(options.margin), different()

    def joint(prefix: str, sentence: str, test: Any, **more: Any) -> Claim:
        parts = [Claim(f"{prefix}-{k}", sentence.format(what, loss), test, "Fig 5", "points") for k, what in few]
        sizes = " or ".join(map(str, options.subset_sizes))
        whole = sentence.format(f"tell {sizes} randomly chosen classes apart", loss)
        return Claim(f"{prefix}-subsets", whole, all_of(*parts), "Fig 5", one_network=True, **more)

    smaller = (
        "Linear classifiers that {} ({}) reach the same accuracy, within "
        f"{options.margin:g} percentage points, when trained and tested on diffusion samples as when trained and "
        "tested on draws from the Gaussian mixture with their class means and covariances, beyond what the finite fit "
        "of the mixture explains (value: the null-corrected gap, accuracy on samples minus accuracy on mixture, less "
        "accuracy on mixture minus accuracy on a mixture fitted again to its draws)."
    )
    not_zero = (
        "For linear classifiers that {} ({}), diffusion samples and the Gaussian mixture with their class means and "
        "covariances differ in accuracy, beyond what the finite fit of the mixture explains (value: the null-corrected "
        "gap, which is not zero)."
    )
    return (
        joint("universality", smaller, same, changed=_CHANGED),
        joint("gap", not_zero, other, changed=VARIANCE_CHANGED),
        *(
            claim
            for name, (what, how, figure) in compared.items()
            for claim in (
                Claim(
                    f"universality-{name}",
                    smaller.format(what, how),
                    same,
                    figure,
                    "points",
                    changed=_CHANGED,
                    one_network=True,
                ),
                Claim(
                    f"gap-{name}",
                    not_zero.format(what, how),
                    other,
                    figure,
                    "points",
                    changed=VARIANCE_CHANGED,
                    one_network=True,
                ),
            )
        ),
    )


@dataclass(frozen=True)
class Measurements:
    """What the part measures.

    Attributes:
        results: of the replicates and of the pools drawn anew.
        predicted: as ``predictions`` returns it, None where it is not computed.
    """

    results: Results
    predicted: dict[str, np.ndarray] | None


def measure(options: Options, subject: Subject, run: Run) -> Measurements:
    """The accuracies of the replicates, and what theory predicts for the mixture."""
    results = Results(subject.replicates, subject.resampled, options.pools)
    if subject.dimension > options.max_predicted_dimension:
        return Measurements(results, None)
    predicted = run.stage("predictions", lambda: predictions(options, subject), allow_nonfinite=True)
    return Measurements(results, predicted)


def predictions(options: Options, subject: Subject) -> dict[str, np.ndarray]:
    """Asymptotic errors of least squares on the mixture of the first pool, at the training sizes and between them.

    Averaged over the subsets of the first few replicates. By problem, ``n``, ``min_norm``, ``ridge`` and ``best``, as
    ``PredictedCurve``.
    """
    means, covariances = class_moments(subject.examples.pool(0, options.splits.total).rows)
    k, numbers = len(subject.class_names), range(min(options.replicates, _SUBSETS_OF))
    problems = [tasks(options, subject.class_sets, k, number) for number in numbers]
    out: dict[str, np.ndarray] = {}
    for panel in subject.panels:
        if panel.loss == "cross_entropy":
            continue
        subsets = np.unique(np.concatenate([each[panel.name].classes for each in problems]), axis=0)
        n = panel.k * np.asarray(options.sizes, float)
        between = np.sqrt(n[1:] * n[:-1])
        curve = predicted_curve(means, covariances, subsets, np.sort(np.concatenate([n, between])))
        out |= {f"{panel.name}.{what}": getattr(curve, what) for what in ("n", "min_norm", "ridge", "best")}
    return out


def gaps(options: Options, results: Results) -> dict[str, Estimate]:
    """The null-corrected gap of each comparison at the largest size, in percentage points."""
    return {
        name: results.interval(at_last(null_corrected(task)), CORRECTED_POINTS)
        for name, task in headline(options).items()
    }


def estimates(options: Options, results: Results) -> dict[str, Measured]:
    """What was measured for each claim: the same gap for both of its verdicts."""
    found = gaps(options, results)
    out: dict[str, Measured] = {}
    for prefix in ("universality", "gap"):
        few = [f"{k}-classes" for k in options.subset_sizes]
        out[f"{prefix}-subsets"] = {f"{prefix}-{name}": found[name] for name in few}
        out |= {f"{prefix}-{name}": gap for name, gap in found.items() if name not in few}
    return out


def report(options: Options, subject: Subject, found: Measurements) -> Findings:
    """Learning curves, differences and the matrix of arms."""
    results, d = found.results, subject.dimension
    measured = estimates(options, results)
    decided = judged(claims(options), measured)
    labels = {arm: f"{arm}, n_fit/d = {options.splits.total / d:.2g}" for arm in ("mixture", "null")}
    labels["low rank"] = f"low rank, n_fit/d = {options.low_rank_fit / d:.2g}"

    def curves(what: str) -> "Drawing":
        drawn = [curve_panel(results, panel, what, options, subject, found.predicted) for panel in subject.panels]
        limits = (0.0, 100.0) if what == "accuracy" else (0.0, np.inf)
        return plots.learning_curves(drawn, quantity=_QUANTITIES[what], labels=labels, limits=limits)

    differences = [gap_panel(results, panel, options, d) for panel in subject.panels]
    cross = results.interval(lambda one: 100 * np.asarray(one["cross.accuracy"], float))
    mean, low, high = np.moveaxis(cross.stacked(), -1, 0)
    crossed = cross_arms(options, subject.real is not None)
    problems = [panel.name for panel in subject.panels]
    return Findings(
        _answer(options, len(subject.class_names), decided),
        claims=measured,
        figures={
            "accuracy_vs_n": (curves("accuracy"), _about_predictions(found.predicted, options, d)),
            "gap_vs_n": plots.difference_curves(differences, margin=options.margin),
            "loss_vs_n": curves("loss"),
            "equivalence": (_forest(options, subject, results), f"The margin is {options.margin:g} percentage points."),
            "cross_matrix": (
                plots.cross_matrix(mean, (high - low) / 2, crossed, crossed, title="linear classifiers"),
                f"Here: {options.subset_sizes[0]} random classes of {_crossed(options, subject)} training images.",
            ),
        },
        tables=[gap_table(options, subject, results), accuracy_table(options, subject, results)],
        metrics={
            "sizes": options.sizes,
            "accuracy": {name: as_lists(results.interval(accuracies(name), (0.0, 100.0))) for name in problems},
            "cross": as_lists(cross),
            "gaps": {name: at_last(gap(name))(results.replicates) for name in problems},
            "null_gaps": {name: at_last(gap(name, 1, 2))(results.replicates) for name in problems},
            "smallest_margins": {name: smallest_margin(one) for name, one in gaps(options, results).items()},
            "pools": pool_metrics(options, results),
            "predicted_accuracy": None
            if found.predicted is None
            else predicted_metrics(subject.panels, found.predicted),
            "learning_rates": {name: rate_counts(results.replicates[f"{name}.rate"]) for name in problems},
            "claims": as_metrics(decided),
        },
    )


def _crossed(options: Options, subject: Subject) -> int:
    """Training images of each class in the cross matrix."""
    train = options.splits.train
    real = None if subject.real is None else real_sizes(options, subject.real.shape[1])["train"]
    return crossed_size(options, train if real is None else min(train, real))


def curve_panel(
    results: Results,
    panel: Panel,
    what: str,
    options: Options,
    subject: Subject,
    predicted: Mapping[str, np.ndarray] | None,
) -> "plots.CurvePanel":
    """Accuracy (%) or loss (``what``) of every arm on its own test images against the training size, with what theory
    predicts of the accuracy."""
    accuracy, read = what == "accuracy", accuracies(panel.name, what)
    found = results.interval(read, (0.0, 100.0)) if accuracy else results.interval_of_this_pool(read)
    lines = {}
    if accuracy and predicted is not None and f"{panel.name}.n" in predicted:
        for line, name in LINES.items():
            lines[name] = (predicted[f"{panel.name}.n"], 100 * (1 - predicted[f"{panel.name}.{line}"]))
    n = panel.k * np.asarray(options.sizes)
    mean, low, high = np.moveaxis(found.stacked(), -1, 0)
    return plots.CurvePanel(panel.title, n, mean, low, high, subject.arms, subject.dimension, lines)


def gap_panel(results: Results, panel: Panel, options: Options, dimension: int) -> "plots.CurvePanel":
    """The raw gap, the null's and the corrected one against the training size."""
    readings: dict[str, tuple[Reading, tuple[float, float]]] = {
        "diffusion minus mixture": (gap(panel.name), POINTS),
        "mixture minus null": (gap(panel.name, 1, 2), POINTS),
        "null-corrected gap": (null_corrected(panel.name), CORRECTED_POINTS),
    }
    found = np.stack([results.interval(read, bounds).stacked() for read, bounds in readings.values()])
    mean, low, high = np.moveaxis(found, -1, 0)
    n = panel.k * np.asarray(options.sizes)
    return plots.CurvePanel(panel.title, n, mean, low, high, tuple(readings), dimension=dimension)


def _about_predictions(predicted: Mapping[str, np.ndarray] | None, options: Options, d: int) -> str:
    """What the caption says of the lines, or why there are none."""
    if predicted is None:
        return f"No theory is drawn: d = {d:,} is above max_predicted_dimension = {options.max_predicted_dimension:,}."
    return (
        "Grey lines: the asymptotic accuracy of one-vs-all least squares from the mixture's means and covariances "
        "alone (first pool; with the best ridge, and without one, interrupted at n = d). The "
        "classifiers are trained by SGD on softmax outputs with early stopping instead: the lines show what second "
        "moments and n allow, not what SGD must reach."
    )


def _answer(options: Options, classes: int, decided: dict[str, JudgedClaim]) -> str:
    main, zero = decided["universality-all-classes"], decided["gap-all-classes"]
    assert main.value is not None and main.interval is not None  # Every replicate has accuracies.
    low, high = main.interval
    is_zero = {"supported": "No"}.get(zero.verdict, "That is not excluded")
    inside = {"supported": "Yes", "not supported": "No", "undecided": "That is undecided"}[main.verdict]
    names = {"pairs of classes": "pairs", "subsets of classes": "subsets", "cross entropy": "cross-entropy"}
    values = "; ".join(
        f"{shown}: {decided[f'universality-{name}'].value:+.2f}"
        for shown, name in names.items()
        if f"universality-{name}" in decided
    )
    return (
        f"Is the gap zero? {is_zero}. Is it smaller than {options.margin:g} percentage points? {inside}. With all "
        f"{classes} classes, linear classifiers reach {abs(main.value):.2f} points "
        f"{'more' if main.value > 0 else 'less'} on diffusion samples than on the Gaussian mixture with their class "
        f"means and covariances, corrected for the finite fit (95 % interval of the difference {low:+.2f} to "
        f"{high:+.2f}; smallest margin at which they are equivalent: {max(abs(low), abs(high)):.2f}). The same gap in "
        f"other comparisons: {values}."
    )


def _forest(options: Options, subject: Subject, results: Results) -> "Drawing":
    rows: list[JudgedClaim] = []
    for panel in subject.panels:
        measured = {panel.name: results.interval(at_last(null_corrected(panel.name)), CORRECTED_POINTS)}
        rows += judged([Claim(panel.name, "", equivalent(options.margin))], measured).values()
    return plots.forest(
        [panel.title for panel in subject.panels],
        np.asarray([row.value for row in rows]),
        np.asarray([row.interval for row in rows]),
        options.margin,
        verdicts=[row.verdict for row in rows],
        quantity="null-corrected gap of test accuracy, diffusion minus mixture (percentage points)",
    )


PART = Part(
    "accuracy", "Accuracy of linear classifiers",
    "Do linear classifiers do as well on diffusion samples as on the Gaussian mixture fitted to them?",
    PAPER, claims, FIGURES, measure, report,
)  # fmt: skip
