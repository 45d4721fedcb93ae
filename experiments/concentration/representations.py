"""Representations: universality and spectra on features of a network and of random convolutions, as well as on
pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from dgu import analysis, plots
from dgu.analysis.moments.spectra import squared_singular_values
from dgu.analysis.stats.estimates import Estimate
from dgu.analysis.stats.resampling import Equivalence, corrected_t_interval, equivalence
from dgu.analysis.universality.arms import PARTS, Task, assemble, cut_parts, gaussian_arms, train_and_test
from dgu.analysis.universality.recipe import Recipe
from dgu.core.keys import stream
from dgu.core.typing import Key
from dgu.data.splits import split_classes
from experiments import study
from experiments.concentration.subject import PAPER, Plan, Subject, points, require_images, single_class
from experiments.study import Claim, Cost, Figure, Findings, Noted, Run, Table, all_of, equivalent, option, within
from experiments.study.progress import progress

#: The representations, and what they are called.
NAMES = {"pixels": "pixels", "cnn": "features of a small network", "random-conv": "random convolutional features"}
ARMS = ("diffusion", "mixture", "null")
#: Fewest images of each class.
MIN_IMAGES = 24
#: Shares of a class's images in each part of a split, in percent.
SHARES = {"fit": 40, "train": 35, "validation": 5, "test": 20}
#: Test images of the Gaussian arms as a multiple of the samples': they cost no sampling, and reduce the variance.
GAUSSIAN_TEST = 4
#: Ranks at which spectra are compared, as fractions; ratios within the bounds count as equal.
QUANTILES, BOUNDS = (0.25, 0.5), (0.8, 1.25)
#: What is compared there.
_RATIO = (
    "with r the ratio of an eigenvalue of the mixture to that of the samples, and r0 the ratio of the null's to the "
    "mixture's, where the null is a mixture fitted again to draws of the mixture"
)

FIGURES = (
    Figure(
        "representations",
        "Differences of test accuracy of classifiers of all classes, with 95 % intervals corrected for the samples "
        "that splits share; the band is the margin. Mixture minus null is the effect of the finite fit alone.",
    ),
    Figure(
        "representation_spectra",
        "Gram spectra of the balanced mixture of classes in each representation (test images, uncentred; the samples' "
        "mean square is 1), and their ratios; medians over splits with the range of 95 %.",
    ),
)


@dataclass(frozen=True)
class Config(study.Options, prefix="representations"):
    """Classifiers and spectra on pixels, on the penultimate layer of a small network, and on random convolutions."""

    replicates: int = option(12, ge=2)
    """Random splits of the samples."""
    epochs: int = option(12, ge=1)
    """Passes of the small network over the real images that it is trained on."""
    width: int = option(16, ge=1)
    """Channels of the small network's first convolution; the network has 8 times as many features."""
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=30))
    """Training of the linear classifiers."""
    margin: float = option(2.5, gt=0.0)
    """Differences of accuracy below this count as none, in percentage points."""
    max_standard_error: float = option(0.8, gt=0.0)
    """Largest standard error at which a difference is judged, in percentage points."""


PRESETS = {
    "smoke": Config(replicates=2, epochs=1, width=2, recipe=Recipe(epochs=2, learning_rates=(1.0,), eval_interval=1)),
    "default": Config(),
    "paper": Config(replicates=10, epochs=30, width=64, recipe=Recipe(epochs=100)),
}


def claims(config: Config) -> tuple[Claim, ...]:
    """What is tested."""
    *others, last = NAMES.values()
    return (
        *(
            Claim(
                f"representations-{name}",
                f"On {words}, linear classifiers that tell all classes apart reach the same accuracy, within "
                f"{points(config.margin)}, when trained and tested on samples as when trained and tested on draws from "
                "the Gaussian mixture fitted to other samples, one Gaussian to a class (value: accuracy on samples "
                "minus accuracy on mixture; undecided if its standard error exceeds "
                f"{config.max_standard_error:g}).",
                equivalent(config.margin, max_standard_error=config.max_standard_error),
                source="Fig 5" if name == "pixels" else "Section 4, features",
                unit="points",
                one_network=True,
            )
            for name, words in NAMES.items()
        ),
        Claim(
            "representations-spectra",
            f"On {', '.join(others)} and {last}, the fitted Gaussian mixture has the Gram spectrum of the samples, up "
            f"to the effect of the finite fit: {_RATIO}, r / r0 lies in [{BOUNDS[0]:g}, {BOUNDS[1]:g}] at the ranks "
            f"{' and '.join(f'{quantile:.0%}' for quantile in QUANTILES)} down the spectrum (a part for each "
            "representation and rank; value: r / r0).",
            all_of(
                *(
                    Claim(
                        _spectrum_claim(name, quantile),
                        f"On {words}, r / r0 lies in [{BOUNDS[0]:g}, {BOUNDS[1]:g}] at the rank {quantile:.0%} down "
                        f"the Gram spectrum, {_RATIO}.",
                        within(*BOUNDS),
                        source="Fig 8",
                    )
                    for name, words in NAMES.items()
                    for quantile in QUANTILES
                )
            ),
            source="Fig 8",
            one_network=True,
        ),
    )


def _spectrum_claim(name: str, quantile: float) -> str:
    return f"representations-spectra-{name}-{round(100 * quantile)}%"


def check(config: Config, subject: Subject) -> None:
    """Refuses subjects with too few images of a class."""
    require_images(subject, MIN_IMAGES, "representations")


def measure(config: Config, subject: Subject, run: Run) -> dict[str, Any]:
    """The samples in each representation, and accuracies and spectra of the three arms there.

    The network is trained on the real images, or if there are none, on a third of the samples, which are then left out
    of the comparison.
    """
    found = run.stage("features", features, config, subject, run.key)
    shown = progress(NAMES, "classifiers", unit="representations")
    return {
        "features": {name: found[name].shape for name in NAMES},
        "cnn_accuracy": float(found["cnn_accuracy"]),
        "compared": {name: run.stage(name, compare, config, run.key, found[name], run.seed) for name in shown},
    }


def report(config: Config, subject: Subject, found: Mapping[str, Any]) -> Findings:
    """Differences of accuracy and ratios of spectra in each representation."""
    compared = found["compared"]
    count = found["features"]["pixels"][1]
    test = part_sizes(count)["test"]
    held = {"n_train": count - test, "n_test": test}
    # By replicate, arm: accuracy of each arm on its own test images.
    accuracy = {name: np.einsum("raa->ra", compared[name]["accuracy"]) for name in NAMES}
    gaps = {name: _gaps(config, accuracy[name].astype(np.float64), held) for name in NAMES}
    equal = [NAMES[name] for name in NAMES if gaps[name][0].verdict == "supported"]
    differences = ", ".join(f"{gaps[name][0].estimate:+.1f} points on {words}" for name, words in NAMES.items())
    trained = "real images" if subject.real is not None else "samples that are left out here"
    rows = [
        (words, found["features"][name][-1], *(f"{value:.1f}" for value in 100 * accuracy[name].mean(axis=0)))
        for name, words in NAMES.items()
    ]
    header = ("representation", "d", "samples", "mixture", "null")
    return Findings(
        f"Samples and Gaussian mixture differ in the accuracy of linear classifiers by {differences} (margin "
        f"{config.margin:g}; equivalent on {', '.join(equal) if equal else 'none of them'}). The network was trained "
        f"on {trained} and classifies {found['cnn_accuracy']:.0%} of the samples as their own class.",
        claims={
            f"representations-{name}": Noted(
                own.interval, f"Accuracy on mixture minus accuracy on null: {null.estimate:+.2f} points."
            )
            for name, (own, null) in gaps.items()
        }
        | {"representations-spectra": _spectrum_ratios(compared, held)},
        figures={
            "representations": _forest(config, gaps),
            "representation_spectra": plots.spectra(
                [
                    plots.SpectrumPanel(words, {arm: compared[name][f"spectrum.{arm}"] for arm in ARMS})
                    for name, words in NAMES.items()
                ],
                quantity="eigenvalue (relative)",
                ratios=(("mixture", "diffusion"), ("null", "mixture")),
                labels={"diffusion": "samples", "mixture": "Gaussian mixture", "null": "null"},
                columns=3,
            ),
        },
        tables=[Table("Accuracy (%) on each arm's own test images", header, rows)],
        metrics={
            "gaps": {name: [gap.estimate for gap in both] for name, both in gaps.items()},
            "dimension": {name: found["features"][name][-1] for name in NAMES},
            "cnn_accuracy": found["cnn_accuracy"],
        },
    )


def part_sizes(count: int) -> dict[str, int]:
    """Images of each class in the parts of a split of ``count``."""
    return {part: max(2, count * share // 100) for part, share in SHARES.items()}


def features(config: Config, subject: Subject, key: Key) -> dict[str, np.ndarray]:
    """The samples in each representation, (K, n, d), divided by the root mean square.

    ``cnn_accuracy`` is the share of the samples that the network assigns to their own class.
    """
    images, real = subject.images, subject.real
    if real is None:
        spared = images.shape[1] // 3
        real, images = images[:, :spared], images[:, spared:]
    k = len(images)
    labels = np.repeat(np.arange(k, dtype=np.int32), real.shape[1])
    net = analysis.train_convnet(
        real.reshape(-1, *subject.shape),
        labels,
        stream(key, "network"),
        epochs=config.epochs,
        batch_size=min(128, len(labels)),
        width=config.width,
    )
    random = analysis.random_convolutions(stream(key, "random"), images.shape[2:])
    found = {
        "pixels": images.reshape(*images.shape[:2], -1),
        "cnn": analysis.represent(images, net.features),
        "random-conv": analysis.represent(images, partial(jax.jit(analysis.RandomConvolutions.__call__), random)),
    }
    scaled = {name: rows / np.sqrt(np.mean(np.square(rows, dtype=np.float64))) for name, rows in found.items()}
    accuracy = net.accuracy(images.reshape(-1, *subject.shape), np.repeat(np.arange(k), images.shape[1]))
    return {name: rows.astype(np.float32) for name, rows in scaled.items()} | {"cnn_accuracy": np.array(accuracy)}


def compare(config: Config, key: Key, rows: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Accuracy (replicates, train arm, test arm) and Gram spectra (replicates, r) of samples, mixture and null."""
    k, count, _ = rows.shape
    sizes = part_sizes(count)
    gaussian = {part: sizes[part] * (GAUSSIAN_TEST if part == "test" else 1) for part in PARTS}
    task = Task("all", np.arange(k)[None], (sizes["train"],), "softmax_mse")
    accuracy: list[np.ndarray] = []
    spectra: dict[str, list[np.ndarray]] = {arm: [] for arm in ARMS}
    for number in range(config.replicates):
        split = split_classes(rows, sizes, seed, number)
        arms = {"diffusion": {part: split[part] for part in PARTS}}
        drawn = gaussian_arms(split["fit"], stream(key, "mixture", number), sum(gaussian.values()))
        arms |= {arm: cut_parts(images, gaussian) for arm, images in drawn.items()}
        accuracy.append(train_and_test(assemble(arms), task, config.recipe, seed + number)["accuracy"][:, :, 0, 0])
        for arm in ARMS:
            test = arms[arm]["test"][:, : sizes["test"]].reshape(-1, rows.shape[-1])
            spectra[arm].append(np.asarray(squared_singular_values(test)) / len(test))
    return {"accuracy": np.stack(accuracy)} | {f"spectrum.{arm}": np.stack(found) for arm, found in spectra.items()}


def _gaps(config: Config, accuracy: np.ndarray, held: Mapping[str, int]) -> list[Equivalence]:
    """Differences of accuracy of samples and mixture, and of mixture and null, from accuracies (replicates, arms)."""
    return [
        equivalence(
            100 * (accuracy[:, first] - accuracy[:, first + 1]),
            config.margin,
            max_standard_error=config.max_standard_error,
            bounds=(-100, 100),
            **held,
        )
        for first in range(2)
    ]


def _spectrum_ratios(compared: Mapping[str, Mapping[str, np.ndarray]], held: Mapping[str, int]) -> dict[str, Estimate]:
    """Eigenvalues of the mixture over the samples', divided by the null's over the mixture's."""
    measured = {}
    for name in NAMES:
        log = {arm: np.log(np.maximum(compared[name][f"spectrum.{arm}"], 1e-12)) for arm in ARMS}
        corrected = 2 * log["mixture"] - log["diffusion"] - log["null"]
        for quantile in QUANTILES:
            values = corrected[:, round(quantile * (corrected.shape[1] - 1))]
            mean = corrected_t_interval(values, held["n_train"], held["n_test"])
            measured[_spectrum_claim(name, quantile)] = mean.map(np.exp)
    return measured


def _forest(config: Config, gaps: Mapping[str, list[Equivalence]]) -> Any:
    found = [gap for both in gaps.values() for gap in both]
    return plots.forest(
        [f"{name}: {pair}" for name in gaps for pair in ("samples minus mixture", "mixture minus null")],
        np.array([gap.estimate for gap in found]),
        np.array([[float(gap.interval.low), float(gap.interval.high)] for gap in found]),
        config.margin,
        verdicts=[gap.verdict for gap in found],
        quantity="difference of test accuracy (percentage points)",
    )


def costs(config: Config, plan: Plan) -> list[Cost]:
    """Classifiers and mixtures of all representations."""
    if plan.classes < 2:
        return []
    flop, count = 0.0, plan.per_class
    dimensions = (plan.dimension, 8 * config.width, 128)
    for d in dimensions:
        visits = plan.classes * part_sizes(count)["train"] * config.recipe.epochs
        fits = 3 * len(config.recipe.learning_rates) * visits * 4.0 * d * plan.classes
        flop += config.replicates * (fits + 4.0 * plan.classes * count * d * min(count, d))
    held = 4.0 * plan.classes * count * max(dimensions)
    return [Cost("representations", flop=flop, memory=4 * held, disk=held * sum(dimensions) / max(dimensions))]


PART = study.Part(
    name="representations",
    title="Representations",
    question="Do samples and their Gaussian mixture agree on features, too, in accuracy of classifiers and in spectra?",
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
