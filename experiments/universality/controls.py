"""Controls: Gaussian data must be found equivalent to their mixture, and data far from Gaussian different from it."""

from dataclasses import replace

import numpy as np
from jax.typing import ArrayLike

from dgu import plots
from dgu.analysis.universality.arms import Task, truth_gap
from dgu.core.keys import seeded, stream
from dgu.distributions import draw_gaussians, equal_moments, fit_gaussians
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, different, equivalent
from experiments.study.progress import progress
from experiments.universality.comparison import as_metrics, difference, judged
from experiments.universality.options import Options
from experiments.universality.problems import sizes_per_class, tasks
from experiments.universality.replicates import gaussian_sizes
from experiments.universality.subject import PAPER, Subject

FIGURES = (
    Figure(
        "controls",
        "Differences of accuracy between the true data and the fitted mixture in the two controls, with 95 % "
        "intervals. The positive control must lie inside the margin, the negative one outside.",
    ),
)


def claims(options: Options) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "control-positive",
            "A control without an effect: on data that are exactly Gaussian in each class, linear classifiers reach "
            f"the same accuracy, within {options.margin:g} percentage points, as on draws from the Gaussian mixture "
            "fitted to other such data (value: accuracy on data minus accuracy on fitted mixture; undecided if its "
            f"standard error exceeds {options.max_standard_error:g}).",
            equivalent(options.margin, max_standard_error=options.max_standard_error),
            unit="points",
        ),
        Claim(
            "control-negative",
            "A control in which a difference must show: on two classes of data that are far from Gaussian, but equal "
            "in mean and covariance, the accuracy of linear classifiers on the squared norm and its square differs by "
            f"more than {options.margin:g} percentage points from that on draws from the Gaussian mixture fitted to "
            "other such data (value: accuracy on data minus accuracy on fitted mixture).",
            different(options.margin),
            unit="points",
            changed="the features were all products of two pixels, which have the same means in both classes: the "
            "difference (-8.2 points) came from the finite fit of the mixture alone. They are the squared norm and its "
            "square since.",
        ),
    )


def measure(options: Options, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """The difference of accuracy of each replicate of both controls."""
    positive = run.stage("positive", lambda: positive_control(options, subject.examples.rows))
    return {"positive": positive["gaps"], "negative": run.stage("negative-norms", negative_control, options)["gaps"]}


def estimates(options: Options, found: dict[str, np.ndarray]) -> dict[str, Measured]:
    """What was measured for each claim. Replicates of a control are fresh samples: they share no pool."""
    return {f"control-{name}": difference(options, found[name], fresh=True) for name in ("positive", "negative")}


def report(options: Options, subject: Subject, found: dict[str, np.ndarray]) -> Findings:
    """The two differences."""
    measured = estimates(options, found)
    decided = judged(claims(options), measured)
    every = list(decided.values())
    positive, negative = every
    figure = plots.forest(
        ["positive: the data are Gaussian", "negative: same moments, told apart by norms"],
        np.asarray([claim.value for claim in every]),
        np.asarray([claim.interval for claim in every]),
        options.margin,
        verdicts=[claim.verdict for claim in every],
        quantity="difference of test accuracy, true data minus fitted mixture (percentage points)",
    )
    return Findings(
        f"Accuracy on the true data less that on the fitted mixture: {positive.value:+.2f} points with data that are "
        f"exactly Gaussian, {negative.value:+.2f} points with data far from Gaussian that have the same means and "
        "covariances.",
        claims=measured,
        figures={"controls": figure},
        metrics={"claims": as_metrics(decided)},
    )


def positive_control(options: Options, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The whole comparison on data that are exactly Gaussian: fresh samples of the mixture fitted to all images, and a
    mixture fitted to them.
    """
    k, _, d = rows.shape
    few, sizes, truth = options.subset_sizes[0], gaussian_sizes(options), fit_gaussians(rows)
    count = options.splits.fit + sum(sizes.values())
    gaps = []
    for number in progress(range(options.replicates), "control on Gaussian data", unit="replicates"):
        key = stream(stream(seeded(options.seed), "control-positive"), number)
        subsets = tasks(options, k, d, number)[f"{few}-classes"].classes
        task = Task("control", subsets, sizes_per_class(options, few, d)[-1:], "softmax_mse")
        # The low-rank arm is not used here; asked for, the program is the one that the replicates have compiled.
        gap = truth_gap(
            draw_gaussians(truth, key, count), sizes, stream(key, "mixture"), task, options.recipe,
            seed=options.seed + number, low_rank=options.low_rank_fit,
        )  # fmt: skip
        gaps.append(gap)
    return {"gaps": np.asarray(gaps, np.float32)}


def negative_control(options: Options, d: int = 12, per_class: int = 400) -> dict[str, np.ndarray]:
    """Data far from Gaussian with the mixture's means and covariances, told apart by their norms."""
    sizes = {"train": per_class, "validation": per_class // 4, "test": per_class // 2}
    recipe = replace(options.recipe, learning_rates=(0.003, 0.03))
    task = Task("control", np.arange(2)[None], (per_class,), "softmax_mse")
    gaps = []
    for number in progress(range(options.replicates), "control on data far from Gaussian", unit="replicates"):
        key = stream(stream(seeded(options.seed), "control-negative"), number)
        gap = truth_gap(
            equal_moments(key, per_class + sum(sizes.values()), d), sizes, stream(key, "mixture"), task, recipe,
            seed=options.seed + number, features=radial_features,
        )  # fmt: skip
        gaps.append(gap)
    return {"gaps": np.asarray(gaps, np.float32)}


def radial_features(x: ArrayLike) -> np.ndarray:
    """Of rows x in d dimensions ``u = 2 (|x|^2 / d - 1)`` and ``u^2``: for ``equal_moments`` (0, 0) in the first class,
    and (1, 1) or (-1, 1) in the second.
    """
    u = 2 * (np.square(x).mean(axis=1) - 1)
    return np.stack([u, u**2], axis=1)


PART = Part(
    "controls", "Controls",
    "Are Gaussian data found equivalent to their mixture, and data far from Gaussian different from it?",
    PAPER, claims, FIGURES, measure, report,
)  # fmt: skip
