"""The gap the paper puts down to estimation: mixtures fitted to n_fit images, n_fit swept, and the published protocol."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from dgu import plots
from dgu.analysis.stats.resampling import Interval, corrected_t_interval, t_interval
from dgu.analysis.universality.arms import Recipe
from dgu.analysis.universality.fit_size import FitSweep, fit_gaps, fit_size_accuracy
from dgu.core.errors import require
from experiments.concentration_parts.subject import PAPER, Plan, Subject
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "The gap that a finite fit leaves"
CLAIM_IDS = ("fit-size-shrinks", "fit-size-null", "fit-size-published")
FIGURE_FILES = ("figures/fit_size.png",)
#: The range of a difference of accuracies, in percentage points.
POINTS = (-100, 100)


@dataclass(frozen=True)
class Config:
    """Linear classifiers on the samples and on mixtures fitted to n_fit of them."""

    sizes: tuple[int, ...] = (50, 100, 200, 400, 800, 1600, 3200, 6400)
    """Images per class that mixtures are fitted to, increasing, two or more; those that the pool has enough images for are used."""
    train: int = 200
    """Images per class that classifiers are trained on."""
    validation: int = 60
    """Images per class that choose the rate and the stopping epoch."""
    test: int = 200
    """Images per class that accuracy is measured on."""
    replicates: int = 12
    """New splits of the pool, 2 or more."""
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=30, learning_rates=(0.1, 0.3, 1.0)))
    margin: float = 2.5
    """Differences of accuracy below this count as none, in percentage points."""

    def __post_init__(self) -> None:
        check_options(self, "fit_size", sizes=2, train=2, validation=2, test=2, replicates=2, margin="(0, inf)")
        rising = all(a < b for a, b in zip(self.sizes, self.sizes[1:]))
        sound = len(self.sizes) >= 2 and rising and self.sizes[0] >= 2
        require(sound, "fit_size.sizes", self.sizes, "two or more, increasing, each at least 2")

    def sweep(self, per_class: int, shown: str = "per_class") -> FitSweep:
        """The sweep that a pool of so many images per class allows."""
        left = per_class - self.train - self.validation - self.test
        fits = tuple(n for n in self.sizes if n <= left)
        need = self.sizes[1] + self.train + self.validation + self.test
        require(
            len(fits) >= 2,
            shown,
            per_class,
            f"at least {need} for fit_size (two sizes, train, validation and test)",
        )
        return FitSweep(fits, self.train, self.validation, self.test)


PRESETS = {
    "smoke": Config(
        sizes=(2, 6), train=6, validation=2, test=4, replicates=2,
        recipe=Recipe(epochs=2, learning_rates=(1.0,), eval_interval=1),
    ),
    "default": Config(),
    "paper": Config(
        train=2048, validation=512, test=1024, replicates=10,
        recipe=Recipe(epochs=600, learning_rates=(0.01, 0.03, 0.1), batch_size=128, momentum=0.0),
    ),
}  # fmt: skip


def check(config: Config, per_class: int, shown: str = "per_class") -> None:
    """``InputError`` where there are too few images of each class."""
    config.sweep(per_class, shown)


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section | None:
    """The sweep on the subject's samples and on samples of their mixture; None for a single class."""
    k, count = subject.images.shape[:2]
    if k < 2:
        return None
    sweep = config.sweep(count)
    flat = subject.images.reshape(k, count, -1)

    def accuracies(null: bool) -> np.ndarray:
        found = []
        for number in range(config.replicates):
            compute = partial(
                fit_size_accuracy, flat, sweep, config.recipe, seed=seed, replicate=number, null=null
            )  # fmt: skip
            stage = f"fit_size/{'null' if null else 'images'}-{number:03d}"
            found.append(directory.stage(stage, partial(_named, "accuracy", compute))["accuracy"])
        return np.stack(found)

    own, null = fit_gaps(accuracies(False)), fit_gaps(accuracies(True))
    shared: dict[str, Any] = {"n_train": sweep.total - sweep.test, "n_test": sweep.test}

    def interval(values: np.ndarray) -> Interval:
        return corrected_t_interval(np.moveaxis(values, 0, -1), **shared, bounds=POINTS)

    gap, alone = interval(own), t_interval(null.T, bounds=POINTS)
    n = np.asarray([*sweep.n_fit, count])
    arms = ("diffusion", "null")
    mean, low, high = (
        np.stack([np.asarray(getattr(each, part)) for each in (gap, alone)]) for part in ("estimate", "low", "high")
    )
    panel = plots.CurvePanel("", n, mean, low, high, arms, dimension=flat.shape[-1])
    figure = plots.learning_curves(
        [panel],
        quantity="accuracy on images - on mixture (points)",
        xlabel="images a class that the mixture is fitted to",
        labels={"diffusion": "samples", "null": "null: exactly Gaussian images"},
    )
    directory.save_figure(FIGURE_FILES[0], figure)

    first, last = sweep.n_fit[0], sweep.n_fit[-1]
    shrinks = interval(np.abs(own[:, 0]) - np.abs(own[:, -2]))
    corrected = interval(own[:, -2] - null[:, -2])
    everything = interval(own[:, -1])
    claims = [
        JudgedClaim.at_least(
            id="fit-size-shrinks",
            paper=PAPER,
            figure="Fig 5",
            statement=f"The difference of accuracy between samples and mixture shrinks from n_fit = {first} to {last} images a class, as an error of estimation must.",
            value=float(shrinks.estimate),
            interval=(float(shrinks.low), float(shrinks.high)),
            threshold=0.0,
            unit="points",
        ),
        JudgedClaim.equivalent(
            id="fit-size-null",
            paper="own",
            figure="",
            statement=f"At n_fit = {last} the difference is that of exactly Gaussian images: what the finite fit alone does.",
            estimate=float(corrected.estimate),
            interval=(float(corrected.low), float(corrected.high)),
            margin=config.margin,
            unit="points",
        ),
        JudgedClaim.equivalent(
            id="fit-size-published",
            paper=PAPER,
            figure="Fig 5",
            statement="By the published protocol, a mixture fitted to all images and the test images among them, accuracies on samples and mixture differ by less than the margin.",
            estimate=float(everything.estimate),
            interval=(float(everything.low), float(everything.high)),
            margin=config.margin,
            unit="points",
        ),
    ]
    alones = np.asarray(alone.estimate)
    by_size = [
        f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
        for value, low, high in zip(*(np.asarray(part) for part in (gap.estimate, gap.low, gap.high)))
    ]
    answer = (
        f"Accuracy on the samples, less that on the mixture, is {by_size[0]} points where the mixture is fitted to {first} images a class, "
        f"{by_size[-2]} at {last}, and {by_size[-1]} by the published protocol. "
        f"Exactly Gaussian images give {alones[0]:+.1f}, {alones[-2]:+.1f} and {alones[-1]:+.1f}: that much is the finite fit alone."
    )
    rows = [
        (
            arm,
            *(
                float(np.asarray(part)[at])
                for found in (gap, alone)
                for part in (found.estimate, found.low, found.high)
            ),
        )
        for at, arm in enumerate(sweep.arms[1:])
    ]
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(
                FIGURE_FILES[0],
                "Test accuracy of linear classifiers (softmax + MSE) trained and tested on the samples, less that of classifiers trained and tested on the mixture, against "
                f"the number of images that the mixture is fitted to: other images than the classifiers see, but for the last point, {count} images, which are all of them, "
                "the test images included (the published protocol). Null: the same with images drawn from a Gaussian mixture. Bands: 95 % intervals.",
            )
        ],
        [Table("Accuracy on images less that on the mixture (points)", ("mixture", "samples", "low", "high", "null", "low", "high"), rows)],
        {"n_fit": list(sweep.n_fit), "gaps": own.tolist(), "null_gaps": null.tolist()},
    )  # fmt: skip


def _named(name: str, compute: Callable[[], np.ndarray]) -> dict[str, np.ndarray]:
    return {name: compute()}


def costs(config: Config, subject: Plan) -> list[Cost]:
    """Fits, draws and classifiers of all replicates, images and null."""
    if subject.classes < 2:
        return []
    sweep = config.sweep(subject.per_class)
    d, k = int(np.prod(subject.shape)), subject.classes
    arms = len(sweep.arms)
    drawn = sweep.train + sweep.validation + sweep.test * sweep.test_factor
    fits = sum(2 * n * d * min(n, d) + 2 * drawn * min(n, d) * d for n in (*sweep.n_fit, subject.per_class))
    sgd = arms * len(config.recipe.learning_rates) * config.recipe.epochs * sweep.train * k * 4 * d * k
    images = arms * drawn * k * d * 4
    return [Cost("fit size", 0, 2 * config.replicates * (k * fits + sgd), images, 0)]
