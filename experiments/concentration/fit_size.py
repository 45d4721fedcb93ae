"""The gap that the paper attributes to estimation: mixtures fitted to n_fit images, and the published protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import corrected_t_interval, t_interval
from dgu.analysis.universality.fit_size import FitSweep, fit_gaps, fit_size_accuracy
from dgu.analysis.universality.recipe import Recipe
from dgu.core.errors import require
from experiments import study
from experiments.concentration.subject import PAPER, Plan, Subject, points, single_class
from experiments.study import Claim, Cost, Figure, Findings, Noted, Run, Table, at_least, equivalent, option
from experiments.study.progress import progress

#: The range of a difference of accuracies, in percentage points.
_POINTS = (-100, 100)

FIGURES = (
    Figure(
        "fit_size",
        "Test accuracy of linear classifiers (softmax + MSE) trained and tested on the samples, minus that of "
        "classifiers trained and tested on the mixture, against the number of images that the mixture is fitted to. "
        "The classifiers see none of these images, except at the last point, where the mixture is fitted to all "
        "images, the test images included (the published protocol). Null: the same with images drawn from a Gaussian "
        "mixture. Bands: 95 % intervals.",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="fit_size"):
    """Linear classifiers on the samples and on mixtures fitted to n_fit of them."""

    sizes: tuple[int, ...] = option((50, 100, 200, 400, 800, 1600, 3200, 6400), ge=2)
    """Images per class that mixtures are fitted to, two or more, increasing; those for which there are enough images
    are used."""
    train: int = option(200, ge=2)
    """Images per class that classifiers are trained on."""
    validation: int = option(60, ge=2)
    """Images per class by which the learning rate and the stopping epoch are chosen."""
    test: int = option(200, ge=2)
    """Images per class on which accuracy is measured."""
    replicates: int = option(12, ge=2)
    """Random splits of the images."""
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=30, learning_rates=(0.1, 0.3, 1.0)))
    """Training of the linear classifiers."""
    margin: float = option(2.5, gt=0.0)
    """Differences of accuracy below this count as none, in percentage points."""

    def check(self) -> None:
        sound = len(self.sizes) >= 2 and all(a < b for a, b in pairwise(self.sizes))
        require(sound, "fit_size.sizes", self.sizes, "two or more, increasing, each at least 2")

    def sweep(self, per_class: int, shown: str = "per_class") -> FitSweep:
        """The sweep that ``per_class`` images of each class allow; they are called ``shown`` if they are too few."""
        held_out = self.train + self.validation + self.test
        fits = tuple(n for n in self.sizes if n <= per_class - held_out)
        least = f"at least {self.sizes[1] + held_out} for fit_size (two sizes, train, validation and test)"
        require(len(fits) >= 2, shown, per_class, least)
        return FitSweep(fits, self.train, self.validation, self.test)


PRESETS = {
    "smoke": Config(
        sizes=(2, 6),
        train=6,
        validation=2,
        test=4,
        replicates=2,
        recipe=Recipe(epochs=2, learning_rates=(1.0,), eval_interval=1),
    ),
    "default": Config(),
    "paper": Config(
        train=2048,
        validation=512,
        test=1024,
        replicates=10,
        recipe=Recipe(epochs=600, learning_rates=(0.01, 0.03, 0.1), batch_size=128, momentum=0.0),
    ),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    margin = f"within {points(config.margin)}"
    return (
        Claim(
            "fit-size-shrinks",
            "What classifiers see of the difference between samples and the Gaussian mixture fitted to other samples "
            "shrinks with the number of images fitted, as an estimation error must: the difference of accuracy is "
            "smaller in size with the most images than with the fewest (value: |difference| with the fewest minus "
            "|difference| with the most).",
            at_least(0.0),
            source="Fig 5",
            unit="points",
            one_network=True,
        ),
        Claim(
            "fit-size-null",
            "With the Gaussian mixture fitted to the most images that leave enough for the classifiers, samples differ "
            "from the mixture no more than the finite fit explains: the difference of accuracy, samples minus mixture, "
            f"equals, {margin}, that of exactly Gaussian images and a mixture fitted to as many of them (value: the "
            "first difference minus the second).",
            equivalent(config.margin),
            unit="points",
            one_network=True,
        ),
        Claim(
            "fit-size-published",
            "By the paper's protocol, in which the Gaussian mixture is fitted to all images, the test images included, "
            f"linear classifiers reach the same accuracy on samples as on the mixture, {margin} (value: accuracy on "
            "samples minus accuracy on mixture).",
            equivalent(config.margin),
            source="Fig 5",
            unit="points",
            one_network=True,
        ),
    )


def check(config: Config, subject: Subject) -> None:
    """Refuses subjects with too few images of a class."""
    config.sweep(subject.per_class, subject.bounded_by)


def measure(config: Config, subject: Subject, run: Run) -> dict[str, np.ndarray]:
    """Accuracies (replicates, arms) on the subject's samples, and on samples of their mixture."""
    return {
        pool: np.stack(
            [
                run.stage(f"{pool}-{number:03d}", accuracy, config, subject, run.seed, number, pool)["accuracy"]
                for number in progress(range(config.replicates), f"classifiers, {shown}", unit="splits")
            ]
        )
        for pool, shown in (("images", "samples"), ("null", "samples of their mixture"))
    }


def accuracy(config: Config, subject: Subject, seed: int, replicate: int, pool: str) -> dict[str, np.ndarray]:
    """Accuracies of the classifiers of one split of ``"images"``, or of the ``"null"``."""
    sweep, null = config.sweep(subject.per_class), pool == "null"
    return {
        "accuracy": fit_size_accuracy(subject.rows, sweep, config.recipe, seed=seed, replicate=replicate, null=null)
    }


def report(config: Config, subject: Subject, found: Mapping[str, np.ndarray]) -> Findings:
    """Differences of accuracy against the number of images that the mixture is fitted to."""
    sweep, count = config.sweep(subject.per_class), subject.per_class
    own, null = fit_gaps(found["images"]), fit_gaps(found["null"])

    def over_splits(values: np.ndarray) -> Estimate:
        n_train = sweep.total - sweep.test
        return corrected_t_interval(np.moveaxis(values, 0, -1), n_train=n_train, n_test=sweep.test, bounds=_POINTS)

    gap, alone = over_splits(own), t_interval(null.T, bounds=_POINTS)
    gaps = [gap[at].text("+.1f") for at in range(own.shape[1])]
    alones = np.asarray(alone.value)
    first, last = sweep.n_fit[0], sweep.n_fit[-1]
    sizes = f"The fewest and the most are {first} and {last} images of each class."
    header = ("mixture", "samples", "low", "high", "null", "low", "high")
    columns = np.concatenate([gap.stacked(), alone.stacked()], axis=1)
    rows = [(arm, *values) for arm, values in zip(sweep.arms[1:], columns.tolist())]
    return Findings(
        f"Accuracy on the samples, minus that on the mixture, is {gaps[0]} points if the mixture is fitted to {first} "
        f"images of each class, {gaps[-2]} at {last}, and {gaps[-1]} by the published protocol. Exactly Gaussian "
        f"images give {alones[0]:+.1f}, {alones[-2]:+.1f} and {alones[-1]:+.1f}, the effect of the finite fit alone.",
        claims={
            "fit-size-shrinks": Noted(over_splits(np.abs(own[:, 0]) - np.abs(own[:, -2])), sizes),
            "fit-size-null": Noted(
                over_splits(own[:, -2] - null[:, -2]), f"The mixture is fitted to {last} images of each class."
            ),
            "fit-size-published": over_splits(own[:, -1]),
        },
        figures={
            "fit_size": (
                _figure(np.asarray([*sweep.n_fit, count]), subject.dimension, gap, alone),
                f"All images are {count} of each class.",
            )
        },
        tables=[Table("Accuracy on images minus that on the mixture (points)", header, rows)],
        metrics={"n_fit": sweep.n_fit, "gaps": own, "null_gaps": null},
    )


def _figure(n: np.ndarray, dimension: int, gap: Estimate, alone: Estimate) -> Any:
    mean, low, high = np.stack([gap.stacked(axis=0), alone.stacked(axis=0)], axis=1)
    return plots.learning_curves(
        [plots.CurvePanel("", n, mean, low, high, ("diffusion", "null"), dimension=dimension)],
        quantity="accuracy on images minus on mixture (points)",
        xlabel="images a class that the mixture is fitted to",
        labels={"diffusion": "samples", "null": "null: exactly Gaussian images"},
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Fits, draws and classifiers of all replicates, images and null."""
    if plan.classes < 2:
        return []
    sweep = config.sweep(plan.per_class)
    d, k = plan.dimension, plan.classes
    arms = len(sweep.arms)
    drawn = sweep.train + sweep.validation + sweep.test * sweep.test_factor
    fits = sum(2 * n * d * min(n, d) + 2 * drawn * min(n, d) * d for n in (*sweep.n_fit, plan.per_class))
    sgd = arms * len(config.recipe.learning_rates) * config.recipe.epochs * sweep.train * k * 4 * d * k
    images = arms * drawn * k * d * 4
    return [Cost("fit size", 0, 2 * config.replicates * (k * fits + sgd), images, 0)]


PART = study.Part(
    name="fit_size",
    title="The gap that a finite fit leaves",
    question="Is the gap between samples and mixture an estimation error, which vanishes with more images for the fit?",
    paper=PAPER,
    presets=PRESETS,
    claims=claims,
    figures=FIGURES,
    measure=measure,
    report=report,
    costs=costs,
    check=check,
    skips=single_class,
)
