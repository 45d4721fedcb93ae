"""The gap that the paper attributes to estimation: mixtures fitted to n_fit images, and the published protocol.

What is measured are differences of accuracy between samples and mixtures fitted to some of them. Replicates split one
pool of samples anew; other samples would give other differences, and another truth of the null, whose images are drawn
anew in each replicate from the mixture fitted to the pool. Both variations between pools come from ridge least squares
on pools that are drawn anew from the samples.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.universality.fit_size import FitSweep, fit_gaps, fit_size_accuracy
from dgu.analysis.universality.recipe import Recipe
from dgu.analysis.universality.resampled import MOST_DIMENSIONS, on_new_pool
from dgu.core.errors import require
from dgu.core.keys import seed_of, seeded
from experiments import study
from experiments.concentration.subject import PAPER, Plan, Subject, points, single_class
from experiments.pools import CORRECTED_POINTS, POINTS, VARIANCE_CHANGED, Resampling, interval, on_resampled_pools
from experiments.study import Claim, Cost, Figure, Findings, Noted, Run, Table, at_least, equivalent, option
from experiments.study.progress import progress

#: Pools: the samples, and exactly Gaussian images.
_POOLS = {"images": "samples", "null": "samples of their mixture"}
#: What changed, in the words of the note that each claim carries.
_CHANGED = (
    "the interval was the corrected resampled t, about 2.2 times too wide where both "
    f"the fit and the test come from one pool. {VARIANCE_CHANGED}"
)

FIGURES = (
    Figure(
        "fit_size",
        "Test accuracy of linear classifiers (softmax + MSE) trained and tested on the samples, minus that of "
        "classifiers trained and tested on the mixture, against the number of images that the mixture is fitted to. "
        "The classifiers see none of these images, except at the last point, where the mixture is fitted to all "
        "images, the test images included (the published protocol). Null: the same with images drawn from a Gaussian "
        "mixture. Bands: 95 % intervals, variation between pools of samples included.",
    ),
)


@dataclass(frozen=True)
class Config(Resampling, prefix="fit_size"):
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
        resampled_pools=2,
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
            changed=_CHANGED,
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
            changed=_CHANGED,
        ),
        Claim(
            "fit-size-published",
            "By the paper's protocol, in which the Gaussian mixture is fitted to all images, the test images included, "
            f"linear classifiers reach the same accuracy on samples as on the mixture, {margin} (value: accuracy on "
            "samples minus accuracy on mixture, what the finite fit does included).",
            equivalent(config.margin),
            source="Fig 5",
            unit="points",
            one_network=True,
            changed=_CHANGED,
        ),
    )


def check(config: Config, subject: Subject) -> None:
    """Refuses subjects with too few images of a class."""
    config.sweep(subject.per_class, subject.bounded_by)


def measure(config: Config, subject: Subject, run: Run) -> dict[str, dict[str, np.ndarray]]:
    """Accuracies (replicates, arms) on the subject's samples, and on samples of their mixture; and (pools, splits,
    arms) on pools drawn anew.
    """
    found = {
        pool: np.stack(
            [
                run.stage(f"{pool}-{number:03d}", accuracy, config, subject, run.seed, number, pool)["accuracy"]
                for number in progress(range(config.replicates), f"classifiers, {shown}", unit="splits")
            ]
        )
        for pool, shown in _POOLS.items()
    }
    again = on_resampled_pools(config, run, partial(resampled, config, subject, run.seed))
    return {"replicates": found, "resampled": again}


def accuracy(config: Config, subject: Subject, seed: int, replicate: int, pool: str) -> dict[str, np.ndarray]:
    """Accuracies of the classifiers of one split of ``"images"``, or of the ``"null"``."""
    sweep, null = config.sweep(subject.per_class), pool == "null"
    return {
        "accuracy": fit_size_accuracy(subject.rows, sweep, config.recipe, seed=seed, replicate=replicate, null=null)
    }


def resampled(config: Config, subject: Subject, seed: int, number: int) -> dict[str, np.ndarray]:
    """Accuracies (splits, arms) of ridge least squares on both pools, made from pool ``number`` of those drawn anew."""
    sweep = config.sweep(subject.per_class)

    def both(sets: Sequence[np.ndarray], split: int) -> dict[str, np.ndarray]:
        return {
            pool: fit_size_accuracy(sets[0], sweep, None, seed=seed, replicate=split, null=pool == "null")
            for pool in _POOLS
        }

    rng = np.random.default_rng(seed_of(seeded(seed), "resampled", number))
    return on_new_pool([subject.rows], rng, config.resampled_splits, both)


def report(config: Config, subject: Subject, found: Mapping[str, Mapping[str, np.ndarray]]) -> Findings:
    """Differences of accuracy against the number of images that the mixture is fitted to."""
    sweep, count = config.sweep(subject.per_class), subject.per_class
    measured, again = (
        {pool: fit_gaps(one[pool]) for pool in _POOLS} for one in (found["replicates"], found["resampled"])
    )

    def estimate(
        read: Callable[[Mapping[str, np.ndarray]], np.ndarray], bounds: tuple[float, float] = POINTS
    ) -> Estimate:
        return interval(read, measured, again, bounds)

    gap, alone = estimate(lambda one: one["images"]), estimate(lambda one: one["null"])
    shrinks = estimate(lambda one: np.abs(one["images"][..., 0]) - np.abs(one["images"][..., -2]))
    beyond = estimate(lambda one: one["images"][..., -2] - one["null"][..., -2], CORRECTED_POINTS)
    gaps = [gap[at].text("+.1f") for at in range(len(sweep.arms) - 1)]
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
            "fit-size-shrinks": Noted(shrinks, sizes),
            "fit-size-null": Noted(beyond, f"The mixture is fitted to {last} images of each class."),
            "fit-size-published": gap[-1],
        },
        figures={
            "fit_size": (
                _figure(np.asarray([*sweep.n_fit, count]), subject.dimension, gap, alone),
                f"All images are {count} of each class.",
            )
        },
        tables=[Table("Accuracy on images minus that on the mixture (points)", header, rows)],
        metrics={"n_fit": sweep.n_fit, "gaps": measured["images"], "null_gaps": measured["null"]},
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
    few, again = min(d, MOST_DIMENSIONS), config.resampled_pools * config.resampled_splits
    ridge = arms * (4 * sweep.train * k * few**2 + few**3)
    flop = 2 * (config.replicates * (k * fits + sgd) + again * (k * fits + ridge))
    return [Cost("fit size", 0, flop, images, 0)]


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
