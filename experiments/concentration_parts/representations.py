"""Representations: universality and spectra once more, on features of a network and of random convolutions beside pixels."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.analysis.moments.spectra import squared_singular_values
from dgu.analysis.stats.resampling import corrected_t_interval, equivalence
from dgu.analysis.universality.arms import PARTS, Recipe, Task, assemble, gaussian_arms, train_and_test
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.data.splits import class_splits
from experiments.concentration_parts.subject import PAPER, Plan, Subject
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Representations"
CLAIM_IDS = (
    "representations-pixels",
    "representations-cnn",
    "representations-random-conv",
    "representations-spectra",
)
FIGURE_FILES = ("figures/representations.png", "figures/representation_spectra.png")
NAMES = ("pixels", "cnn", "random-conv")
ARMS = ("diffusion", "mixture", "null")
#: Fewest images of each class.
MIN_IMAGES = 24
#: Shares of a class's images in each part of a split, in percent.
SHARES = {"fit": 40, "train": 35, "validation": 5, "test": 20}
#: Test images of the Gaussian arms as a multiple of the samples': they cost no sampling, and steady the difference.
GAUSSIAN_TEST = 4
#: Ranks at which spectra are compared, as fractions; ratios within the bounds count as equal.
QUANTILES, BOUNDS = (0.25, 0.5), (0.8, 1.25)


@dataclass(frozen=True)
class Config:
    """Classifiers and spectra on pixels, on the penultimate layer of a small network, and on random convolutions."""

    replicates: int = 12
    """New splits of the samples, 2 or more."""
    epochs: int = 12
    """Passes of the small network over the real images that it is trained on."""
    width: int = 16
    """Channels of its first convolution; it gives 8 width features."""
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=30))
    """Training of the linear classifiers."""
    margin: float = 2.5
    """Differences of accuracy below this count as none, in percentage points."""
    max_standard_error: float = 0.8
    """A difference known less well than this is undecided, in percentage points."""

    def __post_init__(self) -> None:
        check_options(
            self, "representations", replicates=2, epochs=1, width=1, margin="(0, inf)", max_standard_error="(0, inf)"
        )


PRESETS = {
    "smoke": Config(replicates=2, epochs=1, width=2, recipe=Recipe(epochs=2, learning_rates=(1.0,), eval_interval=1)),
    "default": Config(),
    "paper": Config(replicates=10, epochs=30, width=64, recipe=Recipe(epochs=100)),
}


def check(config: Config, per_class: int, shown: str = "per_class") -> None:
    """``InputError`` where there are too few images of each class."""
    require(per_class >= MIN_IMAGES, shown, per_class, f"{MIN_IMAGES} or more for representations")


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section | None:
    """Differences of accuracy and ratios of spectra in each representation; None with a single class.

    The network is trained on the real images, or where there are none on a third of the samples, which the comparison then leaves out.
    """
    if len(subject.labels) < 2:
        return None
    key = stream(seeded(seed), "representations")
    features = directory.stage("representations/features", partial(_features, config, key, subject))
    results = {
        name: directory.stage(f"representations/{name}", partial(_compare, config, key, features[name], seed))
        for name in NAMES
    }
    count = features["pixels"].shape[1]
    sizes = _sizes(count)
    held: dict[str, Any] = {"n_train": count - sizes["test"], "n_test": sizes["test"]}

    claims, gaps = [], {}
    for name in NAMES:
        # By replicate: accuracy of each arm on its own test images.
        own = np.einsum("raa->ra", results[name]["accuracy"].astype(np.float64))
        gaps[name] = [
            equivalence(100 * (own[:, first] - own[:, first + 1]), config.margin, max_standard_error=config.max_standard_error, bounds=(-100, 100), **held)
            for first in range(2)
        ]  # fmt: skip
        found = gaps[name][0]
        claims.append(
            JudgedClaim.equivalent(
                id=f"representations-{name}",
                paper=PAPER,
                figure="Fig 5" if name == "pixels" else "Section 4, features",
                statement=f"Linear classifiers of all classes on {_WORDS[name]}, trained and tested on samples and on their Gaussian mixture, differ in accuracy by less than the margin.",
                estimate=found.estimate,
                interval=(float(found.interval.low), float(found.interval.high)),
                margin=found.margin,
                standard_error=found.standard_error,
                max_standard_error=found.max_standard_error,
                unit="points",
                note=f"of mixture and null: {gaps[name][1].estimate:+.2f} points",
            )
        )  # fmt: skip
    claims.append(_spectrum_claim(results, held))
    labels = [f"{name}: {pair}" for name in NAMES for pair in ("samples - mixture", "mixture - null")]
    flat = [found for name in NAMES for found in gaps[name]]
    directory.save_figure(
        FIGURE_FILES[0],
        plots.forest(
            labels,
            np.array([found.estimate for found in flat]),
            np.array([[float(found.interval.low), float(found.interval.high)] for found in flat]),
            config.margin,
            verdicts=[found.verdict for found in flat],
            quantity="difference of test accuracy (percentage points)",
        ),
    )
    panels = [
        plots.SpectrumPanel(_WORDS[name], {arm: results[name][f"spectrum.{arm}"] for arm in ARMS}) for name in NAMES
    ]
    directory.save_figure(
        FIGURE_FILES[1],
        plots.spectra(
            panels,
            quantity="eigenvalue (relative)",
            ratios=(("mixture", "diffusion"), ("null", "mixture")),
            labels={"diffusion": "samples", "mixture": "Gaussian mixture", "null": "null"},
            columns=3,
        ),
    )
    rows = []
    for name in NAMES:
        mean = 100 * np.einsum("raa->ra", results[name]["accuracy"]).mean(axis=0)
        rows.append((_WORDS[name], features[name].shape[-1], *(f"{value:.1f}" for value in mean)))
    equal = [name for name, claim in zip(NAMES, claims) if claim.verdict == "supported"]
    trained = "real images" if subject.real is not None else "samples that are left out here"
    answer = (
        "Samples and Gaussian mixture differ in the accuracy of linear classifiers by "
        + ", ".join(f"{claim.value:+.1f} points on {_WORDS[name]}" for name, claim in zip(NAMES, claims))
        + f" (margin {config.margin:g}; equivalent on {', '.join(_WORDS[name] for name in equal) if equal else 'none of them'}). "
        f"The network was trained on {trained} and reads {float(features['cnn_accuracy']):.0%} of the samples as their class."
    )
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(FIGURE_FILES[0], "Differences of test accuracy, all classes, with 95 % intervals corrected for the samples that splits share; the band is the margin. Mixture minus null is what the finite fit alone does."),
            FigureEntry(FIGURE_FILES[1], "Gram spectra of the balanced mixture of classes in each representation (test images, uncentred; the samples' mean square is 1), and their ratios; medians over splits with the range of 95 %."),
        ],
        [Table("Accuracy (%) on each arm's own test images", ("representation", "d", "samples", "mixture", "null"), rows)],
        {
            "gaps": {name: [found.estimate for found in gaps[name]] for name in NAMES},
            "dimension": {name: int(features[name].shape[-1]) for name in NAMES},
            "cnn_accuracy": float(features["cnn_accuracy"]),
        },
    )  # fmt: skip


_WORDS = {"pixels": "pixels", "cnn": "features of a small network", "random-conv": "random convolutional features"}


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Classifiers and mixtures of all representations."""
    if plan.classes < 2:
        return []
    flop, count = 0.0, plan.per_class
    dimensions = (int(np.prod(plan.shape)), 8 * config.width, 128)
    for d in dimensions:
        visits = plan.classes * _sizes(count)["train"] * config.recipe.epochs
        fits = 3 * len(config.recipe.learning_rates) * visits * 4.0 * d * plan.classes
        flop += config.replicates * (fits + 4.0 * plan.classes * count * d * min(count, d))
    held = 4.0 * plan.classes * count * max(dimensions)
    return [Cost("representations", flop=flop, memory=4 * held, disk=held * sum(dimensions) / max(dimensions))]


def _sizes(count: int) -> dict[str, int]:
    return {part: max(2, count * share // 100) for part, share in SHARES.items()}


def _features(config: Config, key: Any, subject: Subject) -> dict[str, np.ndarray]:
    """(K, n, d) of each representation, divided by its root mean square; and how well the network reads the samples."""
    images, real, spared = subject.images, subject.real, 0
    if real is None:
        spared = images.shape[1] // 3
        real, images = images[:, :spared], images[:, spared:]
    k = len(images)
    labels = np.repeat(np.arange(k, dtype=np.int32), real.shape[1])
    net = analysis.train_convnet(
        real.reshape(-1, *subject.shape), labels, stream(key, "network"), epochs=config.epochs,
        batch_size=min(128, len(labels)), width=config.width,
    )  # fmt: skip
    random = analysis.random_convolutions(stream(key, "random"), images.shape[2:])
    found = {
        "pixels": images.reshape(*images.shape[:2], -1),
        "cnn": analysis.represent(images, net.features),
        "random-conv": analysis.represent(images, partial(jax.jit(analysis.RandomConvolutions.__call__), random)),
    }
    scaled = {name: rows / np.sqrt(np.mean(np.square(rows, dtype=np.float64))) for name, rows in found.items()}
    flat = images.reshape(-1, *subject.shape)
    accuracy = net.accuracy(flat, np.repeat(np.arange(k), images.shape[1]))
    return {name: rows.astype(np.float32) for name, rows in scaled.items()} | {"cnn_accuracy": np.array(accuracy)}


def _compare(config: Config, key: Any, rows: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Accuracy (replicates, train arm, test arm) and Gram spectra (replicates, r) of samples, mixture and null."""
    k, count, _ = rows.shape
    sizes = _sizes(count)
    accuracy: list[np.ndarray] = []
    spectra: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    for number in range(config.replicates):
        places = [class_splits(count, sizes, seed, number, label) for label in range(k)]
        split = {part: np.stack([rows[label][places[label][part]] for label in range(k)]) for part in sizes}
        gaussian = sizes | {"test": GAUSSIAN_TEST * sizes["test"]}
        drawn = gaussian_arms(split["fit"], stream(key, "mixture", number), sum(gaussian[part] for part in PARTS))
        arms = {"diffusion": {part: split[part] for part in PARTS}}
        ends = np.cumsum([gaussian[part] for part in PARTS])[:-1]
        arms |= {name: dict(zip(PARTS, np.split(np.asarray(images), ends, axis=1))) for name, images in drawn.items()}
        task = Task("all", np.arange(k)[None], (sizes["train"],), "softmax_mse")
        accuracy.append(train_and_test(assemble(arms), task, config.recipe, seed + number)["accuracy"][:, :, 0, 0])
        for arm in ARMS:
            test = arms[arm]["test"][:, : sizes["test"]].reshape(-1, rows.shape[-1])
            spectra[arm].append(np.asarray(squared_singular_values(test)) / len(test))
    return {"accuracy": np.stack(accuracy)} | {f"spectrum.{arm}": np.stack(found) for arm, found in spectra.items()}


def _spectrum_claim(results: dict[str, dict[str, np.ndarray]], held: dict[str, int]) -> JudgedClaim:
    """Eigenvalues of the mixture over the samples', divided by the null's over the mixture's."""
    parts = []
    for name in NAMES:
        log = {arm: np.log(np.maximum(results[name][f"spectrum.{arm}"], 1e-12)) for arm in ARMS}
        corrected = 2 * log["mixture"] - log["diffusion"] - log["null"]
        for quantile in QUANTILES:
            values = corrected[:, round(quantile * (corrected.shape[1] - 1))]
            interval = corrected_t_interval(values, held["n_train"], held["n_test"])
            parts.append(
                JudgedClaim.within(
                    id=f"representations-spectra-{name}-{round(100 * quantile)}%",
                    paper=PAPER,
                    figure="Fig 8",
                    statement=f"the same on {_WORDS[name]} at {quantile:.0%} of the ranks",
                    value=float(np.exp(interval.estimate)),
                    interval=(float(np.exp(interval.low)), float(np.exp(interval.high))),
                    low=BOUNDS[0],
                    high=BOUNDS[1],
                    unit="",
                )
            )
    return JudgedClaim.all_of(
        parts,
        id="representations-spectra",
        paper=PAPER,
        figure="Fig 8",
        statement="In each representation the Gram spectra of samples and mixture agree as well as those of mixture and null.",
    )
