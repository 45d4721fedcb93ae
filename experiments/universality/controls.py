"""Controls: Gaussian data must be found equivalent to their mixture, and data far from Gaussian different from it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jax.typing import ArrayLike

from dgu import plots
from dgu.analysis.stats.resampling import t_interval
from dgu.analysis.universality.arms import Task
from dgu.analysis.universality.designs import corrected_gap, pool_gap
from dgu.core.keys import seed_of, seeded, stream
from dgu.data.splits import class_splits
from dgu.distributions import draw_gaussians, equal_moments, fit_gaussians
from experiments.pools import CORRECTED_POINTS
from experiments.study import Claim, Figure, Findings, Measured, Part, Run, different, equivalent
from experiments.study.progress import progress
from experiments.universality.comparison import as_metrics, judged
from experiments.universality.options import Options
from experiments.universality.problems import tasks
from experiments.universality.replicates import gaussian_sizes, split_of
from experiments.universality.subject import PAPER, Subject

FIGURES = (
    Figure(
        "controls",
        "Null-corrected gaps of accuracy between the true data and the fitted mixture in the two controls, with 95 % "
        "intervals. The positive control must lie inside the margin, the negative one outside; green: it does.",
    ),
)


def claims(options: Options) -> tuple[Claim, ...]:
    """What is tested."""
    return (
        Claim(
            "control-positive",
            "A control without an effect: on data that are exactly Gaussian in each class, linear classifiers reach "
            f"the same accuracy, within {options.margin:g} percentage points, as on draws from the Gaussian mixture "
            "fitted to them, beyond what the finite fit explains (value: the null-corrected gap).",
            equivalent(options.margin),
            source="control",
            paper="own",
            unit="points",
            changed="the gap was not corrected for the finite fit, and no verdict was given where its standard error "
            "exceeded 0.8.",
        ),
        Claim(
            "control-negative",
            "A control in which a difference must show: on two classes of data that are far from Gaussian, but equal "
            "in mean and covariance, the accuracy of linear classifiers on the squared norm and its square differs by "
            f"more than {options.margin:g} percentage points from that on draws from the Gaussian mixture fitted to "
            "such data, beyond what the finite fit explains (value: the null-corrected gap).",
            different(options.margin),
            source="control",
            paper="own",
            unit="points",
            changed="the features were all products of two pixels, which have the same means in both classes: the "
            "difference (-8.2 points) came from the finite fit of the mixture alone. They are the squared norm and its "
            "square since, and the gap is corrected for that fit.",
        ),
    )


def measure(options: Options, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """The null-corrected gap of each replicate of both controls."""
    rows = subject.examples.pool(0, options.splits.total).rows
    positive = run.stage("positive", lambda: positive_control(options, subject.class_sets, rows))
    return {"positive": positive["gaps"], "negative": run.stage("negative", negative_control, options)["gaps"]}


def estimates(options: Options, found: dict[str, np.ndarray]) -> dict[str, Measured]:
    """What was measured for each claim. Replicates of a control are fresh samples: they share no pool."""
    return {
        f"control-{name}": t_interval(100 * np.asarray(found[name], float), bounds=CORRECTED_POINTS)
        for name in ("positive", "negative")
    }


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
        quantity="null-corrected gap of test accuracy, true data minus fitted mixture (percentage points)",
    )
    return Findings(
        f"Null-corrected gap between the true data and the fitted mixture: {positive.value:+.2f} points with data "
        f"that are exactly Gaussian, {negative.value:+.2f} points with data far from Gaussian that have the same means "
        "and covariances.",
        claims=measured,
        figures={"controls": figure},
        metrics={"claims": as_metrics(decided)},
    )


def positive_control(options: Options, sets: Sequence[Sequence[int]], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The whole design on data that are exactly Gaussian: each replicate has a pool of its own, of fresh samples of the
    mixture fitted to the images of the first pool.
    """
    few, truth, sizes = f"{options.subset_sizes[0]}-classes", fit_gaussians(rows), gaussian_sizes(options)
    gaps = []
    for number in progress(range(options.replicates), "control on Gaussian data", unit="replicates"):
        key = stream(stream(seeded(options.seed), "control-positive"), number)
        task = tasks(options, sets, len(rows), number)[few]
        task = replace(task, per_class=options.sizes[-1:])
        pool = draw_gaussians(truth, key, options.splits.total)
        split = split_of(options, len(rows), number)
        own = stream(key, "mixture")
        gaps.append(corrected_gap(*pool_gap(pool, split, own, sizes, task, options.recipe, seed=seed_of(key, "sgd"))))
    return {"gaps": np.asarray(gaps, np.float32)}


def negative_control(options: Options, d: int = 12, per_class: int = 400) -> dict[str, np.ndarray]:
    """Data far from Gaussian with the mixture's means and covariances, told apart by their norms."""
    sizes = {"train": per_class, "validation": per_class // 4, "test": per_class // 2}
    count = per_class + sum(sizes.values())
    recipe = replace(options.recipe, learning_rates=(0.003, 0.03))
    task = Task("control", np.arange(2)[None], (per_class,), "softmax_mse")
    gaps = []
    for number in progress(range(options.replicates), "control on data far from Gaussian", unit="replicates"):
        key = stream(stream(seeded(options.seed), "control-negative"), number)
        parts = {"fit": per_class} | sizes
        by_class = [class_splits(count, parts, options.seed, number, label) for label in range(2)]
        split = {part: np.stack([places[part] for places in by_class]) for part in parts}
        found = pool_gap(
            np.asarray(equal_moments(key, count, d)), split, stream(key, "mixture"), sizes, task, recipe,
            seed=seed_of(key, "sgd"), features=radial_features,
        )  # fmt: skip
        gaps.append(corrected_gap(*found))
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
