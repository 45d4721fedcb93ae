"""Universality put to use: the test error of least squares predicted from means and covariances, against simulation and images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dgu import plots
from dgu.analysis.stats.resampling import corrected_t_interval, t_interval
from dgu.analysis.universality.fit_size import mixture_samples
from dgu.analysis.universality.least_squares import least_squares_classifier, simulated_errors
from dgu.analysis.universality.predicted import class_moments, predicted_curve
from dgu.core.errors import require
from dgu.core.keys import seeded, stream
from dgu.data.splits import class_splits
from experiments.concentration_parts.subject import Plan, Subject
from experiments.study.costs import Cost
from experiments.study.judged import JudgedClaim
from experiments.study.options import check_options
from experiments.study.report import FigureEntry, Section, Table
from experiments.study.run_directory import RunDirectory

TITLE = "Test errors predicted from means and covariances"
CLAIM_IDS = ("prediction-simulation", "prediction-images")
FIGURE_FILES = ("figures/prediction.png",)
#: The two classifiers, and what they are called.
LINES = {"ridge": "best ridge", "min_norm": "no ridge"}

#: Without a ridge the error peaks at n = d, and a finite d rounds the peak off: claims are about n / d at least this factor away.
AWAY = 1.5


@dataclass(frozen=True)
class Config:
    """One-vs-all least squares: asymptotic theory, simulation on the mixture, and training on the samples."""

    ratios: tuple[float, ...] = (0.5, 0.8, 1.25, 2.0, 4.0)
    """Training sizes as multiples of d, not 1; those at least a factor of 1.5 away from it enter the claims."""
    between: int = 9
    """Further sizes at which theory is drawn, evenly spread on a logarithmic axis; 2 or more."""
    simulations: int = 200
    """Training sets drawn from the mixture at each size, 2 or more."""
    replicates: int = 20
    """Splits of the samples at each size, 2 or more."""
    fit_share: float = 0.4
    """Share of the samples that means and covariances are taken from."""
    test_share: float = 0.2
    """Share of the samples that classifiers are tested on."""
    max_dimension: int = 1600
    """Images of more pixels than this are left out: theory and simulation work with d x d matrices of each class."""
    tolerance: float = 1.0
    """Differences between theory and simulation below this count as none, in percentage points."""
    margin: float = 2.5
    """Differences between theory and images, beyond those of the null, below this count as none, in percentage points."""

    def __post_init__(self) -> None:
        check_options(
            self, "prediction", ratios="(0, inf)", between=2, simulations=2, replicates=2, max_dimension=1, tolerance="(0, inf)",
            margin="(0, inf)", fit_share="(0, 1)", test_share="(0, 1)",
        )  # fmt: skip
        rising = all(a < b for a, b in zip(self.ratios, self.ratios[1:]))
        sound = len(self.ratios) >= 1 and rising and self.ratios[0] > 0 and 1 not in self.ratios
        require(sound, "prediction.ratios", self.ratios, "one or more, increasing, positive, and not 1")
        far = any(max(ratio, 1 / ratio) >= AWAY for ratio in self.ratios)
        require(far, "prediction.ratios", self.ratios, f"with one at least a factor of {AWAY:g} away from 1")
        shares = self.fit_share, self.test_share
        require(min(shares) > 0 and sum(shares) < 1, "(prediction.fit_share, prediction.test_share)", shares,
                "positive, together below 1")  # fmt: skip

    def parts(self, count: int, shown: str = "per_class") -> dict[str, int]:
        """Images per class for moments, tests and training."""
        fit, test = (max(2, round(share * count)) for share in (self.fit_share, self.test_share))
        require(count - fit - test >= 1, shown, count, "6 or more for prediction")
        return {"fit": fit, "test": test, "train": count - fit - test}

    def sizes(self, d: int, k: int, train: int) -> np.ndarray:
        """Training images per class at the ratios that the samples reach; all of them if they reach none."""
        wanted = sorted({max(1, round(ratio * d / k)) for ratio in self.ratios})
        return np.asarray([n for n in wanted if n <= train] or [train])


PRESETS = {
    "smoke": Config(ratios=(0.25,), between=2, simulations=2, replicates=2),
    "default": Config(),
    "paper": Config(replicates=20, simulations=20),
}


def check(config: Config, per_class: int, shown: str = "per_class") -> None:
    """``InputError`` where there are too few images of each class."""
    config.parts(per_class, shown)


def run(config: Config, subject: Subject, directory: RunDirectory, seed: int) -> Section | None:
    """Theory, simulation, images and null at each size; None for one class or images above ``max_dimension``."""
    k, count = subject.images.shape[:2]
    flat = subject.images.reshape(k, count, -1)
    d = flat.shape[-1]
    if k < 2 or d > config.max_dimension:
        return None
    parts = config.parts(count)
    per_class = config.sizes(d, k, parts["train"])
    n = k * per_class
    key = stream(seeded(seed), "prediction")
    gaussian = mixture_samples(flat, stream(key, "null"), count)
    found = {
        name: directory.stage(
            f"prediction/{name}", partial(_measure, config, pool, per_class, seed), allow_nonfinite=True
        )
        for name, pool in (("samples", flat), ("null", gaussian))
    }
    predicted = found["samples"]
    means, covariances = predicted["means"], predicted["covariances"]
    simulated = []
    for size, ridge in zip(n.tolist(), predicted["best"][predicted["at"]].tolist()):
        # A stream of its own for each size: intervals at different sizes are independent.
        draw = partial(simulated_errors, means, covariances, size, (ridge, 0.0), stream(key, size), config.simulations)
        simulated.append(directory.stage(f"prediction/simulated-{size}", partial(_named, "errors", draw))["errors"])
    # Differences from the theory, (sizes, lines, replicates), in percentage points.
    simulation = 100 * np.moveaxis(np.stack(simulated), 1, -1)
    theory = {name: 100 * each["theory"][..., None] for name, each in found.items()}
    off = {name: 100 * each["errors"] - theory[name] for name, each in found.items()}
    shared: dict[str, Any] = {"n_train": parts["train"], "n_test": parts["test"]}
    drawn = t_interval(simulation, bounds=(0, 100))
    seen = corrected_t_interval(100 * found["samples"]["errors"], **shared, bounds=(0, 100))
    alone = corrected_t_interval(off["null"], **shared, bounds=(-100, 100))

    panels = []
    for place, (line, text) in enumerate(LINES.items()):
        mean, low, high = (
            np.stack([np.asarray(getattr(each, part))[:, place] for each in (drawn, seen)])
            for part in ("estimate", "low", "high")
        )
        curve = {"theory for the mixture": (predicted["n"], 100 * predicted[line])}
        panels.append(plots.CurvePanel(text, n, mean, low, high, ("mixture", "diffusion"), d, curve))
    labels = {"mixture": "simulation on the mixture", "diffusion": "trained and tested on samples"}
    figure = plots.learning_curves(panels, quantity="test error (%)", labels=labels)
    directory.save_figure(FIGURE_FILES[0], figure)

    # Training sets of a pool too small for the ratios may all lie near the peak: then there is nothing to judge.
    far = np.flatnonzero(np.maximum(n / d, d / n) >= AWAY * 0.98)
    near = "" if len(far) else f"all training sizes lie near the peak: n / d {_span(n / d)}"
    far = np.arange(len(n)) if near else far
    away = f"(n / d a factor of {AWAY:g} or more away from the peak at 1)"
    where = "near the peak at 1" if near else away[1:-1]
    claims = [
        JudgedClaim.all_of(
            _equivalent("prediction-simulation", (simulation - theory["samples"])[far], n[far], config.tolerance, None),
            id="prediction-simulation",
            paper="own",
            figure="",
            statement=f"The asymptotic formula gives the error of least squares on samples of the mixture {away}.",
        ).unless(near),
        JudgedClaim.all_of(
            _equivalent("prediction-images", (off["samples"] - off["null"])[far], n[far], config.margin, shared),
            id="prediction-images",
            paper="concentration",
            figure="Theorem 1",
            statement="Least squares on the samples errs as the formula says from the moments of other samples, beyond what the same finite number of exactly Gaussian images does "
            f"{away}.",
        ).unless(near),
    ]
    expected = theory["samples"][..., 0]
    offs = (np.asarray(drawn.estimate) - expected, np.asarray(seen.estimate) - expected, np.asarray(alone.estimate))
    worst = [float(np.abs(values[far]).max()) for values in offs]
    answer = (
        f"From means and covariances alone, the test error of least squares is predicted to within {worst[0]:.2f} points on samples of the Gaussian mixture "
        f"(d = {d}, n / d {_span(n / d)}, with and without a ridge, {where}), and to within {worst[1]:.1f} points on the samples themselves; "
        f"where the images are exactly Gaussian the moments of {parts['fit']} images a class leave it {worst[2]:.1f} points off."
    )
    table_rows = [
        (int(size), text, float(expected[i, j]), *(float(np.asarray(part)[i, j]) for each in (drawn, seen) for part in (each.estimate, each.low, each.high)), float(np.asarray(alone.estimate)[i, j]))
        for i, size in enumerate(n)
        for j, text in enumerate(LINES.values())
    ]  # fmt: skip
    header = ("n", "classifier", "theory", "mixture", "low", "high", "samples", "low", "high", "null - its theory")
    return Section(
        TITLE,
        answer,
        claims,
        [
            FigureEntry(
                FIGURE_FILES[0],
                f"Test error of one-vs-all least squares against training size (upper axis: n over d): theory from the moments of {parts['fit']} samples a class (grey), "
                "simulation on the Gaussian mixture with these moments, and training and testing on other samples. Bands: 95 % intervals. The moments are themselves "
                "estimates, which makes the mixture easier to tell apart than the samples.",
            )
        ],
        [Table("Test error of least squares (%)", header, table_rows)],
        {
            "n": n.tolist(),
            "theory": expected.tolist(),
            "simulated": np.asarray(drawn.estimate).tolist(),
            "samples": np.asarray(seen.estimate).tolist(),
            "null_minus_theory": np.asarray(alone.estimate).tolist(),
        },
    )


@threadpool_limits.wrap(limits=1)  # Matrices this small only wait for a second BLAS thread.
def _measure(config: Config, images: np.ndarray, per_class: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Moments of a part of the images (K, n, d), the theory from them, and errors of least squares on the other images.

    ``n``, ``ridge``, ``min_norm`` and ``best`` at the training sizes and between them, ``at`` the places of the training sizes there;
    ``theory`` (sizes, lines) and ``errors`` (sizes, lines, replicates) at the training sizes.
    """
    k, count, _ = images.shape
    parts = config.parts(count)
    cut = {"fit": parts["fit"], "rest": count - parts["fit"]}
    split = [class_splits(count, cut, seed, 0, label) for label in range(k)]
    fitted, rest = (np.stack([images[label, rows[part]] for label, rows in enumerate(split)]) for part in cut)
    means, covariances = class_moments(fitted)
    n = k * per_class
    # Between the sizes too, so that the line shows how the error peaks at n = d without a ridge.
    fine = np.unique(np.concatenate([n, np.geomspace(n[0], n[-1], config.between)]).round(6))
    curve = predicted_curve(means, covariances, np.arange(k)[None], fine)
    at = np.searchsorted(fine, n)
    errors = [
        _on_images(rest, parts, size, (ridge, 0.0), config.replicates, seed).T
        for size, ridge in zip(per_class.tolist(), curve.best[at].tolist())
    ]
    return {
        "means": means,
        "covariances": covariances,
        "n": fine,
        "at": at,
        "ridge": curve.ridge,
        "min_norm": curve.min_norm,
        "best": curve.best,
        "theory": np.stack([curve.ridge[at], curve.min_norm[at]], axis=1),
        "errors": np.stack(errors),
    }


def _on_images(
    images: np.ndarray, parts: dict[str, int], per_class: int, ridges: tuple[float, ...], replicates: int, seed: int
) -> np.ndarray:
    """Errors (replicates, ridges) of least squares trained on images (K, n, d) and tested on others; each replicate a new split."""
    k, count, _ = images.shape
    sizes = {part: parts[part] for part in ("train", "test")}
    labels, truth = np.repeat(np.arange(k), per_class), np.repeat(np.arange(k), parts["test"])
    errors = np.empty((replicates, len(ridges)))
    for number in range(replicates):
        rows = [class_splits(count, sizes, seed, 1 + number, label) for label in range(k)]
        train = np.concatenate([images[label, split["train"][:per_class]] for label, split in enumerate(rows)])
        test = np.concatenate([images[label, split["test"]] for label, split in enumerate(rows)]).astype(np.float64)
        for place, ridge in enumerate(ridges):
            scores = test @ least_squares_classifier(train, labels, k, ridge=ridge)
            errors[number, place] = np.mean(np.argmax(scores, axis=1) != truth)
    return errors


def _equivalent(
    name: str, differences: np.ndarray, n: np.ndarray, margin: float, shared: dict[str, Any] | None
) -> list[JudgedClaim]:
    """A claim for each size and classifier from (sizes, lines, replicates) differences, in percentage points."""
    bounds = (-100, 100)
    found = (
        t_interval(differences, bounds=bounds)
        if shared is None
        else corrected_t_interval(differences, **shared, bounds=bounds)
    )
    estimate, low, high = (np.asarray(part) for part in (found.estimate, found.low, found.high))
    return [
        JudgedClaim.equivalent(
            id=f"{name}-{size}-{line}",
            paper="own",
            figure="",
            statement=f"n = {size}, {text}: no difference from the theory.",
            estimate=float(estimate[i, j]),
            interval=(float(low[i, j]), float(high[i, j])),
            margin=margin,
            unit="points",
        )
        for i, size in enumerate(n.tolist())
        for j, (line, text) in enumerate(LINES.items())
    ]


def _span(ratios: np.ndarray) -> str:
    """The least and the largest of rising ratios, or the one there is."""
    return f"= {ratios[0]:.2g}" if ratios[0] == ratios[-1] else f"from {ratios[0]:.2g} to {ratios[-1]:.2g}"


def _named(name: str, compute: Callable[[], np.ndarray]) -> dict[str, np.ndarray]:
    return {name: compute()}


def costs(config: Config, subject: Plan) -> list[Cost]:
    """Products of d x d matrices for the theory; Gram matrices and their solution for the classifiers."""
    d, k = int(np.prod(subject.shape)), subject.classes
    if k < 2 or d > config.max_dimension:
        return []
    parts = config.parts(subject.per_class)
    n = k * config.sizes(d, k, parts["train"]).astype(float)
    theory = (len(n) + config.between) * 12 * 6 * (2 * k + 2) * float(d) ** 3
    fits = sum(2 * size * d * min(size, d) + min(size, d) ** 3 for size in n)
    flop = 2 * theory + 2 * (config.simulations + 2 * config.replicates) * fits
    return [Cost("prediction", 0, flop, 8 * (4 * k * d * d + max(n) * d), 0)]
