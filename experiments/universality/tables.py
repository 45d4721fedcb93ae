"""Tables and metrics of the accuracies."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dgu.analysis.stats.estimates import Estimate
from experiments.pools import CORRECTED_POINTS, POINTS
from experiments.study import Table
from experiments.universality.comparison import (
    Results,
    accuracies,
    at_last,
    gap,
    null_corrected,
    smallest_margin,
)
from experiments.universality.options import Options
from experiments.universality.problems import Panel, by_cross_entropy
from experiments.universality.subject import Subject

#: How the lines of ``PredictedCurve`` are called in figures.
LINES = {
    "ridge": "theory for the mixture: least squares, best ridge",
    "min_norm": "theory for the mixture: least squares, no ridge",
}
#: A second margin, in percentage points, at which the report says whether arms are equivalent.
STRICT = 1.0


def gap_table(options: Options, subject: Subject, results: Results) -> Table:
    rows = []
    for panel in subject.panels:
        corrected = results.interval(at_last(null_corrected(panel.name)), CORRECTED_POINTS)
        raw, null = (results.interval(at_last(gap(panel.name, *arms)), POINTS) for arms in ((0, 1), (1, 2)))
        largest = smallest_margin(corrected)
        differs = bool(corrected.low > 0 or corrected.high < 0)
        shown = (f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" for one in (raw, null, corrected))
        within = ("yes" if largest < margin else "not shown" for margin in (options.margin, STRICT))
        rows.append((panel.title, *shown, "no" if differs else "not excluded", *within, f"{largest:.2f}"))
    header = (
        "problem", "samples minus mixture", "mixture minus null", "null-corrected gap", "zero?",
        f"within {options.margin:g}?", f"within {STRICT:g}?", "smallest margin",
    )  # fmt: skip
    return Table("Gaps of accuracy (percentage points) at the largest training size", header, rows)


def accuracy_table(options: Options, subject: Subject, results: Results) -> Table:
    rows = []
    for panel in subject.panels:
        found = results.interval(accuracies(panel.name), (0.0, 100.0))
        for number, arm in enumerate(subject.arms):
            for place in np.flatnonzero(np.isfinite(np.asarray(found.value)[number]))[-1:]:
                one, n = found[number, place], panel.k * options.sizes[place]
                parts = (round(float(part), 2) for part in (one.value, one.low, one.high))
                rows.append((panel.title, arm, n, round(n / subject.dimension, 2), *parts))
    header = ("problem", "arm", "n", "n/d", "accuracy", "low", "high")
    return Table("Accuracy (%) at the largest n of each arm", header, rows)


def pool_metrics(options: Options, results: Results) -> dict[str, Any]:
    """Of each comparison: the standard error that the splits alone have, and the whole one, with that of the pools."""
    found = {}
    for name, task in headline(options).items():
        read = at_last(null_corrected(task))
        alone = results.interval_of_this_pool(read).standard_error
        found[name] = {"splits_alone": alone, "with_pools": results.interval(read).standard_error}
    return found


def predicted_metrics(panels: Sequence[Panel], predicted: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        panel.name: {line: _plain(100 * (1 - predicted[f"{panel.name}.{line}"])) for line in LINES}
        | {"n": predicted[f"{panel.name}.n"], "best_ridge": predicted[f"{panel.name}.best"]}
        for panel in panels
        if f"{panel.name}.n" in predicted
    }


def as_lists(found: Estimate) -> dict[str, list[Any]]:
    """Mean and interval as nested lists."""
    parts = {"mean": found.value, "low": found.low, "high": found.high}
    return {name: _plain(np.asarray(part)) for name, part in parts.items()}


def _plain(values: np.ndarray) -> list[Any]:
    """Nested lists with None where nothing was measured (JSON has no NaN)."""
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    return list(plain.tolist())


def rate_counts(rates: np.ndarray) -> dict[str, int]:
    """How often each learning rate was chosen."""
    values, counts = np.unique(rates[np.isfinite(rates)], return_counts=True)
    return {f"{value:g}": int(count) for value, count in zip(values, counts)}


def headline(options: Options) -> dict[str, str]:
    """The problem of each comparison that claims are made about, by the name of the comparison."""
    found = {f"{k}-classes": f"{k}-classes" for k in options.subset_sizes}
    entropy = by_cross_entropy(options)
    return found | {"all-classes": "all-classes", "pairs": "pairs"} | ({"cross-entropy": entropy} if entropy else {})
